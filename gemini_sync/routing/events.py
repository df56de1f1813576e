"""The news of a fallback, and the default way to tell people about it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Optional

from gemini_sync.errors import ConfigError
from gemini_sync.redaction import one_line
from gemini_sync.routing.policy import ACCOUNT_SAFETY_REASONS
from gemini_sync.services.base import API_KEY, OAUTH

_NAMES = {OAUTH: "OAuth", API_KEY: "the API key"}


@dataclass(frozen=True)
class FallbackEvent:
    """One flip from a route to another; ``str(event)`` is the line a person sees.

    Attributes:
        from_route, to_route: ``"oauth"`` or ``"api_key"``.
        reason: what failed, in one line.
        error: the error behind it, or None (when a probe succeeded).
        at: seconds since the epoch.
        model: the model's name when only this model flips, else None.
        link: a page from Google that explains how to fix this, or None.
    """

    from_route: str
    to_route: str
    reason: str
    error: Optional[BaseException]
    at: float
    model: Optional[str] = None
    link: Optional[str] = None

    def __str__(self) -> str:
        source, target = _NAMES.get(self.from_route, self.from_route), _NAMES.get(self.to_route, self.to_route)
        if self.model is not None:
            what = f"{source} does not serve model {self.model} ({self.reason}); {target} serves it from now on."
        elif self.error is None:
            what = f"{source} hands back to {target}: {self.reason}; {target} serves from now on."
        else:
            what = f"{source} failed ({self.reason}); {target} serves the rest of this session."
            what += f" To go back, fix this, then {_way_back(self.error)}."
        if self.link and self.link not in what:
            what += f" See {self.link}"
        return f"gemini-sync: {one_line(what)}"


def _way_back(error: BaseException) -> str:
    if isinstance(error, ConfigError):  # an adapter keeps the settings it was made with
        return "make a new adapter"
    return "call reset(force=True)" if getattr(error, "reason", None) in ACCOUNT_SAFETY_REASONS else "call reset()"


def notify_stderr(event: FallbackEvent) -> None:
    """The default ``on_fallback``: one line on stderr."""
    if sys.stderr is not None:  # a program without a console has none
        sys.stderr.write(f"{event}\n")
        sys.stderr.flush()
