"""Knows one call of a caller: its deadlines, its cancellation, and the socket it may be blocked on; knows no HTTP."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Optional

from gemini_sync.config import Timeouts
from gemini_sync.errors import DeadlineExceeded, GeminiSyncError, cancelled_error

Clock = Callable[[], float]

_SLICE_SECONDS = 0.25
_MISSING = {
    "connect": "no connection was made",
    "first_token": "no first chunk came",
    "idle": "no further chunk came",
    "total": "the call was not done",
}


class Call:
    """The context of one call, handed down all floors; used by one thread, cancelled from any.

    Attributes:
        progressed: set by whoever made a chunk out of the bytes; the next read then starts a new ``idle`` deadline.
        secrets: the credentials sent so far, for whoever quotes a server.
        fresh: False while the request in flight went out on a connection that had been used before.
    """

    def __init__(
        self,
        timeouts: Optional[Timeouts] = None,
        *,
        clock: Clock = time.monotonic,
        sleep: Optional[Callable[[float], Any]] = None,
    ) -> None:
        self.timeouts = timeouts or Timeouts()
        self.clock = clock
        self._sleep = sleep
        self._total_at = self.deadline_at = self._total_seconds = math.inf
        self._phase, self._phase_seconds = "total", math.inf
        self._answer: Optional[tuple[str, float]] = None  # what is waited for, and for how many seconds
        self.progressed = False
        self.secrets: set[str] = set()
        self.fresh = True
        self.cancelled = False
        # Guards cancelled and _socket: cancel() must never shut down a descriptor that was closed and given out again.
        # Told of what ends a wait. Reentrant: a signal handler may cancel the very call it interrupts.
        self._changed = threading.Condition(threading.RLock())
        self._socket: Optional[socket.socket] = None

    # -- deadlines

    def start(self) -> Call:
        """Start the ``total`` deadline: waiting for the first ``next()`` is not part of the call."""
        if self.timeouts.total is not None:
            self._total_seconds = self.timeouts.total  # timeouts may be others by the time it passes
            self._total_at = self.clock() + self._total_seconds
        self.enter("total", None)
        return self

    def enter(self, phase: str, seconds: Optional[float]) -> None:
        """Start the deadline named ``phase`` (in seconds, None for none); ``total`` still holds beneath it."""
        at = math.inf if seconds is None else self.clock() + seconds
        if at < self._total_at:
            self.deadline_at, self._phase, self._phase_seconds = at, phase, seconds or 0.0
        else:
            self.deadline_at, self._phase, self._phase_seconds = self._total_at, "total", self._total_seconds

    def begin_read(self) -> None:
        """Before each read: where the one before made a chunk, a new ``idle`` deadline starts."""
        if self.progressed:
            self.progressed = False
            self.enter("idle", self.timeouts.idle)

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
        """The request is on its way: from here on its answer, or the first chunk of it, is waited for."""
        if self._answer is None:
            self.enter("first_token", self.timeouts.first_token)
        else:
            self.enter("answer", self._answer[1])

    def remaining(self) -> Optional[float]:
        """Seconds until the deadline in force, not below 0; None where there is none."""
        if self.deadline_at == math.inf:
            return None
        return max(0.0, self.deadline_at - self.clock())

    def deadline_error(self) -> DeadlineExceeded:
        """The error of the deadline in force."""
        phase, seconds = self._phase, self._phase_seconds
        if phase == "answer" and self._answer is not None:
            message = (
                f"{self._answer[0]} did not come within {seconds:g} s. No setting changes this limit: "
                "check the network and proxies, or try again later."
            )
        else:
            message = (
                f"The {phase} deadline passed: {_MISSING[phase]} within {seconds:g} s. "
                f"Raise Timeouts.{phase} if that is too short."
            )
        return DeadlineExceeded(message, deadline=phase, seconds=seconds)

    def time_left(self) -> Optional[float]:
        """Seconds until the ``total`` deadline, not below 0; None if there is none."""
        return None if self._total_at == math.inf else max(0.0, self._total_at - self.clock())

    def check_total(self) -> None:
        """As ``check()``, of ``total`` alone: while chunks are at hand no other deadline runs."""
        if self.cancelled:
            raise cancelled_error()
        if self.clock() >= self._total_at:
            self.enter("total", None)
            raise self.deadline_error()

    def check(self) -> None:
        """Raises ``StreamInterrupted`` when cancelled, ``DeadlineExceeded`` when the deadline in force has passed."""
        if self.cancelled:
            raise cancelled_error()
        if self.deadline_at != math.inf and self.clock() >= self.deadline_at:
            raise self.deadline_error()

    # -- waiting that cancel() ends

    def sleep(self, seconds: float) -> None:
        """Wait, at most until ``total``; raises like ``check()``."""
        self.enter("total", None)
        self.check()
        remaining = self.remaining()
        seconds = seconds if remaining is None else min(seconds, remaining)
        if self._sleep is not None:
            self._sleep(seconds)
        else:
            self._wait(lambda: self.cancelled, seconds)
        self.check()

    def wait_for(self, future: Future[Any]) -> None:
        """Wait until ``future`` is done, at most until ``total``; raises like ``check()``."""
        self.enter("total", None)
        future.add_done_callback(self._tell)
        while not future.done():
            self._wait(lambda: self.cancelled or future.done(), self.remaining())
            if not future.done():
                self.check()

    def _wait(self, is_over: Callable[[], bool], seconds: Optional[float]) -> None:
        """Wait at most ``seconds``, looking again after each slice.

        A signal handler that cancels between the look at ``is_over`` and the waiting proper tells nobody: it runs in
        this thread, inside ``Condition.wait``, which does not count among those waiting yet.
        """
        until = math.inf if seconds is None else time.monotonic() + seconds
        with self._changed:
            while not is_over() and (left := until - time.monotonic()) > 0:
                self._changed.wait(min(left, _SLICE_SECONDS))

    def _tell(self, _: Future[Any]) -> None:
        with self._changed:
            self._changed.notify_all()

    # -- cancellation

    def attach(self, sock: socket.socket) -> None:
        """Let ``cancel()`` reach ``sock``; raises ``StreamInterrupted`` when it came first."""
        with self._changed:
            self._socket = sock
        self.check()

    def detach(self) -> None:
        """Take the socket out of the reach of ``cancel()``, before it is closed or lent to another call."""
        with self._changed:
            self._socket = None

    @property
    def attached(self) -> bool:
        """True while the socket in use keeps the deadlines by itself."""
        return self._socket is not None

    def cancel(self) -> None:
        """End the call from any thread: a blocked read, a wait or a sleep wakes at once. Idempotent."""
        with self._changed:
            self.cancelled = True
            if self._socket is not None:
                try:
                    # The plain method, also for TLS: ssl's own forgets its state under the reader's feet.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                except OSError:
                    self._socket = None  # already shut by the other side: nothing is blocked on it
            self._changed.notify_all()

    @contextmanager
    def cancelled_first(self) -> Iterator[None]:
        """A cancelled call ends as cancelled, whatever else befell it meanwhile."""
        try:
            yield
        except GeminiSyncError as exc:
            if self.cancelled and not exc.cancelled:
                raise cancelled_error() from exc
            raise
