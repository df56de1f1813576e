"""API keys that are not accepted: the message says what to do about the key, and does not send people to OAuth."""

from __future__ import annotations

from typing import Any

import pytest

from gemini_sync import AuthError, PermissionDeniedError
from gemini_sync.errors import ApiError
from tests.adapter_kit import Rig

_NEW_KEY = "make a new key in Google AI Studio, https://aistudio.google.com/apikey"
_NEEDS_TOKEN = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other."


def _error(rig: Rig, counting: bool = False, **failure: Any) -> ApiError:
    rig.emulator.api_key.fail(**failure)
    adapter = rig.adapter(oauth_creds_path=None)
    with pytest.raises(ApiError) as caught:
        adapter.count_tokens("Hi") if counting else adapter.generate("Hi")
    assert rig.emulator.key not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("counting", [False, True])
def test_key__that_is_no_longer_accepted(rig: Rig, counting: bool) -> None:
    failure = {"kind": 401, "reason": "ACCESS_TOKEN_TYPE_UNSUPPORTED", "message": _NEEDS_TOKEN}
    error = _error(rig, counting, **failure)
    assert type(error) is AuthError
    assert (error.code, error.reason) == (401, "ACCESS_TOKEN_TYPE_UNSUPPORTED")
    assert f"no longer accepts this API key. OAuth is not needed: {_NEW_KEY}" in str(error)
    assert "log in again" not in str(error)


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [
        ({"kind": 400, "reason": "API_KEY_INVALID"}, AuthError, "Check the API key, or make a new key"),
        ({"kind": 401}, AuthError, "Check the API key, or make a new key"),
        (
            {"kind": 403, "message": "Your API key was reported as leaked."},
            PermissionDeniedError,
            "leaked or blocked, make",
        ),
        ({"kind": 403, "reason": "API_KEY_SERVICE_BLOCKED"}, PermissionDeniedError, "forbids API keys, use OAuth"),
        ({"kind": 403, "reason": "API_KEY_IP_ADDRESS_BLOCKED"}, PermissionDeniedError, "Change its restrictions"),
        ({"kind": 403, "reason": "API_KEY_HTTP_REFERRER_BLOCKED"}, PermissionDeniedError, "Change its restrictions"),
    ],
)
def test_key__that_is_refused(rig: Rig, failure: dict[str, Any], kind: type[ApiError], said: str) -> None:
    error = _error(rig, **failure)
    assert type(error) is kind
    assert said in str(error)
    assert _NEW_KEY in str(error)
    assert "log in again" not in str(error)


def test_key__403_for_another_reason_keeps_its_own_step(rig: Rig) -> None:
    error = _error(rig, kind=403, reason="SERVICE_DISABLED", link="https://enable.example")
    assert str(error).endswith("See https://enable.example")


def test_key__error_inside_the_stream(rig: Rig) -> None:
    refused = {
        "code": 401,
        "message": _NEEDS_TOKEN,
        "status": "UNAUTHENTICATED",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_TYPE_UNSUPPORTED"}],
    }
    rig.emulator.api_key.answer(chunks=[{"error": refused}])
    with pytest.raises(AuthError, match="make a new key in Google AI Studio"):
        rig.adapter(oauth_creds_path=None).generate("Hi")


def test_oauth__same_reason_does_not_speak_of_a_key(rig: Rig) -> None:
    rig.emulator.oauth.fail(401, reason="ACCESS_TOKEN_TYPE_UNSUPPORTED", times=None)
    with pytest.raises(AuthError) as caught:
        rig.adapter(api_key=None).generate("Hi")
    assert "AI Studio" not in str(caught.value)
