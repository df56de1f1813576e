"""How threads wait for each other, with plain locks alone.

``threading.Condition`` is Python code, and so are Event, Future and Queue, which are made of it. If Ctrl-C comes inside
that code, a lock stays taken, and the next thread that needs it hangs. The same happens if the garbage collector runs
there and closes a connection. No signal handler and no collector runs inside a plain lock, a list or a ``with`` of one.
"""

from __future__ import annotations

import math
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
