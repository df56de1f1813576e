"""Onboarding of a new user: the tier, the polls of the operation, its failures and its end."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from gemini_sync.config import Timeouts
from gemini_sync.errors import (
    ConfigError,
    CredentialsError,
    DeadlineExceeded,
    PermissionDeniedError,
    ProtocolError,
    StreamInterrupted,
)
from gemini_sync.network.cancelling import Call
from gemini_sync.testing.emulator import Emulator
from tests.auth.credentials_kit import Clock, Slept
from tests.services.project_kit import METADATA, find, load, newcomer


@pytest.mark.parametrize("configured", [None, "mine"])
def test_onboarding__free_tier_sends_no_project(emulator: Emulator, configured: Optional[str]) -> None:
    newcomer(emulator)
    assert load(emulator, configured) == (configured or "emulator-project")
    assert emulator.onboard.requests[0].json == {"tierId": "free-tier", "metadata": METADATA}


def test_onboarding__other_tiers_send_the_project(emulator: Emulator) -> None:
    newcomer(emulator, allowed_tiers=[{"id": "free-tier"}, {"id": "standard-tier", "isDefault": True}])
    assert load(emulator, "mine") == "mine"
    assert emulator.onboard.requests[0].json == {
        "tierId": "standard-tier",
        "cloudaicompanionProject": "mine",
        "metadata": {**METADATA, "duetProject": "mine"},
    }


def test_onboarding__legacy_tier_if_none_is_default(emulator: Emulator) -> None:
    newcomer(emulator, allowed_tiers=[{"id": "legacy-tier"}])
    assert load(emulator, "mine") == "mine"
    assert emulator.onboard.requests[0].json["tierId"] == "legacy-tier"


def test_onboarding__polls_the_operation(emulator: Emulator) -> None:
    newcomer(emulator, polls=3)
    slept = Slept()
    assert find(emulator, call=Call(sleep=slept)) == "emulator-project"
    assert slept == [5.0, 5.0, 5.0]
    assert {request.method for request in emulator.operation.requests} == {"GET"}
    assert len(emulator.operation.requests) == 3
    assert "Bearer" in emulator.operation.requests[0].headers["Authorization"]


def test_onboarding__ends_after_two_minutes(emulator: Emulator) -> None:
    newcomer(emulator, polls=10**6)
    clock = Clock()
    slept = Slept(clock)
    with pytest.raises(CredentialsError, match="not done within 120 s"):
        find(emulator, call=Call(clock=clock, sleep=slept))
    assert sum(slept) == 120


def test_onboarding__ends_by_a_clock_that_stands_still(emulator: Emulator) -> None:
    newcomer(emulator, polls=10**6)
    slept = Slept()
    with pytest.raises(CredentialsError, match="not done within 120 s"):
        find(emulator, call=Call(clock=lambda: 0.0, sleep=slept))
    assert sum(slept) == 120


def test_onboarding__ends_at_the_total_deadline_and_if_cancelled(emulator: Emulator) -> None:
    newcomer(emulator, polls=10**6)
    clock = Clock()
    with pytest.raises(DeadlineExceeded) as caught:
        find(emulator, call=Call(Timeouts(total=12), clock=clock, sleep=Slept(clock)).start())
    assert caught.value.deadline == "total"
    call = Call(sleep=Slept(hook=lambda: call.cancel()))
    with pytest.raises(StreamInterrupted):
        find(emulator, call=call)


def test_onboarding__without_a_project(emulator: Emulator) -> None:
    for response in ({"done": True}, {"done": True, "response": {"cloudaicompanionProject": {"id": ""}}}):
        newcomer(emulator)
        emulator.onboard.answer(json=response)
        with pytest.raises(ConfigError, match="names no project"):
            find(emulator)
        assert load(emulator, "mine") == "mine"


def test_onboarding__operation_that_failed(emulator: Emulator) -> None:
    newcomer(emulator)
    emulator.onboard.answer(json={"name": "operations/1", "done": True, "error": {"code": 7, "message": "No."}})
    with pytest.raises(PermissionDeniedError, match="No"):
        find(emulator)


@pytest.mark.parametrize("name", [None, "", 7])
def test_onboarding__operation_without_a_name(emulator: Emulator, name: Any) -> None:
    newcomer(emulator)
    emulator.onboard.answer(json={"name": name})
    with pytest.raises(ProtocolError, match="no name"):
        find(emulator)


def test_onboarding__name_of_an_operation_is_quoted(emulator: Emulator) -> None:
    newcomer(emulator)
    emulator.onboard.answer(json={"name": "operations/a:b?key=x#y"})
    with pytest.raises(CredentialsError):
        find(emulator)
    assert emulator.operation.requests[0].path == "/v1internal/operations/a:b%3Fkey%3Dx%23y"
