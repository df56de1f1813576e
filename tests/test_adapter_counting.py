"""Counting tokens decides nothing about streams, whatever its method answers, on real sockets."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from gemini_sync.errors import DeadlineExceeded, GeminiSyncError
from gemini_sync.services import base
from tests.adapter_kit import Rig
from tests.auth.credentials_kit import together

FAULTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "403": (403, {}),
    "403 of IAM": (403, {"reason": "IAM_PERMISSION_DENIED"}),
    "404 of the method": (404, {}),
    "429": (429, {}),
    "429 used up": (429, {"reason": "QUOTA_EXHAUSTED"}),
    "429 with a long hint": (429, {"retry_delay": "3600s"}),
    "no capacity": (429, {"reason": "MODEL_CAPACITY_EXHAUSTED"}),
    "validation": (403, {"reason": "VALIDATION_REQUIRED"}),
    "terms of service": (403, {"reason": "TOS_VIOLATION"}),
    "client": (403, {"reason": "UNSUPPORTED_CLIENT"}),
    "503": (503, {}),
    "reset": ("reset", {}),
    "page": ("html", {}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_count__that_fails_on_oauth_is_answered_by_the_key_and_changes_nothing(rig: Rig, name: str) -> None:
    fault, options = FAULTS[name]
    adapter = rig.adapter()
    assert adapter.generate("Hi").route == "oauth"
    stood = adapter.route_status()
    rig.emulator.oauth.fail(fault, times=None, **options)
    assert together(4, lambda: adapter.count_tokens("12345678")) == [2] * 4
    assert adapter.route_status() == stood
    rig.emulator.oauth.reset()
    reply = adapter.generate("Hi")
    assert (reply.route, len(reply.attempts)) == ("oauth", 1)
    assert adapter.generate("Hi", model="another").route == "oauth"
    assert (rig.flips, adapter.route_status()) == ([], stood)


@pytest.mark.parametrize("name", FAULTS)
def test_count__that_fails_on_the_key_is_answered_by_oauth_and_changes_nothing(rig: Rig, name: str) -> None:
    fault, options = FAULTS[name]
    adapter = rig.adapter()
    rig.emulator.oauth.fail(403, times=1)
    assert adapter.generate("Hi").route == "api_key"
    stood = adapter.route_status()
    rig.emulator.api_key.fail(fault, times=None, **options)
    assert adapter.count_tokens("12345678") == 2
    rig.emulator.api_key.reset()
    assert adapter.generate("Hi").route == "api_key"
    assert (len(rig.flips), adapter.route_status()) == (1, stood)


def test_count__beyond_its_fixed_time_changes_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_COUNT_SECONDS", 0.05)
    adapter, entered = rig.adapter(), threading.Event()
    stood = adapter.route_status()
    rig.emulator.oauth.fail("stall", times=None, before=entered.set)
    assert adapter.count_tokens("12345678") == 2
    assert entered.wait(20)
    rig.emulator.oauth.reset()
    assert adapter.generate("Hi").route == "oauth"
    assert (rig.flips, adapter.route_status()) == ([], stood)


def test_count__beyond_its_fixed_time_on_the_only_route_surfaces(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_COUNT_SECONDS", 0.05)
    adapter = rig.adapter(api_key=None)
    rig.emulator.oauth.fail("stall", times=None)
    with pytest.raises(DeadlineExceeded) as caught:
        adapter.count_tokens("Hi")
    assert caught.value.deadline == "answer"
    rig.emulator.oauth.reset()
    assert adapter.generate("Hi").route == "oauth"


@pytest.mark.parametrize("name", FAULTS)
def test_count__that_fails_on_both_routes_surfaces_and_changes_nothing(rig: Rig, name: str) -> None:
    fault, options = FAULTS[name]
    adapter = rig.adapter()
    stood = adapter.route_status()
    for route in (rig.emulator.oauth, rig.emulator.api_key):
        route.fail(fault, times=None, **options)
    with pytest.raises(GeminiSyncError) as caught:
        adapter.count_tokens("Hi")
    assert {attempt.route for attempt in caught.value.attempts} == {"oauth", "api_key"}
    rig.emulator.oauth.reset()
    rig.emulator.api_key.reset()
    assert adapter.generate("Hi").route == "oauth"
    assert (rig.flips, adapter.route_status()) == ([], stood)
