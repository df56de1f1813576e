"""The fallback state, if many threads report, and if a signal handler decides in the middle of a decision."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from gemini_sync.routing import fallback as fallback_module
from gemini_sync.routing.fallback import FallbackState
from gemini_sync.routing.snapshot import Choice
from gemini_sync.services.base import API_KEY, OAUTH
from tests.routing.fallback_kit import in_threads, new_state, probing

# -- many threads


def test_threads__one_flip_of_fifty_failures() -> None:
    state, _ = new_state()
    choices = in_threads(50, lambda _: state.choose("m"))
    assert set(choices) == {Choice(OAUTH, 0)}
    flips = in_threads(50, lambda number: state.fall_back(choices[number], "401"))
    assert sorted(flips) == [False] * 49 + [True]
    assert state.choose("m") == Choice(API_KEY, 1)


def test_threads__one_flip_of_a_model() -> None:
    state, _ = new_state()
    choice = state.choose("m")
    assert sum(in_threads(30, lambda number: state.fall_back(choice, "why", f"m{number % 3}"))) == 3


def test_threads__one_probe() -> None:
    for _ in range(20):
        state, _, probe = probing()
        state.release(probe)
        choices = in_threads(8, lambda _, state=state: state.choose("m"))  # type: ignore[misc]
        assert sum(choice.probe for choice in choices) == 1


def test_status__needs_no_lock() -> None:
    state, _ = new_state()
    with state._lock:
        assert in_threads(1, lambda _: (state.record(OAUTH, "401"), len(state.status().failures))[1]) == [1]


def test_update__in_the_thread_that_holds_the_lock() -> None:
    def changed() -> Choice:
        with state._lock:
            assert state.fall_back(state.choose("m"), "401")
            state.reset()
            return state.choose("m")

    state, _ = new_state()
    assert in_threads(1, lambda _: changed()) == [Choice(OAUTH, 2)]


def test_choose__needs_no_lock() -> None:
    at_home, (fallen, _) = new_state()[0], new_state()
    at_home.fall_back(at_home.choose("m"), "404", "m")
    fallen.fall_back(fallen.choose("m"), "401")
    with at_home._lock, fallen._lock:  # a thread that waited for a lock would not come back
        assert in_threads(
            1, lambda _: [at_home.choose("m").route, at_home.choose("n").route, fallen.choose("m").route]
        ) == [[API_KEY, OAUTH, API_KEY]]


# -- a decision in the middle of another


def test_probe__begun_by_another_thread_just_before_the_lock() -> None:
    others: list[Choice] = []

    def clock() -> float:
        if state.fallback_active and not others:
            others.append(Choice("", 0))
            others[0] = state.choose("m")  # as another thread might
        return 100.0

    state = FallbackState(clock=clock)
    state.fall_back(state.choose("m"), "401", cool_down=0)
    assert state.choose("m") == Choice(API_KEY, 1)
    assert others[0].probe


@pytest.mark.parametrize("flip", ["fall_back", "go_back"])
def test_flip__with_a_reset_in_the_middle_does_not_happen(flip: str) -> None:
    """A signal handler calls reset() in the middle of a flip, so the flip does not happen and is not reported."""
    resets: list[Callable[[], object]] = []

    def wall() -> float:
        if resets:
            resets.pop()()
        return 1000.0

    state = FallbackState(clock=lambda: 100.0, wall=wall)
    choice = state.choose("m")
    if flip == "go_back":
        state.fall_back(choice, "401", cool_down=0)
        choice = state.choose("m")
    resets.append(state.reset)
    assert not getattr(state, flip)(choice, "too late")
    assert (resets, state.fallback_active, state.status().reason) == ([], False, "reset()")


def test_reset__in_a_signal_handler_stands_at_any_line_of_a_flip() -> None:
    for number in range(1, 100):
        state = FallbackState()
        choice, left, chosen = state.choose("m"), [number], []

        def trace(frame: Any, event: str, argument: Any) -> Any:
            return line if frame.f_code.co_filename == fallback_module.__file__ else None

        def line(frame: Any, event: str, argument: Any) -> Any:
            left[0] -= event == "line"  # noqa: B023
            if left[0] == 0 and not chosen:  # noqa: B023
                sys.settrace(None)
                state.reset()  # noqa: B023
                chosen.append(state.choose("m"))  # noqa: B023
            return line

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            flips = state.fall_back(choice, "403")
        finally:
            sys.settrace(before)
        if not chosen:
            break
        assert (state.fallback_active, state.status().reason) == (False, "reset()")
        assert state.choose("m") == chosen[0]
        assert state.fall_back(chosen[0], "403 again")
    assert number > 5
    assert flips
