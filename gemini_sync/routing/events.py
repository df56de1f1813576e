"""The news of a fallback, and the default way to tell people about it."""

from __future__ import annotations

import logging
import select
import sys
import time
from dataclasses import dataclass
from typing import Any, Optional

from gemini_sync.errors import ConfigError
from gemini_sync.interruptions import raise_interruption
from gemini_sync.redaction import one_line
from gemini_sync.routing.policy import ACCOUNT_SAFETY_REASONS
from gemini_sync.services.base import API_KEY, OAUTH

_log = logging.getLogger(__name__)

# A pipe that can be written to takes PIPE_BUF bytes, 4096 on Linux. A character takes four at most.
_LINE_CHARACTERS = 1000
_NAMES = {OAUTH: "OAuth", API_KEY: "the API key"}


@dataclass(frozen=True)
class FallbackEvent:
    """One flip from a route to another, or a reminder of it; ``str(event)`` is the line a person sees.

    Attributes:
        from_route, to_route: ``"oauth"`` or ``"api_key"``.
        reason: what failed, in one line.
        error: the error behind it, or None (when a probe succeeded).
        at: seconds since the epoch.
        model: the model's name when only this model flips, else None.
        link: a page from Google that explains how to fix this, or None.
        since: in a reminder, when the flip came, seconds since the epoch; else None.
        until: when the first route is tried again, seconds since the epoch, or None if ``sticky_for`` names no time.
    """

    from_route: str
    to_route: str
    reason: str
    error: Optional[BaseException]
    at: float
    model: Optional[str] = None
    link: Optional[str] = None
    since: Optional[float] = None
    until: Optional[float] = None

    def __str__(self) -> str:
        source, target = _NAMES.get(self.from_route, self.from_route), _NAMES.get(self.to_route, self.to_route)
        what = f"model {self.model}" if self.model is not None else ""
        if self.error is None and self.model is None:
            line = f"{source} hands back to {target}: {self.reason}; {target} serves from now on."
        elif self.error is None:
            line = f"{source} hands {what} back to {target}: {self.reason}; {target} serves it from now on."
        elif self.since is not None:
            line = f"{target} still serves{what and f' {what}'}, since {_date(self.since)}, because {source} failed "
            line += f"({self.reason}).{self._next_step()}"
        elif self.model is not None:
            how_long = "from now on" if self.until is None else f"until {_date(self.until)}"
            line = f"{source} does not serve {what} ({self.reason}); {target} serves it {how_long}."
        else:
            how_long = "the rest of this session" if self.until is None else f"until {_date(self.until)}"
            line = f"{source} failed ({self.reason}); {target} serves {how_long}.{self._next_step()}"
        if self.link and self.link not in line:
            line += f" See {self.link}"
        return f"gemini-sync: {one_line(line)}"

    def _next_step(self) -> str:
        if isinstance(self.error, ConfigError):  # an adapter keeps the settings it was made with
            return " To go back, fix this, then make a new adapter."
        force = "force=True" if getattr(self.error, "reason", None) in ACCOUNT_SAFETY_REASONS else ""
        return f" To go back, fix this, then call reset({force})."


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def notify_stderr(event: FallbackEvent) -> None:
    """The default ``on_fallback``: one line on stderr.

    It does not wait. If stderr takes no line now, because the reader of a pipe is slow, the line is logged as a
    warning instead. On Windows, which does not tell whether a pipe is full, it may wait.
    """
    line, stream = str(event), sys.stderr
    if len(line) > _LINE_CHARACTERS:
        line = line[: _LINE_CHARACTERS - 1] + "…"
    try:
        if stream is not None and _takes_a_line(stream):
            stream.write(f"{line}\n")
            stream.flush()
            return
    except (OSError, ValueError) as exc:  # a closed stream raises a ValueError
        raise_interruption(exc)
    _log_without(stream, line)


def _takes_a_line(stream: Any) -> bool:
    """False if a write to ``stream`` would wait, or its reader has gone."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        ready = poll.poll(0)
    except Exception as exc:  # there is no descriptor, as in a notebook, or no poll
        raise_interruption(exc)
        return True
    return bool(ready) and not ready[0][1] & (select.POLLERR | select.POLLHUP)


def _log_without(stream: Any, line: str) -> None:
    """Log ``line`` as a warning, but not to ``stream``: a handler that writes there would wait."""
    if not _log.isEnabledFor(logging.WARNING):
        return
    record = _log.makeRecord(_log.name, logging.WARNING, __file__, 0, "stderr takes no line: %s", (line,), None)
    logger: Optional[logging.Logger] = _log
    while logger is not None:
        for handler in logger.handlers:
            writes_there = stream is not None and getattr(handler, "stream", None) is stream
            if record.levelno >= handler.level and not writes_there:
                handler.handle(record)
        logger = logger.parent if logger.propagate else None
