"""A tool for tests of locks: a point in the code that two threads must not reach at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.adapter_kit import in_thread

_SECONDS = 20.0


class OneAtATime:
    """A point in the code that a lock guards; a test makes the code call ``stop()`` there and use ``lock``.

    The first thread that comes to the point starts a second thread, which runs ``work``. The first thread goes on as
    soon as the second one waits for the lock or has done its work. Nothing here depends on time.

    Attributes:
        second: a function that returns the result of ``work``, or raises its error.
        shared: True if the second thread did its work while the first one was at the point.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._settled = threading.Event()  # set once the second thread waits for the lock or is done
        self._inside = False
        self.lock = _TellingLock(self._settled)
        self.second: Callable[[], Any] = self._never
        self.shared = False

    def _never(self) -> Any:
        raise AssertionError("no thread came to the point")

    def stop(self) -> None:
        if not self._settled.is_set() and not self._inside:
            self._inside = True
            self.second = in_thread(self._run)
            assert self._settled.wait(_SECONDS)
            self._inside = False

    def _run(self) -> Any:
        try:
            return self._work()
        finally:
            self.shared = self._inside
            self._settled.set()


class _TellingLock:
    """A reentrant lock that sets ``waited_for`` as soon as a thread must wait for it."""

    def __init__(self, waited_for: threading.Event) -> None:
        self._lock, self._waited_for = threading.RLock(), waited_for

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        self._waited_for.set()
        return self._lock.acquire(blocking, timeout)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    def __getattr__(self, name: str) -> Any:  # threading.Condition uses other methods of a reentrant lock
        return getattr(self._lock, name)
