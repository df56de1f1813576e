"""Knows how many threads share the outcome of one attempt; knows nothing of what is attempted."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Optional, TypeVar

from gemini_sync.errors import GeminiSyncError, ends_the_call
from gemini_sync.fork import register_after_fork
from gemini_sync.network.deadlines import Call

Result = TypeVar("Result")


class _Flight(Future[Result]):
    """One attempt, in the air while its leader holds ``led``: ``with`` gives that back wherever the leader is stopped.

    ``finally`` alone would not do: a KeyboardInterrupt may come just before its ``try``, or in the midst of it.
    """

    def __init__(self) -> None:
        super().__init__()
        # Guards nothing; held by the leader.
        self.led = threading.Lock()
        self.leader = threading.get_ident()

    @property
    def has_outcome(self) -> bool:
        return super().done() and not self.cancelled()

    def done(self) -> bool:
        return super().done() or not self.led.locked()


class SingleFlight(Generic[Result]):
    """At most one attempt per key at any time; whoever asks meanwhile waits for it and shares its outcome."""

    def __init__(self) -> None:
        # Guards _flights: who finds none in the air for its key leads. Reentrant for the sake of signal handlers.
        self._lock = threading.RLock()
        self._flights: dict[str, _Flight[Result]] = {}
        register_after_fork(self)

    def after_fork(self) -> None:
        # Whoever led or waited is in the parent.
        self._lock = threading.RLock()
        self._flights = {}

    def run(self, call: Call, work: Callable[[], Result], key: str = "") -> Result:
        """The outcome of the attempt in flight, else of ``work()``, run by this thread for all who ask meanwhile.

        ``work`` looks first whether it is still needed: another attempt may have ended between the caller's own look
        and now. An attempt whose leader was interrupted, cancelled or out of time is no outcome: the others go on
        with their own.

        Raises:
            GeminiSyncError: what ``work`` raised; a waiter gets a copy.
            StreamInterrupted, DeadlineExceeded: ``call`` was cancelled or its ``total`` deadline passed.
        """
        while True:
            mine: _Flight[Result] = _Flight()
            flight = self._fly(mine, work, key, share_failure=True)
            if flight is mine:
                return mine.result()
            if flight.leader == mine.leader:  # a log handler, say, that calls while its own thread is at it
                return work()
            call.wait_for(flight)
            if flight.has_outcome:
                error = flight.exception()
                if error is None:
                    return flight.result()
                raise copy.copy(error)

    def run_if_free(self, work: Callable[[], Result], key: str = "") -> Optional[Result]:
        """``work()``, or None at once where an attempt is in flight; its failure is nobody else's."""
        mine: _Flight[Result] = _Flight()
        return mine.result() if self._fly(mine, work, key, share_failure=False) is mine else None

    def _fly(
        self, mine: _Flight[Result], work: Callable[[], Result], key: str, *, share_failure: bool
    ) -> _Flight[Result]:
        """Another thread's flight that is in the air, else ``mine``, landed with what ``work()`` gave."""
        with mine.led:
            with self._lock:
                flight = self._flights.get(key)
                if flight is None or flight.done():
                    flight = self._flights[key] = mine
            if flight is mine:
                self._lead(mine, work, key, share_failure)
        return flight

    def _lead(self, mine: _Flight[Result], work: Callable[[], Result], key: str, share_failure: bool) -> None:
        try:
            mine.set_result(work())
        except GeminiSyncError as exc:
            if share_failure and not ends_the_call(exc):
                mine.set_exception(copy.copy(exc))
            raise
        finally:
            mine.cancel()  # where there is no outcome to share
            with self._lock:
                if self._flights.get(key) is mine:
                    self._flights.pop(key, None)  # a signal handler may have flown meanwhile
