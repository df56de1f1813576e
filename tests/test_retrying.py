"""The retry policy: which errors it tries again, how long it waits, and which result or error comes out."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable
from typing import Any, Optional

import pytest

from gemini_sync.config import Retry
from gemini_sync.errors import ConfigError, GeminiSyncError, ServerError, StreamInterrupted
from gemini_sync.retrying import RetryPolicy


class Tries:
    """Returns or raises one outcome after the other."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)

    def __call__(self) -> Any:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


class Clock:
    """Takes the place of a call: it has ``left`` seconds left, and remembers each pause."""

    def __init__(self, left: Optional[float] = None) -> None:
        self.left, self.slept = left, []

    def time_left(self) -> Optional[float]:
        return self.left

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def policy(**numbers: Any) -> RetryPolicy:
    return RetryPolicy(Retry(**numbers), lambda error: isinstance(error, ServerError))


def slow(seconds: float) -> ServerError:
    error = ServerError("slow")
    error.retry_after = seconds
    return error


def test_run__returns_the_result_of_the_first_good_try() -> None:
    tries, clock = Tries(ServerError("one"), ServerError("two"), "good"), Clock()
    assert policy().run(tries, clock) == "good"
    assert tries.outcomes == []


def test_run__raises_the_error_of_the_last_try() -> None:
    errors = [ServerError("one"), ServerError("two"), ServerError("three")]
    with pytest.raises(ServerError) as caught:
        policy().run(Tries(*errors), Clock())
    assert caught.value is errors[2]


@pytest.mark.parametrize(
    "error",
    [ConfigError("no"), slow(10.01), StreamInterrupted("gone", cancelled=True), KeyboardInterrupt(), ValueError()],
)
def test_run__errors_that_are_not_tried_again(error: BaseException) -> None:
    tries, always = Tries(error, "good"), RetryPolicy(Retry(), lambda error: not isinstance(error, ConfigError))
    with pytest.raises(type(error)) as caught:
        always.run(tries, Clock())
    assert (caught.value, tries.outcomes) == (error, ["good"])


def test_pause__doubles_up_to_the_cap_with_jitter() -> None:
    clock = Clock()
    policy(max_attempts=6, backoff_base=1, backoff_cap=4).run(Tries(*[ServerError("no")] * 5, "good"), clock)
    for seconds, full in zip(clock.slept, [1, 2, 4, 4, 4]):
        assert full / 2 <= seconds <= full


@pytest.mark.parametrize(("hint", "at_least"), [(7.0, 7.0), (10.0, 10.0), (0.001, 0.25)])
def test_pause__is_never_shorter_than_the_hint(hint: float, at_least: float) -> None:
    clock = Clock()
    policy().run(Tries(slow(hint), "good"), clock)
    assert at_least <= clock.slept[0] <= max(hint * 1.2, 0.5)


@pytest.mark.parametrize(
    ("hint", "spread", "shortest", "longest"),
    [(1.0, 5.0, 1.0, 6.0), (9.0, 5.0, 9.0, 14.0), (9.0, 1.0, 9.0, 10.8), (9.0, 0.0, 9.0, 10.8), (0.1, 0.0, 0.25, 0.5)],
)
def test_pause__is_spread_above_the_hint(hint: float, spread: float, shortest: float, longest: float) -> None:
    ends: list[Callable[[float, float], float]] = [min, max]
    for uniform, expected in zip(ends, (shortest, longest)):
        clock = Clock()
        always = RetryPolicy(Retry(hint_spread=spread), lambda error: True, uniform=uniform)
        always.run(Tries(slow(hint), "good"), clock)
        assert clock.slept == [pytest.approx(expected)]


def test_pause__of_many_threads_is_spread_evenly() -> None:
    numbers, clock = iter(range(20)), Clock()

    def uniform(low: float, high: float) -> float:
        return low if low else high * next(numbers) / 20

    always = RetryPolicy(Retry(hint_spread=10), lambda error: True, uniform=uniform)
    for _ in range(20):
        always.run(Tries(slow(1.0), "good"), clock)
    assert clock.slept == [pytest.approx(1 + number / 2) for number in range(20)]


def test_pause__is_up_to_a_fifth_above_the_hint() -> None:
    clock = Clock()
    policy(max_attempts=100).run(Tries(*[slow(8.0) for _ in range(99)], "good"), clock)
    assert 8.0 <= min(clock.slept) < 8.2 < 9.4 < max(clock.slept) <= 9.6


@pytest.mark.parametrize(("most", "allowed", "tries"), [(2, 5, 2), (5, 2, 2), (1, 3, 1)])
def test_run__an_error_may_end_the_tries_earlier(most: int, allowed: int, tries: int) -> None:
    made = Tries(*[ServerError("no")] * 5)
    limited = RetryPolicy(Retry(max_attempts=allowed), lambda error: True, lambda error: most)
    with pytest.raises(ServerError):
        limited.run(made, Clock())
    assert len(made.outcomes) == 5 - tries


@pytest.mark.parametrize(("left", "limit"), [(5.0, None), (None, 5.0), (9.0, 5.0)])
def test_run__gives_up_if_the_pause_would_outlast_the_time_left(left: Optional[float], limit: Optional[float]) -> None:
    clock, tries = Clock(left), Tries(slow(5.0), "good")
    with pytest.raises(ServerError):
        policy().run(tries, clock, (lambda: limit) if limit else None)  # type: ignore[arg-type, return-value]
    assert clock.slept == []
    assert policy().run(Tries(slow(4.0), "good"), clock, (lambda: limit) if limit else None) == "good"  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("result", [[], [ServerError("a value, not a failure")], None])
def test_run__any_value_is_a_result(result: Any) -> None:
    assert policy().run(Tries(result), Clock()) is result


def test_run__inside_another_run_of_the_same_policy() -> None:
    shared = policy()
    inner = Tries(ServerError("inner"), "inner good")

    def outer() -> str:
        if inner.outcomes:
            assert shared.run(inner, Clock()) == "inner good"
            raise ServerError("outer")
        return "outer good"

    assert shared.run(outer, Clock()) == "outer good"


def test_run__policy_that_fails() -> None:
    def worth_another(error: GeminiSyncError) -> bool:
        raise ConfigError("policy must return a Decision") from error

    with pytest.raises(ConfigError, match="Decision"):
        RetryPolicy(Retry(), worth_another).run(Tries(ServerError("one")), Clock())


def test_run__error_is_freed_without_gc() -> None:
    class Held:
        pass

    def caller() -> weakref.ref[Held]:
        held = Held()
        with contextlib.suppress(ServerError):
            policy().run(fail, Clock())
        return weakref.ref(held)

    def fail() -> None:
        raise ServerError("one")

    gc.collect()
    gc.disable()
    try:
        assert caller()() is None
    finally:
        gc.enable()
