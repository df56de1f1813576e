"""Knows how tenacity tries a function again and lets go of its failure; knows neither the function nor the policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, Union

from tenacity import RetryCallState, Retrying, retry_if_result

from gemini_sync.errors import GeminiSyncError

_T = TypeVar("_T")


class _Failed(list[GeminiSyncError]):
    """What a failed try returns: its error.

    Tenacity's frames keep the outcome of a try, and an error's traceback keeps those frames and the caller's: raised
    there, all would live until garbage is collected. So it is taken out to be raised in the end.
    """


def retry_if(worth_another: Callable[[GeminiSyncError], bool]) -> retry_if_result:
    """The ``retry`` of a policy that ``run`` follows."""
    return retry_if_result(lambda outcome: isinstance(outcome, _Failed) and worth_another(outcome[0]))


def error_of(state: RetryCallState) -> GeminiSyncError:
    """The error of the try after which a policy is asked."""
    error: GeminiSyncError = _outcome(state)[0]
    return error


def run(policy: Retrying, attempt: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """What ``attempt`` returns in the end; raises the ``GeminiSyncError`` of its last try, all else at once."""

    def once(*args: Any, **kwargs: Any) -> Union[_T, _Failed]:
        try:
            return attempt(*args, **kwargs)
        except GeminiSyncError as exc:
            return _Failed([exc])

    # A copy: the object keeps the state of a try per thread, and deciding may lead to another call in it.
    outcome = policy.copy(retry_error_callback=_outcome)(once, *args, **kwargs)
    if isinstance(outcome, _Failed):
        raise outcome.pop()
    return outcome


def _outcome(state: RetryCallState) -> Any:
    assert state.outcome is not None  # tenacity asks after a try
    return state.outcome.result()
