"""Knows how many threads share the outcome of one attempt; knows nothing of what is attempted."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Generic, Optional, TypeVar

from gemini_sync.call import Call
from gemini_sync.errors import DeadlineExceeded, GeminiSyncError, StreamInterrupted
from gemini_sync.fork import renew_after_fork

Result = TypeVar("Result")


def ends_the_call(error: BaseException) -> bool:
    """True for what concerns one caller alone: it cancelled, or its ``total`` deadline passed."""
    return isinstance(error, StreamInterrupted) or (isinstance(error, DeadlineExceeded) and error.deadline == "total")


class SingleFlight(Generic[Result]):
    """At most one attempt per key at any time; whoever asks meanwhile waits for it and shares its outcome."""

    def __init__(self) -> None:
        # Guards _flights: who finds none for its key leads.
        self._lock = threading.Lock()
        self._flights: dict[str, Future[Result]] = {}
        renew_after_fork(self)

    def renew_after_fork(self) -> None:
        # Whoever led or waited is in the parent.
        self._lock = threading.Lock()
        self._flights = {}

    def run(self, call: Call, work: Callable[[], Result], key: str = "") -> Result:
        """The outcome of the attempt in flight, else of ``work()``, run by this thread for all who ask meanwhile.

        ``work`` looks first whether it is still needed: another attempt may have ended between the caller's own look
        and now. An attempt whose leader was interrupted, cancelled or out of time is no outcome: the others go on
        with their own.

        Raises:
            GeminiSyncError: what ``work`` raised; a waiter gets a copy, raised from the leader's.
            StreamInterrupted, DeadlineExceeded: ``call`` was cancelled or its ``total`` deadline passed.
        """
        while True:
            flight, leads = self._board(key)
            if leads:
                return self._lead(flight, work, key, share_failure=True)
            call.wait_for(flight)
            if not flight.cancelled():
                error = flight.exception()
                if error is None:
                    return flight.result()
                raise copy.copy(error) from error

    def run_if_free(self, work: Callable[[], Result], key: str = "") -> Optional[Result]:
        """``work()``, or None at once where an attempt is in flight; its failure is nobody else's."""
        flight, leads = self._board(key)
        return self._lead(flight, work, key, share_failure=False) if leads else None

    def _board(self, key: str) -> tuple[Future[Result], bool]:
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = Future()
            return flight, True

    def _lead(self, flight: Future[Result], work: Callable[[], Result], key: str, *, share_failure: bool) -> Result:
        land: Callable[[], object] = flight.cancel
        try:
            result = work()
            land = partial(flight.set_result, result)
            return result
        except GeminiSyncError as exc:
            if share_failure and not ends_the_call(exc):
                land = partial(flight.set_exception, exc)
            raise
        finally:
            with self._lock:
                self._flights.pop(key, None)
            land()
