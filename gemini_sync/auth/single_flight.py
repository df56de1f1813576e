"""One attempt for many threads: the first thread runs it, the others wait and share its outcome."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any, Generic, Optional, TypeVar

from gemini_sync.errors import (
    AuthError,
    ConfigError,
    CredentialsError,
    GeminiSyncError,
    PermissionDeniedError,
    ends_the_call,
)
from gemini_sync.fork import register_after_fork
from gemini_sync.network.cancelling import Call
from gemini_sync.waiting import wake

# Another token, or another login, may be accepted. All other errors say something about the server or the network.
_OF_ONE_TOKEN = (AuthError, PermissionDeniedError, CredentialsError, ConfigError)

Result = TypeVar("Result")


class _Attempt(Generic[Result]):
    """One attempt. It is running while its leader holds ``leader_lock``.

    The leader holds the lock in a ``with`` block, which releases it even if the leader is interrupted. A ``finally``
    alone is not enough, because a KeyboardInterrupt may come just before its ``try`` or inside the ``finally``.
    """

    def __init__(self, token: object = None) -> None:
        self.token = token
        self.leader_lock = threading.Lock()  # guards nothing
        self.leader = threading.get_ident()
        self.results: list[Result] = []  # one, if the attempt succeeded
        self.error: Optional[GeminiSyncError] = None  # if it failed
        self.waiters: list[Any] = []
        self._is_over = False

    def done(self) -> bool:
        return self._is_over or not self.leader_lock.locked()

    def end(self) -> None:
        self._is_over = True
        wake(self.waiters)


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

    def run(self, call: Call, work: Callable[[], Result], key: str = "", token: object = None) -> Result:
        """The outcome of the running attempt; if none is running, the outcome of ``work()`` in this thread.

        ``work`` must first check whether it is still needed, because another attempt may have just ended. If a leader
        is interrupted, cancelled or out of time, there is no outcome to share, and one of the others leads. The same
        holds if the leader was refused and it asked with another ``token``.

        Raises:
            GeminiSyncError: what ``work`` raised; a waiter gets a copy.
            StreamInterrupted, DeadlineExceeded: ``call`` was cancelled or its ``total`` deadline passed.
        """
        while True:
            mine: _Attempt[Result] = _Attempt(token)
            attempt = self._run_or_find(mine, work, key, share_failure=True)
            if attempt is mine:
                return mine.results[0]
            if attempt.leader == mine.leader:  # this very thread leads it: a log handler, say, makes a call
                return work()
            call.wait_for(attempt)
            if attempt.results:
                return attempt.results[0]
            if attempt.error is not None and (attempt.token == token or not isinstance(attempt.error, _OF_ONE_TOKEN)):
                raise copy.copy(attempt.error)

    def run_if_free(self, work: Callable[[], Result], key: str = "") -> Optional[Result]:
        """``work()``, or None at once if an attempt is running. A failure is not shared."""
        mine: _Attempt[Result] = _Attempt()
        return mine.results[0] if self._run_or_find(mine, work, key, share_failure=False) is mine else None

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
            mine.results.append(work())
        except GeminiSyncError as exc:
            if share_failure and not ends_the_call(exc):
                mine.error = copy.copy(exc)
            raise
        finally:
            mine.end()
            with self._lock:
                if self._attempts.get(key) is mine:  # not a later one, which a signal handler may have begun
                    self._attempts.pop(key, None)
