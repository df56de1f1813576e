"""Holds what a retry policy sees of the tries, and what comes out in the end."""

from __future__ import annotations

import contextlib
import gc
import weakref
from typing import Any

import pytest
from tenacity import RetryCallState, Retrying, stop_after_attempt

from gemini_sync.errors import ConfigError, GeminiSyncError, ServerError
from gemini_sync.retrying import error_of, retry_if, run


class Tries:
    """Gives or raises one outcome after the other; remembers what it was called with."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes, self.calls = list(outcomes), []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def policy(seen: Any = None, tries: int = 3) -> Retrying:
    def wait(state: RetryCallState) -> float:
        if seen is not None:
            seen.append((state.attempt_number, error_of(state)))
        return 0.0

    return Retrying(
        retry=retry_if(lambda error: isinstance(error, ServerError)),
        stop=stop_after_attempt(tries),
        wait=wait,
        sleep=lambda seconds: None,
    )


def test_run__gives_what_the_first_good_try_returns() -> None:
    seen: list[Any] = []
    errors = [ServerError("one"), ServerError("two")]
    tries = Tries(*errors, "good")
    assert run(policy(seen), tries, 1, name=2) == "good"
    assert tries.calls == [((1,), {"name": 2})] * 3
    assert seen == [(1, errors[0]), (2, errors[1])]


def test_run__raises_the_error_of_the_last_try() -> None:
    errors = [ServerError("one"), ServerError("two"), ServerError("three")]
    with pytest.raises(ServerError) as caught:
        run(policy(), Tries(*errors))
    assert caught.value is errors[2]


def test_run__raises_at_once_what_another_try_would_not_mend() -> None:
    error = ConfigError("no")
    tries = Tries(error, "good")
    with pytest.raises(ConfigError) as caught:
        run(policy(), tries)
    assert (caught.value, len(tries.calls)) == (error, 1)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_run__lets_foreign_exceptions_through(kind: type[BaseException]) -> None:
    tries = Tries(kind("stop"), "good")
    with pytest.raises(kind):
        run(policy(), tries)
    assert len(tries.calls) == 1


@pytest.mark.parametrize("result", [[], [ServerError("a value, not a failure")], None])
def test_run__any_value_is_a_result(result: Any) -> None:
    assert run(policy(), Tries(result)) is result


def test_run__inside_another_run_of_the_same_policy() -> None:
    shared = policy()
    inner = Tries(ServerError("inner"), "inner good")

    def outer() -> str:
        if inner.outcomes:
            assert run(shared, inner) == "inner good"
            raise ServerError("outer")
        return "outer good"

    assert run(shared, outer) == "outer good"


def test_run__policy_that_fails() -> None:
    def worth_another(error: GeminiSyncError) -> bool:
        raise ConfigError("policy must return a Decision") from error

    with pytest.raises(ConfigError, match="Decision"):
        run(Retrying(retry=retry_if(worth_another)), Tries(ServerError("one")))


def test_run__failure_is_freed_without_gc() -> None:
    class Held:
        pass

    def caller() -> weakref.ref[Held]:
        held = Held()
        with contextlib.suppress(ServerError):
            run(policy(), fail)
        return weakref.ref(held)

    def fail() -> None:
        raise ServerError("one")

    gc.collect()
    gc.disable()
    try:
        assert caller()() is None
    finally:
        gc.enable()
