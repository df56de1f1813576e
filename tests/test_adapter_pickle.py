"""The pickle of an adapter, which holds its arguments, and its repr, which shows no secret."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import gemini_sync
from gemini_sync import GeminiDualAdapter, OAuthClient, Retry
from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Rig

SECRETS = {"api_key": "canary-key", "oauth_client": OAuthClient("canary-id", "canary-secret")}


def decide_nothing(error: BaseException) -> gemini_sync.Decision:
    return gemini_sync.Decision.SURFACE


def test_pickle__holds_the_arguments_and_nothing_else(rig: Rig) -> None:
    rig.emulator.oauth.fail(403, times=1)
    settings: dict[str, Any] = {
        **rig.settings(),
        "on_fallback": gemini_sync.notify_stderr,
        "sleep": None,
        "policy": decide_nothing,
        "retry": Retry(2),
        "sticky_for": "hint",
        "remind_every": 86400,
        "quota_by_model": True,
        "project": "my-project",
    }
    with GeminiDualAdapter(**settings) as adapter:
        with pytest.raises(gemini_sync.PermissionDeniedError):
            adapter.generate("Hi")
        with pickle.loads(pickle.dumps(adapter)) as copy:
            assert copy._settings == adapter._settings == {**adapter._settings, **settings}
            assert copy.route_status().failures == ()
            assert copy.generate("Hi").text == default_text("Hi")
        assert adapter.generate("Hi").route == "oauth"


def test_pickle__after_a_fallback_the_copy_prefers_oauth(rig: Rig) -> None:
    rig.emulator.oauth.fail(403, times=1)
    with GeminiDualAdapter(**{**rig.settings(), "on_fallback": gemini_sync.notify_stderr, "sleep": None}) as adapter:
        adapter.generate("Hi")
        assert adapter.fallback_active
        with pickle.loads(pickle.dumps(adapter)) as copy:
            assert not copy.fallback_active
            assert copy.generate("Hi").route == "oauth"
        assert adapter.fallback_active


def test_repr__shows_the_routes_and_no_secret(rig: Rig) -> None:
    rig.emulator.oauth.fail(403, times=1)
    adapter = rig.adapter(model="some-model")
    assert repr(adapter) == (
        "GeminiDualAdapter(routes=['oauth', 'api_key'], model='some-model', preferred='oauth', fallback_active=False)"
    )
    adapter.generate("Hi")
    assert repr(adapter).endswith("preferred='api_key', fallback_active=True)")
    shown = repr(GeminiDualAdapter(**SECRETS)) + repr(SECRETS["oauth_client"])
    assert "routes=['api_key']" in shown
    assert "canary-key" not in shown
    assert "canary-secret" not in shown
