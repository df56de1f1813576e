"""One attempt for many threads: the first thread runs it, the others wait and share its outcome."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Optional, TypeVar

from gemini_sync.errors import GeminiSyncError, ends_the_call
from gemini_sync.fork import register_after_fork
from gemini_sync.network.cancelling import Call

Result = TypeVar("Result")


class _Attempt(Future[Result]):
    """One attempt. It is running while its leader holds ``leader_lock``.

    The leader holds the lock in a ``with`` block, which releases it even if the leader is interrupted. A ``finally``
    alone is not enough, because a KeyboardInterrupt may come just before its ``try`` or inside the ``finally``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.leader_lock = threading.Lock()  # guards nothing
        self.leader = threading.get_ident()

    @property
    def has_outcome(self) -> bool:
        return super().done() and not self.cancelled()

    def done(self) -> bool:
        return super().done() or not self.leader_lock.locked()


class SingleFlight(Generic[Result]):
    """At most one attempt per key at any time. A thread that asks meanwhile waits for it and shares its outcome."""

    def __init__(self) -> None:
        # Guards _attempts: a thread that finds no running attempt for its key becomes the leader of a new one.
        # Reentrant, because a signal handler may run in the thread that holds it.
        self._lock = threading.RLock()
        self._attempts: dict[str, _Attempt[Result]] = {}
        register_after_fork(self)

    def after_fork(self) -> None:
        # The leaders and the waiters are threads of the parent.
        self._lock = threading.RLock()
        self._attempts = {}

    def run(self, call: Call, work: Callable[[], Result], key: str = "") -> Result:
        """The outcome of the running attempt; if none is running, the outcome of ``work()`` in this thread.

        ``work`` must first check whether it is still needed, because another attempt may have just ended. If a leader
        is interrupted, cancelled or out of time, there is no outcome to share, and one of the others leads.

        Raises:
            GeminiSyncError: what ``work`` raised; a waiter gets a copy.
            StreamInterrupted, DeadlineExceeded: ``call`` was cancelled or its ``total`` deadline passed.
        """
        while True:
            mine: _Attempt[Result] = _Attempt()
            attempt = self._run_or_find(mine, work, key, share_failure=True)
            if attempt is mine:
                return mine.result()
            if attempt.leader == mine.leader:  # this very thread leads it: a log handler, say, makes a call
                return work()
            call.wait_for(attempt)
            if attempt.has_outcome:
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                raise copy.copy(error)

    def run_if_free(self, work: Callable[[], Result], key: str = "") -> Optional[Result]:
        """``work()``, or None at once if an attempt is running. A failure is not shared."""
        mine: _Attempt[Result] = _Attempt()
        return mine.result() if self._run_or_find(mine, work, key, share_failure=False) is mine else None

    def _run_or_find(
        self, mine: _Attempt[Result], work: Callable[[], Result], key: str, *, share_failure: bool
    ) -> _Attempt[Result]:
        """Another thread's running attempt; if there is none, ``mine`` after ``work()`` has run for it."""
        with mine.leader_lock:
            with self._lock:
                attempt = self._attempts.get(key)
                if attempt is None or attempt.done():
                    attempt = self._attempts[key] = mine
            if attempt is mine:
                self._run_as_leader(mine, work, key, share_failure)
        return attempt

    def _run_as_leader(self, mine: _Attempt[Result], work: Callable[[], Result], key: str, share_failure: bool) -> None:
        try:
            mine.set_result(work())
        except GeminiSyncError as exc:
            if share_failure and not ends_the_call(exc):
                mine.set_exception(copy.copy(exc))
            raise
        finally:
            mine.cancel()  # wakes the waiters if there is no outcome
            with self._lock:
                if self._attempts.get(key) is mine:  # not a later one, which a signal handler may have begun
                    self._attempts.pop(key, None)
