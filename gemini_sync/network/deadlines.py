"""The deadlines of one call: which of them runs, how long is left, and the error that says that it passed."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Optional, TypeVar

from gemini_sync.config import Timeouts
from gemini_sync.errors import DeadlineExceeded, cancelled_error

_Deadlines = TypeVar("_Deadlines", bound="Deadlines")
Clock = Callable[[], float]
#: Seconds that only go forward. Tools that stop the time of a test, such as freezegun, replace time.monotonic.
monotonic: Clock = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime") else time.monotonic
)

_MISSING = {
    "connect": "no connection was made",
    "first_token": "no first chunk came",
    "idle": "no further chunk came",
    "total": "the call was not done",
}


class Deadlines:
    """The deadlines of a call. None runs before ``start()``.

    Attributes:
        got_chunk: set to True after each chunk; the next read then starts a new ``idle`` deadline.
    """

    clock: Clock
    timeouts: Timeouts
    cancelled: bool
    got_chunk = False
    deadline_at = _total_at = _total_seconds = _phase_seconds = math.inf
    _phase = "total"
    _has_setting = True  # the caller can raise the deadlines
    _answer: Optional[tuple[str, float]] = None  # the small answer that is expected, and within how long

    def start(self: _Deadlines) -> _Deadlines:
        """Start the ``total`` deadline: the time before the first ``next()`` is not part of the call."""
        if self.timeouts.total is not None:
            self._total_seconds = self.timeouts.total
            self._total_at = self.clock() + self._total_seconds
        self.enter("total", None)
        return self

    def enter(self, phase: str, seconds: Optional[float]) -> None:
        """Start the deadline named ``phase``, or none if ``seconds`` is None; ``total`` still applies."""
        at = math.inf if seconds is None else self.clock() + seconds
        if at < self._total_at:
            self.deadline_at, self._phase, self._phase_seconds = at, phase, seconds or 0.0
        else:
            self.deadline_at, self._phase, self._phase_seconds = self._total_at, "total", self._total_seconds

    def begin_read(self) -> None:
        """Called before each read: if a chunk came since the last read, a new ``idle`` deadline starts."""
        if self.got_chunk:
            self.got_chunk = False
            self.enter("idle", self.timeouts.idle)

    def socket_timeout(self) -> Optional[float]:
        """The timeout for the next operation on a socket: the seconds until the current deadline, or None.

        After a chunk it is the same number each time, so that the socket need not be told again.

        Raises:
            socket.timeout: the deadline passed. To a socket, 0 would mean not to wait at all.
        """
        if self.got_chunk:
            self.got_chunk = False
            self.enter("idle", self.timeouts.idle)
            if self._phase == "idle":
                return self._phase_seconds
        if self.deadline_at == math.inf:
            return None
        left = self.deadline_at - self.clock()
        if left <= 0:
            raise socket.timeout("deadline passed")
        return left

    @contextmanager
    def bounded(self, seconds: float, what: str) -> Iterator[None]:
        """Limit a small request: its whole answer, ``what``, must arrive within ``seconds``.

        ``connect`` and ``total`` still apply; ``first_token`` and ``idle`` do not.
        """
        outer, self._answer = self._answer, (what, seconds)
        try:
            yield
        finally:
            self._answer = outer

    def enter_answer(self) -> None:
        """Start the deadline for the answer to a request: for all of a small one, else for its first chunk."""
        if self._answer is None:
            self.enter("first_token", self.timeouts.first_token)
        else:
            self.enter("answer", self._answer[1])

    def remaining(self) -> Optional[float]:
        """Seconds until the current deadline, at least 0; None if there is none."""
        if self.deadline_at == math.inf:
            return None
        return max(0.0, self.deadline_at - self.clock())

    def deadline_error(self) -> DeadlineExceeded:
        """The error that says that the current deadline passed."""
        phase, seconds = self._phase, self._phase_seconds
        step = "No setting changes this limit: check the network and proxies, or try again later."
        if phase == "answer" and self._answer is not None:
            what = f"{self._answer[0]} did not come"
        else:
            what = f"The {phase} deadline passed: {_MISSING[phase]}"
            if self._has_setting:
                step = f"Raise Timeouts.{phase} if that is too short."
        return DeadlineExceeded(f"{what} within {seconds:g} s. {step}", deadline=phase, seconds=seconds)

    def time_left(self) -> Optional[float]:
        """Seconds until the ``total`` deadline, at least 0; None if there is none."""
        return None if self._total_at == math.inf else max(0.0, self._total_at - self.clock())

    def check_total(self) -> None:
        """Like ``check()``, but for ``total`` alone: no other deadline runs while received chunks are left."""
        if self.cancelled:
            raise cancelled_error()
        if self.clock() >= self._total_at:
            self.enter("total", None)
            raise self.deadline_error()

    def check(self) -> None:
        """Raises ``StreamInterrupted`` if cancelled, ``DeadlineExceeded`` if the current deadline has passed."""
        if self.cancelled:
            raise cancelled_error()
        if self.deadline_at != math.inf and self.clock() >= self.deadline_at:
            raise self.deadline_error()
