"""One call of a caller: how any thread cancels it, and what it may be waiting for meanwhile."""

from __future__ import annotations

import _socket
import math
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Optional

from gemini_sync.config import Timeouts
from gemini_sync.network.deadlines import Clock, Deadlines, monotonic

_SLICE_SECONDS = 0.25


class Call(Deadlines):
    """One call of a caller. One thread makes it and hands it to every layer; any thread may cancel it.

    Attributes:
        cancelled: True once ``cancel()`` was called.
        connection_is_new: False if the current request was sent on a connection that had carried another before.
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
        self.clock, self._sleep = clock, sleep
        self.cancelled, self.connection_is_new = False, True
        self.secrets: set[str] = set()
        # Guards cancelled and socket: cancel() must not shut down a descriptor that was closed and then reused.
        # Notified at the end of a wait. Reentrant, because a signal handler may cancel the call that it interrupts.
        self._changed = threading.Condition(threading.RLock())
        self.socket: Optional[_socket.socket] = None

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
