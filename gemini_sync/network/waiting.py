"""How threads wait for each other, with plain locks alone, and the queue of idle connections that needs none.

``threading.Condition`` is Python code, and so are Event, Future and Queue, which are made of it. If Ctrl-C comes inside
that code, a lock stays taken, and the next thread that needs it hangs. The same happens if the garbage collector runs
there and closes a connection. No signal handler and no collector runs inside a plain lock, a list or a ``with`` of one.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from typing import Any, Optional

_SLICE_SECONDS = 0.25


def wait(is_over: Callable[[], bool], seconds: Optional[float], *waiters: list[Any]) -> None:
    """Wait until ``is_over()``, at most ``seconds``; ``wake()`` with one of ``waiters`` ends the wait at once.

    Without ``wake()``, ``is_over`` is asked after each slice. An interrupt may have ended a thread before it could wake
    this one. The slices are counted and no clock is read, because a clock of a test may stand still.
    """
    left = math.inf if seconds is None else seconds
    lock = threading.Lock()  # by its full name, for gevent and eventlet may patch it after the import
    lock.acquire()
    for each in waiters:
        each.append(lock)
    try:
        while left > 0 and not is_over():
            if not lock.acquire(timeout=min(left, _SLICE_SECONDS)):
                left -= _SLICE_SECONDS
    finally:
        for each in waiters:
            if lock in each:
                each.remove(lock)


def wake(waiters: list[Any]) -> None:
    """Let each thread that waits with ``waiters`` ask at once whether its wait is over."""
    for lock in waiters.copy():
        try:
            lock.release()
        except RuntimeError:  # it is awake already
            continue


class IdleConnections(queue.LifoQueue[Any]):
    """What urllib3 and vcrpy need of the queue of a pool. Lists are atomic, so there is no lock.

    It is a ``queue.Queue`` by its class alone, because vcrpy asks for that.
    """

    def __init__(self, maxsize: int = 0) -> None:  # not that of the queue, which makes the locks
        self.maxsize = maxsize
        self._connections: list[Any] = []
        self._waiters: list[Any] = []

    def qsize(self) -> int:
        return len(self._connections)

    def empty(self) -> bool:
        return not self._connections

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self._connections)

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        """The connection that was put last. Raises ``queue.Empty`` if there is none, and none comes in time."""
        try:
            return self._connections.pop()
        except IndexError:
            if not block:
                raise queue.Empty from None
        taken: list[Any] = []

        def take() -> bool:
            try:
                taken.append(self._connections.pop())
            except IndexError:  # another thread was faster
                return False
            return True

        wait(take, timeout, self._waiters)
        if not taken and not take():
            raise queue.Empty
        return taken[0]

    def put(self, item: Any, block: bool = False, timeout: Optional[float] = None) -> None:
        """Keep ``item``. Raises ``queue.Full`` if as many are here as may be; it never waits."""
        if self.full():
            raise queue.Full
        self._connections.append(item)
        wake(self._waiters)
