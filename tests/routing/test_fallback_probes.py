"""Tests of probes: after the cool-down, one caller at a time tries the first route again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gemini_sync.routing.fallback import FallbackState, RouteStatus
from gemini_sync.routing.snapshot import Choice
from gemini_sync.services.base import API_KEY, OAUTH
from tests.routing.fallback_kit import new_state, probing

# -- probes


def test_probe__one_caller_after_the_cool_down() -> None:
    state, clock = new_state(10)
    state.fall_back(state.choose("m"), "401")
    clock.now += 9.9
    assert state.choose("m") == Choice(API_KEY, 1)
    clock.now += 0.1
    assert [state.choose("m"), state.choose("m"), state.choose("n")] == [
        Choice(OAUTH, 1, probe=True),
        Choice(API_KEY, 1),
        Choice(API_KEY, 1),
    ]


def test_probe__never_without_sticky_for() -> None:
    state, clock = new_state()
    state.fall_back(state.choose("m"), "401")
    clock.now += 1e12
    assert not state.choose("m").probe


def test_probe__succeeds() -> None:
    state, clock, probe = probing()
    clock.now += 1
    assert state.go_back(probe, "a probe succeeded") == Choice(OAUTH, 2)
    assert state.status() == RouteStatus(OAUTH, False, 1111, "a probe succeeded", (), {})
    assert state.go_back(probe, "twice") is None
    assert state.choose("m") == Choice(OAUTH, 2)


@pytest.mark.parametrize(
    "fail", [lambda state, probe: state.fall_back(probe, "x"), lambda state, probe: state.fall_back(probe, "why", "m")]
)
def test_probe__that_fails_starts_the_cool_down_again(fail: Callable[[FallbackState, Choice], bool]) -> None:
    state, clock, probe = probing()
    before = state.status()
    clock.now += 3
    assert not fail(state, probe)
    state.release(probe)
    assert state.status() == before
    clock.now += 9.9
    assert not state.choose("m").probe
    clock.now += 0.1
    assert state.choose("m").probe


def test_probe__without_an_outcome_lets_another_begin() -> None:
    state, _, probe = probing()
    state.release(probe)
    again = state.choose("m")
    assert again.probe
    assert not state.choose("m").probe


def test_probe__that_is_over_does_not_end_the_next_one() -> None:
    state, clock, probe = probing()
    state.fall_back(probe, "503")
    clock.now += 10  # meanwhile its caller is busy with the other route
    second = state.choose("m")
    assert second.probe
    state.release(probe)
    assert not state.choose("m").probe, "two probes at once"
    assert state.go_back(probe, "late") is None
    assert not state.fall_back(probe, "late")
    assert state.go_back(second, "a probe succeeded") is not None


@pytest.mark.parametrize("end", [FallbackState.reset, lambda state: state.go_back(state.snapshot.probe, "x")])
def test_probe__after_a_newer_decision_changes_nothing(end: Callable[[FallbackState], Any]) -> None:
    state, _, probe = probing()
    end(state)
    now = state.choose("m")
    assert now.route == OAUTH
    assert state.go_back(probe, "late") is None
    assert not state.fall_back(probe, "late")
    state.release(probe)
    assert state.choose("m") == now


def test_probe__that_never_ends_is_forgotten_after_ten_minutes() -> None:
    state, clock, _ = probing()
    clock.now += 599
    assert not state.choose("m").probe
    clock.now += 1
    second = state.choose("m")
    assert second.probe
    assert not state.choose("m").probe
    assert state.go_back(second, "answered") == Choice(OAUTH, 2)


def test_release__of_a_choice_that_is_no_probe() -> None:
    state, _, probe = probing()
    state.release(Choice(OAUTH, probe.generation, probe=False))
    assert not state.choose("m").probe


def test_fork__leaves_the_probe_to_the_parent() -> None:
    state, _, _ = probing()
    before = state._lock
    state.after_fork()
    assert state._lock is not before  # a thread of the parent may hold the old one
    assert state.choose("m").probe
