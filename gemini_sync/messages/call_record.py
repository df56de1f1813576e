"""What is known about one call: the route that serves it, and what was tried."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Optional, TypeVar

from gemini_sync.errors import Attempt, GeminiSyncError

_Error = TypeVar("_Error", bound=GeminiSyncError)


class CallRecord:
    """The record of one call. The router writes it, and the reply reads it.

    Attributes:
        model: the model's resource name.
        route: the route that serves the answer, or None before its first chunk.
        trace_id: the name that the server gave the answer, or None.
        attempts: what was tried, in order.
        shows_thoughts: True if the caller iterates chunks, and so sees thoughts as they come.
    """

    def __init__(self, route: Optional[str] = None, attempts: Iterable[Attempt] = (), *, model: str = "") -> None:
        self.model, self.route = model, route
        self.trace_id: Optional[str] = None
        self.shows_thoughts = False
        self.attempts = list(attempts)

    def mark_interrupted(self, outcome: str, error: Optional[GeminiSyncError] = None) -> None:
        """The answer of the last attempt ended before it was complete."""
        if self.attempts:
            hint = error.retry_after if error is not None else None
            self.attempts[-1] = replace(self.attempts[-1], outcome=outcome, error=error, retry_after=hint)

    def label(self, error: _Error, route: Optional[str] = None) -> _Error:
        """Write the route and what was tried onto ``error``, and return it."""
        error.route, error.attempts = route or self.route or error.route, tuple(self.attempts)
        return error
