"""One call of a caller: how any thread cancels it, and what it may be waiting for meanwhile."""

from __future__ import annotations

import _socket
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, Optional, Protocol

from gemini_sync.config import Timeouts
from gemini_sync.network.deadlines import Clock, Deadlines, monotonic
from gemini_sync.waiting import wait, wake


class Awaited(Protocol):
    """What a call can wait for. When ``done()`` changes, ``wake(waiters)`` tells those who wait."""

    waiters: list[Any]

    def done(self) -> bool: ...


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
        # Guards socket: cancel() must not shut down a descriptor that was closed and then reused. Reentrant, because a
        # signal handler may cancel the call that it interrupts. Nothing that may block runs with it.
        self._lock = threading.RLock()
        self._opener = 0  # the process that attached the socket
        self._waiters: list[Any] = []
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
            wait(lambda: self.cancelled, seconds, self._waiters)
        self.check()

    def wait_for(self, thing: Awaited) -> None:
        """Wait until ``thing`` is done, at most until ``total``; raises like ``check()``."""
        self.enter("total", None)
        wait(lambda: self.cancelled or thing.done(), self.remaining(), self._waiters, thing.waiters)
        if not thing.done():
            self.check()
            raise self.deadline_error()  # the clock stands still, and the wait was as long as total all the same

    def attach(self, sock: _socket.socket) -> None:
        """Let ``cancel()`` shut ``sock`` down; raises ``StreamInterrupted`` if the call is cancelled already."""
        with self._lock:
            self.socket, self._opener = sock, os.getpid()
        self.check()

    def detach(self) -> None:
        """Keep ``cancel()`` away from the socket, before it is closed or used by another call."""
        with self._lock:
            self.socket = None

    def disconnect(self) -> None:
        """Shut the socket down and detach it. The server's side ends, even if a forked child has a copy of it."""
        with self._lock:
            self._end_connection()
            self.socket = None

    def cancel(self) -> None:
        """End the call from any thread: a blocked read, a wait or a sleep ends at once. Idempotent."""
        self.cancelled = True
        with self._lock:
            self._end_connection()
        wake(self._waiters)

    def after_fork(self) -> None:
        """Replace the lock in a forked child, because another thread of the parent may hold it."""
        self._lock = threading.RLock()

    def _end_connection(self) -> None:
        # A forked child only has a copy of the socket. If it were shut down there, the parent's stream would end.
        if self.socket is not None and self._opener == os.getpid():
            try:
                _shut_down(self.socket)
            except OSError:
                self.socket = None  # the other side has closed it, so no read is blocked


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
