"""Decisions of the fallback state, while another thread or a signal handler decides as well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from gemini_sync.routing import fallback as fallback_module
from gemini_sync.routing.fallback import Choice, FallbackState
from gemini_sync.services.base import API_KEY


def test_probe__begun_by_another_thread_just_before_the_lock() -> None:
    others: list[Choice] = []

    def clock() -> float:
        if state.fallback_active and not others:
            others.append(Choice("", 0))
            others[0] = state.choose("m")  # as another thread might
        return 100.0

    state = FallbackState(sticky_for=0, clock=clock)
    state.fall_back(state.choose("m"), "401")
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

    state = FallbackState(sticky_for=0, clock=lambda: 100.0, wall=wall)
    choice = state.choose("m")
    if flip == "go_back":
        state.fall_back(choice, "401")
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
