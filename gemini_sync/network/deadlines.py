"""One call of a caller: its deadlines, its cancellation, and the socket on which it may be waiting."""

from __future__ import annotations

import _socket
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Optional

from gemini_sync.config import Timeouts
from gemini_sync.errors import DeadlineExceeded, cancelled_error

Clock = Callable[[], float]
#: Seconds that only go forward. Tools that stop the time of a test, such as freezegun, replace time.monotonic.
monotonic: Clock = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime") else time.monotonic
)

_SLICE_SECONDS = 0.25
_MISSING = {
    "connect": "no connection was made",
    "first_token": "no first chunk came",
    "idle": "no further chunk came",
    "total": "the call was not done",
}


class Call:
    """One call of a caller. One thread makes it and hands it to every layer; any thread may cancel it.

    Attributes:
        cancelled: True once ``cancel()`` was called.
        connection_is_new: False if the current request was sent on a connection that had carried another before.
        got_chunk: set to True after each chunk; the next read then starts a new ``idle`` deadline.
        secrets: the credentials sent so far; a message that quotes a server leaves them out.
        socket: of the connection of ours that carries the call, which keeps the deadlines at each receive; else None.
    """

    def __init__(
        self,
        timeouts: Optional[Timeouts] = None,
        *,
        clock: Clock = monotonic,
        sleep: Optional[Callable[[float], Any]] = None,
    ) -> None:
        self.timeouts, self._has_setting = timeouts or Timeouts(), timeouts is not None
        self.clock = clock
        self._sleep = sleep
        self._total_at = self.deadline_at = self._total_seconds = math.inf
        self._phase, self._phase_seconds = "total", math.inf
        self._answer: Optional[tuple[str, float]] = None  # the small answer that is expected, and within how long
        self.cancelled = False
        self.connection_is_new = True
        self.got_chunk = False
        self.secrets: set[str] = set()
        # Guards cancelled and socket: cancel() must not shut down a descriptor that was closed and then reused.
        # Notified at the end of a wait. Reentrant, because a signal handler may cancel the call that it interrupts.
        self._changed = threading.Condition(threading.RLock())
        self.socket: Optional[_socket.socket] = None

    # -- deadlines

    def start(self) -> Call:
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
        future.add_done_callback(self._notify)
        self._wait(lambda: self.cancelled or future.done(), self.remaining())
        if not future.done():
            self.check()
            raise self.deadline_error()  # the clock stands still, and the wait was as long as total all the same

    def _wait(self, is_over: Callable[[], bool], seconds: Optional[float]) -> None:
        """Wait at most ``seconds``, in slices; look at ``is_over`` before each.

        The slices are counted and no clock is read, because a clock of a test may stand still.
        A signal handler may cancel after that look and before the wait has begun. It runs in this thread, inside
        ``Condition.wait``, so its notification reaches no waiter; the next look finds what it did.
        """
        left = math.inf if seconds is None else seconds
        with self._changed:
            while left > 0 and not is_over():
                if not self._changed.wait(min(left, _SLICE_SECONDS)):
                    left -= _SLICE_SECONDS

    def _notify(self, _: Future[Any]) -> None:
        with self._changed:
            self._changed.notify_all()

    # -- cancellation

    def attach(self, sock: _socket.socket) -> None:
        """Let ``cancel()`` shut ``sock`` down; raises ``StreamInterrupted`` if the call is cancelled already."""
        with self._changed:
            self.socket = sock
        self.check()

    def detach(self) -> None:
        """Keep ``cancel()`` away from the socket, before it is closed or used by another call."""
        with self._changed:
            self.socket = None

    def cancel(self) -> None:
        """End the call from any thread: a blocked read, a wait or a sleep ends at once. Idempotent."""
        with self._changed:
            self.cancelled = True
            if self.socket is not None:
                try:
                    _shut_down(self.socket)
                except OSError:
                    self.socket = None  # the other side has closed it, so no read is blocked
            self._changed.notify_all()


def _shut_down(sock: Any) -> None:
    """End both directions of a connection, whichever library made its socket."""
    # Not by its own method: SSLSocket.shutdown drops the TLS state that the blocked read still needs.
    if isinstance(sock, _socket.socket):
        _socket.socket.shutdown(sock, socket.SHUT_RDWR)
        return
    # The sockets of gevent, eventlet and pyOpenSSL only hold one of the system.
    descriptor = sock.fileno()
    if descriptor >= 0:
        raw = _socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)  # the family does not matter here
        try:
            raw.shutdown(socket.SHUT_RDWR)
        finally:
            raw.detach()


#: ``current.get()`` is the call whose request this thread is sending, or None. Only ``sending()`` sets it.
#: No threading.local, because a ContextVar also tells greenlets apart if gevent was imported after this module.
current: ContextVar[Optional[Call]] = ContextVar("current", default=None)


@contextmanager
def sending(call: Call) -> Iterator[None]:
    """Make ``call`` the current one of this thread; urllib3 has no argument that would take it to the connections.

    A log handler may make a call of its own while another is being sent: the outer call is current again afterwards.
    """
    outer = current.get()
    current.set(call)
    try:
        yield
    finally:
        current.set(outer)
