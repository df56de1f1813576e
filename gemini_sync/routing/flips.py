"""Makes flips from one route to the other, and tells people about each of them once."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from gemini_sync.errors import GeminiSyncError
from gemini_sync.interruptions import raise_interruption
from gemini_sync.redaction import redacted_excerpt
from gemini_sync.routing.events import FallbackEvent
from gemini_sync.routing.fallback import FallbackState
from gemini_sync.routing.policy import Decision, explain
from gemini_sync.routing.snapshot import Choice, PendingFlip
from gemini_sync.services.base import API_KEY, OAUTH

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Flips:
    """The flips of one adapter. The thread that flips calls ``on_fallback``, once per flip."""

    def __init__(self, state: FallbackState, on_fallback: Callable[[FallbackEvent], Any]) -> None:
        self._state, self._on_fallback = state, on_fallback

    def fall_back(self, choice: Choice, flip: PendingFlip, model: str) -> None:
        """The API key has answered a call for ``model``: make ``flip`` and say so, unless that was decided before."""
        name = flip.model and flip.model.removeprefix("models/")
        event = FallbackEvent(OAUTH, API_KEY, flip.reason, flip.error, time.time(), model=name, link=flip.error.link)
        flips = self._announce(event, partial(self._state.fall_back, choice, flip.reason, flip.model, event))
        if not flips and self._state.serves_from_home(model):
            # Nothing flips, so people believe that OAuth serves. It does not serve this call, which must not be silent.
            _log.warning("the API key serves one call, OAuth stays preferred: %s", flip.reason)

    def go_back(self, choice: Choice) -> Choice:
        """The probe ``choice`` got an answer: use OAuth again and say so. Returns the choice that counts from here."""
        reason = "a probe succeeded"
        event = FallbackEvent(API_KEY, OAUTH, reason, None, time.time())
        return self._announce(event, partial(self._state.go_back, choice, reason, event)) or choice

    def _announce(self, event: FallbackEvent, flip: Callable[[], _T]) -> _T:
        """What ``flip()`` returns. If it flips, people are told, even if Ctrl-C comes between flip and message."""
        untold = [event]
        try:
            flips = flip()
            if flips:
                self._tell(untold)
            return flips
        except BaseException:
            if untold and self._state.snapshot.event is event:
                self._tell(untold)
            raise

    def _tell(self, untold: list[FallbackEvent]) -> None:
        """Take the event out of ``untold`` and call ``on_fallback`` with it; log it if that fails."""
        _log.debug("%s", untold[0])  # the callback is what people see; a second line of the same would confuse them
        try:
            self._on_fallback(untold.pop())
        except Exception as exc:
            raise_interruption(exc)
            _log.exception("on_fallback failed; the call goes on")


def flip_for(error: GeminiSyncError, decision: Decision, model: str) -> PendingFlip:
    """The flip that an answer of the API key makes, after ``error`` of a call for ``model`` led to ``decision``."""
    if decision is Decision.RETRY:
        decision = explain(error).at_last
    # The copy has no traceback. That of the error holds the frames of the call, and the call keeps the flip.
    return PendingFlip(in_one_line(error), copy.copy(error), model if decision is Decision.FALL_BACK_MODEL else None)


def in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {redacted_excerpt(str(error))}"
