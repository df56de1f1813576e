"""Tries a function again after an error that may pass; the only module that uses tenacity."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from typing import Any, Optional, Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_result

from gemini_sync.config import Retry
from gemini_sync.errors import GeminiSyncError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Waiter(Protocol):
    """The call that the tries belong to."""

    def time_left(self) -> Optional[float]:
        """Seconds until the ``total`` deadline of the call; None for no deadline."""

    def sleep(self, seconds: float) -> None:
        """Wait; raises an error if the call ends before that."""


class _Failed(list[GeminiSyncError]):
    """What a failed try returns: its error.

    tenacity stores each outcome. A stored exception would keep its traceback, and so the caller's frames, alive until
    the next garbage collection. So a try returns its error in this list, and ``run`` takes it out and raises it.
    """


class RetryPolicy:
    """How often a function is tried, and how long the pause between two tries is.

    The pause is ``backoff_base`` seconds, doubled from try to try up to ``backoff_cap``, times a random number between
    0.5 and 1. If the server asks for a longer pause, the pause is as long as the server asks for, and longer by a
    random part of a fifth of it or of ``hint_spread``, so that clients which were refused together do not come back
    together (GC adds a fifth).

    Args:
        retry: the numbers.
        worth_another: True for an error that may pass.
        most_tries: after how many tries an error ends them, if that is fewer than ``retry`` allows.
        uniform: gives a random number between two numbers, so that tests need no chance.
    """

    def __init__(
        self,
        retry: Retry,
        worth_another: Callable[[GeminiSyncError], bool],
        most_tries: Callable[[GeminiSyncError], float] = lambda error: math.inf,
        uniform: Optional[Callable[[float, float], float]] = None,
    ) -> None:
        self._retry, self._worth_another, self._most_tries = retry, worth_another, most_tries
        self._uniform = uniform or random.uniform

    def run(self, attempt: Callable[[], _T], waiter: Waiter, time_left: Optional[Callable[[], float]] = None) -> _T:
        """Call ``attempt()`` until it succeeds, and return its result.

        Args:
            time_left: seconds in which another try may begin; the deadline of ``waiter`` applies as well.

        Raises:
            GeminiSyncError: the error of the last try; any other exception comes out at once.
        """

        def once() -> Any:
            try:
                return attempt()
            except GeminiSyncError as exc:
                return _Failed([exc])

        def is_over(state: RetryCallState) -> bool:
            left = [waiter.time_left(), time_left() if time_left else None]
            too_late = any(seconds is not None and state.upcoming_sleep >= seconds for seconds in left)
            most = min(self._retry.max_attempts, self._most_tries(_outcome(state)[0]))
            return state.attempt_number >= most or too_late

        outcome = once()
        if isinstance(outcome, _Failed):
            first = [outcome]  # for tenacity, which is set up for calls that fail alone
            outcome = Retrying(
                retry=retry_if_result(lambda now: isinstance(now, _Failed) and self._is_worth_another(now[0])),
                stop=is_over,
                wait=self._pause,
                before_sleep=_log_pause,
                sleep=waiter.sleep,
                retry_error_callback=_outcome,
            )(lambda: first.pop() if first else once())
        if isinstance(outcome, _Failed):
            raise outcome.pop()
        return outcome  # type: ignore[no-any-return]

    def _is_worth_another(self, error: GeminiSyncError) -> bool:
        too_long = error.retry_after is not None and error.retry_after > self._retry.wait_limit
        return not error.cancelled and not too_long and self._worth_another(error)

    def _pause(self, state: RetryCallState) -> float:
        doublings = min(state.attempt_number - 1, 63)  # 2.0**1024 would overflow
        backoff = min(self._retry.backoff_cap, self._retry.backoff_base * 2.0**doublings)
        hint = _outcome(state)[0].retry_after or 0.0
        spread = max(hint / 5, self._retry.hint_spread) if hint else 0.0
        return max(backoff * self._uniform(0.5, 1.0), hint + self._uniform(0.0, spread))


def _outcome(state: RetryCallState) -> Any:
    assert state.outcome is not None  # tenacity calls this after a try
    return state.outcome.result()


def _log_pause(state: RetryCallState) -> None:
    error = _outcome(state)[0]
    _log.info("try %d failed, the next in %.2f s: %s", state.attempt_number, state.upcoming_sleep, error)
