"""The fallback state: its rules one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Optional

import pytest

from gemini_sync.errors import GeminiSyncError
from gemini_sync.routing.fallback import FallbackState, RouteStatus
from gemini_sync.routing.snapshot import Choice, Failure, PendingFlip
from gemini_sync.services.base import API_KEY, OAUTH
from tests.routing.fallback_kit import new_state, probing

# -- flips


def test_choose__begins_with_the_first_route() -> None:
    state, _ = new_state()
    assert state.choose("m") == Choice(OAUTH, 0)
    assert state.status() == RouteStatus(OAUTH, False, 1100, None, (), {})
    assert not state.fallback_active


def test_fall_back__flips_once_and_stays() -> None:
    state, clock = new_state()
    first, second = state.choose("m"), state.choose("m")
    clock.now += 5
    assert state.fall_back(first, "401")
    assert not state.fall_back(second, "401 again")
    assert not state.fall_back(first, "x")
    clock.now += 1e9
    assert state.choose("m") == Choice(API_KEY, 1)
    assert state.status() == RouteStatus(API_KEY, True, 1105, "401", (), {})
    assert state.fallback_active
    assert not state.fall_back(state.choose("m"), "there is no third route")


def test_fall_back__of_an_older_choice_changes_nothing() -> None:
    state, _ = new_state()
    slow = state.choose("m")
    state.fall_back(state.choose("m"), "401")
    state.reset()
    assert not state.fall_back(slow, "slow 401")
    assert not state.fall_back(slow, "why", "m")
    assert state.choose("m") == Choice(OAUTH, 2)


def test_reset__forgets_all_and_is_the_reason() -> None:
    state, clock = new_state()
    state.record(OAUTH, "401")
    state.fall_back(state.choose("m"), "404", "m")
    state.fall_back(state.choose("x"), "401")
    clock.now += 1
    state.reset()
    assert state.status() == RouteStatus(OAUTH, False, 1101, "reset()", (), {})
    assert state.choose("m").route == OAUTH


def test_choose__with_the_api_key_alone() -> None:
    state, _ = new_state(home=API_KEY)
    assert state.choose("m").route == API_KEY
    assert not state.fallback_active


# -- single models


def test_fall_back__for_one_model() -> None:
    state, _ = new_state()
    choice = state.choose("m")
    assert [state.fall_back(choice, "why", model) for model in ("m", "m", "n")] == [True, False, True]
    assert [state.choose(model).route for model in ("m", "n", "other")] == [API_KEY, API_KEY, OAUTH]
    assert (state.fallback_active, state.status().models) == (False, {"m": API_KEY, "n": API_KEY})
    assert not state.fall_back(state.choose("m"), "404", "x")  # that choice had another route


def test_fall_back__for_one_model_outlives_a_fallback_of_all() -> None:
    state, clock, probe = probing()
    state.release(probe)
    state.reset()
    state.fall_back(state.choose("m"), "404", "m")
    state.fall_back(state.choose("x"), "401")
    clock.now += 10
    assert not state.choose("m").probe  # OAuth does not serve it, so this call cannot probe
    probe = state.choose("x")
    assert probe.probe
    assert state.go_back(probe, "a probe succeeded")
    assert [state.choose(model).route for model in ("m", "x")] == [API_KEY, OAUTH]


def test_serves_from_home__by_what_stands() -> None:
    state, _ = new_state()
    state.fall_back_if_answered(state.choose("m"), pending())
    assert state.serves_from_home("m")
    state.reset()
    state.fall_back(state.choose("m"), "404", "m")
    assert [state.serves_from_home(model) for model in ("m", "n")] == [False, True]
    state.fall_back(state.choose("n"), "401")
    assert not state.serves_from_home("n")


# -- flips that wait for an answer


def pending(model: Optional[str] = None) -> PendingFlip:
    return PendingFlip("403", GeminiSyncError("403"), model)


def test_pending__next_calls_begin_with_the_other_route_and_one_of_them_flips() -> None:
    state, clock = new_state()
    flip = pending()
    state.fall_back_if_answered(state.choose("m"), flip)
    clock.now += 5
    first, second = state.choose("m"), state.choose("other")
    assert first == second == Choice(API_KEY, 0, flip=flip)
    assert state.status() == RouteStatus(OAUTH, False, 1100, None, (), {})
    assert [state.fall_back(choice, "403") for choice in (first, second)] == [True, False]
    assert state.status() == RouteStatus(API_KEY, True, 1105, "403", (), {})
    assert state.choose("m") == Choice(API_KEY, 1)


def test_pending__for_one_model() -> None:
    state, _ = new_state()
    flip = pending("m")
    state.fall_back_if_answered(state.choose("m"), flip)
    assert state.choose("n") == Choice(OAUTH, 0)
    assert state.fall_back(state.choose("m"), "404", "m")
    assert (state.choose("m"), state.status().models) == (Choice(API_KEY, 0), {"m": API_KEY})
    state.fall_back_if_answered(state.choose("n"), pending("m"))
    assert state.choose("m") == Choice(API_KEY, 0)


def test_pending__dropped_if_the_other_route_fails_as_well() -> None:
    state, _ = new_state()
    flip = pending()
    state.fall_back_if_answered(state.choose("m"), flip)
    late = state.choose("m")
    state.drop(pending())
    assert state.choose("m") == late
    state.drop(flip)
    assert state.choose("m") == Choice(OAUTH, 0)
    assert not state.fall_back(late, "403")
    again = pending()
    state.fall_back_if_answered(state.choose("m"), again)
    state.drop(flip)
    assert not state.fall_back(late, "403")
    assert state.choose("m").flip is again


def test_pending__the_first_failure_counts() -> None:
    state, _ = new_state()
    choice, flip = state.choose("m"), pending()
    state.fall_back_if_answered(choice, flip)
    state.fall_back_if_answered(choice, pending())
    assert state.choose("m").flip is flip


@pytest.mark.parametrize("decision", [FallbackState.reset, lambda state: state.fall_back(state.choose("m"), "401")])
def test_pending__after_a_newer_decision_is_old_news(decision: Callable[[FallbackState], Any]) -> None:
    state, _ = new_state()
    before = state.choose("m")
    state.fall_back_if_answered(before, pending())
    waiting = state.choose("m")
    decision(state)
    now = state.choose("m")
    assert now.flip is None
    state.fall_back_if_answered(before, pending())
    assert not state.fall_back(waiting, "403")
    state.drop(waiting.flip or pending())
    assert state.choose("m") == now


# -- the account


def test_block_account__keeps_the_first_error_until_a_forced_reset() -> None:
    state, _ = new_state()
    first, second = GeminiSyncError("first"), GeminiSyncError("second")
    state.block_account(state.choose("m"), first)
    state.block_account(state.choose("m"), second)
    state.fall_back(state.choose("m"), "403")
    state.reset()
    kept = state.snapshot.account_error
    assert (str(kept), kept is first) == ("first", False)
    state.reset(force=True)
    assert state.snapshot.account_error is None
    state.block_account(state.choose("m"), second)
    assert str(state.snapshot.account_error) == "second"


def test_block_account__by_a_call_from_before_a_forced_reset_changes_nothing() -> None:
    state, _ = new_state()
    old = state.choose("m")
    state.reset(force=True)
    state.reset()
    state.block_account(old, GeminiSyncError("late"))
    assert state.snapshot.account_error is None
    between = state.choose("m")
    state.reset()
    state.block_account(between, GeminiSyncError("in time"))
    assert str(state.snapshot.account_error) == "in time"


# -- what people see


def test_failures__the_last_twenty_oldest_first() -> None:
    state, clock = new_state()
    for number in range(50):
        clock.now = number
        state.record(OAUTH, f"error {number}")
    failures = state.status().failures
    assert failures == tuple(Failure(OAUTH, 1000 + number, f"error {number}") for number in range(30, 50))


def test_status__does_not_change_later() -> None:
    state, _ = new_state()
    state.fall_back(state.choose("m"), "404", "m")
    before = state.status()
    state.record(OAUTH, "401")
    state.fall_back(state.choose("x"), "401")
    assert before == RouteStatus(OAUTH, False, 1100, None, (), {"m": API_KEY})
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.preferred = API_KEY  # type: ignore[misc]
    before.models["n"] = API_KEY  # type: ignore[index]
    assert state.status().models == {"m": API_KEY}


def test_status__has_the_model_names_of_callers() -> None:
    state, _ = new_state()
    for name in ("models/gemini-9", "tunedModels/mine"):
        state.fall_back(state.choose(name), "404", name)
    assert state.status().models == {"gemini-9": API_KEY, "tunedModels/mine": API_KEY}
    assert state.choose("models/gemini-9").route == API_KEY
