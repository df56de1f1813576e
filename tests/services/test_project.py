"""The search for a project: each kind of account, onboarding, failures, one search for all threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import pytest

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.config import Endpoints, Timeouts
from gemini_sync.errors import (
    AuthError,
    ConfigError,
    CredentialsError,
    DeadlineExceeded,
    PermissionDeniedError,
    ProtocolError,
    QuotaError,
    ServerError,
    StreamInterrupted,
    TransportError,
)
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.services.project import Projects, load_code_assist
from gemini_sync.testing.emulator import Emulator
from tests.auth.credentials_kit import Clock, Slept

_METADATA = {"ideType": "IDE_UNSPECIFIED", "platform": "PLATFORM_UNSPECIFIED", "pluginType": "GEMINI"}
_UNSUPPORTED = {"reasonCode": "UNSUPPORTED_CLIENT", "reasonMessage": "Use another client.", "tierId": "free-tier"}


def _projects(emulator: Emulator, configured: Optional[str] = None) -> Projects:
    return Projects(Transport(), Endpoints(**emulator.urls), configured)


def _find(emulator: Emulator, configured: Optional[str] = None, call: Optional[Call] = None) -> str:
    return _projects(emulator, configured).project(
        call or Call(sleep=Slept()), AccessToken(emulator.issue_token(), None)
    )


def _load(emulator: Emulator, own: Optional[str] = None) -> str:
    return load_code_assist(emulator.issue_token(), own, endpoints=Endpoints(**emulator.urls))


def _newcomer(emulator: Emulator, *, polls: int = 0, **state: Any) -> None:
    emulator.tier, emulator.onboarding_polls = None, polls
    for name, value in state.items():
        assert hasattr(emulator, name)
        setattr(emulator, name, value)


def test_project__of_a_known_user(emulator: Emulator) -> None:
    assert _find(emulator) == "emulator-project"
    (request,) = emulator.requests
    assert request.json == {"metadata": _METADATA}
    assert request.headers["Authorization"].startswith("Bearer emulator-access-token")
    assert request.headers["Content-Type"] == "application/json"


def test_project__that_is_configured_is_used_as_it_is(emulator: Emulator) -> None:
    projects = _projects(emulator, " mine ")
    for token in (AccessToken("a"), AccessToken("a"), AccessToken("b", identity="other")):
        assert projects.project(Call(), token) == "mine"
    assert emulator.requests == []


def test_load_code_assist__sends_a_project_of_ones_own_and_returns_it(emulator: Emulator) -> None:
    assert _load(emulator, " mine ") == "mine"
    assert emulator.requests[0].json == {
        "cloudaicompanionProject": "mine",
        "metadata": {**_METADATA, "duetProject": "mine"},
    }
    emulator.project = None
    assert _load(emulator, "mine") == "mine"


@pytest.mark.parametrize("configured", [None, ""])
def test_project__that_is_neither_named_nor_configured(emulator: Emulator, configured: Optional[str]) -> None:
    emulator.project = None
    with pytest.raises(ConfigError, match=r"as project=, or in GOOGLE_CLOUD_PROJECT for from_env") as caught:
        _find(emulator, configured)
    assert caught.value.reason == "PROJECT_REQUIRED"


@pytest.mark.parametrize("find", [_find, _load])
def test_project__that_is_a_number_is_refused(emulator: Emulator, find: Callable[[Emulator, str], str]) -> None:
    with pytest.raises(ConfigError, match=r"123456 is the number of a project\. Give its id") as caught:
        find(emulator, "123456")
    assert caught.value.reason == "PROJECT_REQUIRED"
    assert emulator.requests == []


@pytest.mark.parametrize("configured", [7, "two words", "  "])
def test_project__that_is_no_id_is_refused(emulator: Emulator, configured: Any) -> None:
    with pytest.raises(ConfigError, match="project"):
        _find(emulator, configured)
    assert emulator.requests == []


def test_project__of_a_known_user_who_is_ineligible_for_another_tier(emulator: Emulator) -> None:
    emulator.ineligible_tiers = [_UNSUPPORTED]
    assert _find(emulator) == "emulator-project"


def test_project__of_a_known_user_without_one_gives_the_reasons(emulator: Emulator) -> None:
    emulator.project = None
    emulator.ineligible_tiers = [_UNSUPPORTED, {"reasonCode": "RESTRICTED_AGE"}, {}, {"reasonCode": 7}]
    with pytest.raises(PermissionDeniedError) as caught:
        _find(emulator)
    assert caught.value.reason == "UNSUPPORTED_CLIENT"
    assert caught.value.link is None
    for words in ("Use another client.", "RESTRICTED_AGE", "no reason given", "API key"):
        assert words in str(caught.value)


@pytest.mark.parametrize("link", ["https://accounts.example/validate", 7, True])
def test_project__validation_required(emulator: Emulator, link: Any) -> None:
    needed = {"reasonCode": "VALIDATION_REQUIRED", "reasonMessage": "Verify.", "validationUrl": link}
    _newcomer(emulator, ineligible_tiers=[_UNSUPPORTED | {"tierId": "other"}, needed])
    with pytest.raises(PermissionDeniedError, match=r"Verify\. Use another client\. ") as caught:
        _find(emulator)
    assert caught.value.reason == "VALIDATION_REQUIRED"
    assert caught.value.link == (link if isinstance(link, str) else None)
    words = f"See {link}" if isinstance(link, str) else "A link of the server was left out"
    assert words in str(caught.value)
    assert emulator.onboard.requests == []


@pytest.mark.parametrize(
    "state",
    [
        {"ineligible_tiers": [_UNSUPPORTED]},
        {"ineligible_tiers": [{**_UNSUPPORTED, "tierId": "other"}], "allowed_tiers": []},
    ],
    ids=["default tier refused", "no tier allowed"],
)
def test_project__unsupported_client(emulator: Emulator, state: dict[str, Any]) -> None:
    _newcomer(emulator, **state)
    with pytest.raises(PermissionDeniedError, match="Use another client") as caught:
        _find(emulator)
    assert caught.value.reason == "UNSUPPORTED_CLIENT"
    assert emulator.onboard.requests == []


def test_project__of_a_new_user_who_is_ineligible_for_another_tier(emulator: Emulator) -> None:
    _newcomer(emulator, ineligible_tiers=[{"reasonCode": "VALIDATION_REQUIRED", "tierId": "standard-tier"}])
    assert _find(emulator) == "emulator-project"


@pytest.mark.parametrize("configured", [None, "mine"])
def test_onboarding__free_tier_sends_no_project(emulator: Emulator, configured: Optional[str]) -> None:
    _newcomer(emulator)
    assert _load(emulator, configured) == (configured or "emulator-project")
    assert emulator.onboard.requests[0].json == {"tierId": "free-tier", "metadata": _METADATA}


def test_onboarding__other_tiers_send_the_project(emulator: Emulator) -> None:
    _newcomer(emulator, allowed_tiers=[{"id": "free-tier"}, {"id": "standard-tier", "isDefault": True}])
    assert _load(emulator, "mine") == "mine"
    assert emulator.onboard.requests[0].json == {
        "tierId": "standard-tier",
        "cloudaicompanionProject": "mine",
        "metadata": {**_METADATA, "duetProject": "mine"},
    }


def test_onboarding__legacy_tier_if_none_is_default(emulator: Emulator) -> None:
    _newcomer(emulator, allowed_tiers=[{"id": "legacy-tier"}])
    assert _load(emulator, "mine") == "mine"
    assert emulator.onboard.requests[0].json["tierId"] == "legacy-tier"


def test_onboarding__polls_the_operation(emulator: Emulator) -> None:
    _newcomer(emulator, polls=3)
    slept = Slept()
    assert _find(emulator, call=Call(sleep=slept)) == "emulator-project"
    assert slept == [5.0, 5.0, 5.0]
    assert {request.method for request in emulator.operation.requests} == {"GET"}
    assert len(emulator.operation.requests) == 3
    assert "Bearer" in emulator.operation.requests[0].headers["Authorization"]


def test_onboarding__ends_after_two_minutes(emulator: Emulator) -> None:
    _newcomer(emulator, polls=10**6)
    clock = Clock()
    slept = Slept(clock)
    with pytest.raises(CredentialsError, match="not done within 120 s"):
        _find(emulator, call=Call(clock=clock, sleep=slept))
    assert sum(slept) == 120


def test_onboarding__ends_by_a_clock_that_stands_still(emulator: Emulator) -> None:
    _newcomer(emulator, polls=10**6)
    slept = Slept()
    with pytest.raises(CredentialsError, match="not done within 120 s"):
        _find(emulator, call=Call(clock=lambda: 0.0, sleep=slept))
    assert sum(slept) == 120


def test_onboarding__ends_at_the_total_deadline_and_if_cancelled(emulator: Emulator) -> None:
    _newcomer(emulator, polls=10**6)
    clock = Clock()
    with pytest.raises(DeadlineExceeded) as caught:
        _find(emulator, call=Call(Timeouts(total=12), clock=clock, sleep=Slept(clock)).start())
    assert caught.value.deadline == "total"
    call = Call(sleep=Slept(hook=lambda: call.cancel()))
    with pytest.raises(StreamInterrupted):
        _find(emulator, call=call)


def test_onboarding__without_a_project(emulator: Emulator) -> None:
    for response in ({"done": True}, {"done": True, "response": {"cloudaicompanionProject": {"id": ""}}}):
        _newcomer(emulator)
        emulator.onboard.answer(json=response)
        with pytest.raises(ConfigError, match="names no project"):
            _find(emulator)
        assert _load(emulator, "mine") == "mine"


def test_onboarding__operation_that_failed(emulator: Emulator) -> None:
    _newcomer(emulator)
    emulator.onboard.answer(json={"name": "operations/1", "done": True, "error": {"code": 7, "message": "No."}})
    with pytest.raises(PermissionDeniedError, match="No"):
        _find(emulator)


@pytest.mark.parametrize("name", [None, "", 7])
def test_onboarding__operation_without_a_name(emulator: Emulator, name: Any) -> None:
    _newcomer(emulator)
    emulator.onboard.answer(json={"name": name})
    with pytest.raises(ProtocolError, match="no name"):
        _find(emulator)


def test_onboarding__name_of_an_operation_is_quoted(emulator: Emulator) -> None:
    _newcomer(emulator)
    emulator.onboard.answer(json={"name": "operations/a:b?k=x#y"})
    with pytest.raises(CredentialsError):
        _find(emulator)
    assert emulator.operation.requests[0].path == "/v1internal/operations/a:b%3Fk%3Dx%23y"


def test_perimeter__uses_the_configured_project(emulator: Emulator) -> None:
    emulator.load_code_assist.fail(403, reason="SECURITY_POLICY_VIOLATED", times=None)
    assert _find(emulator, "mine") == _load(emulator, "mine") == "mine"
    with pytest.raises(PermissionDeniedError, match="GOOGLE_CLOUD_PROJECT") as caught:
        _find(emulator)
    assert (caught.value.code, caught.value.reason) == (403, "SECURITY_POLICY_VIOLATED")


@pytest.mark.parametrize(
    ("code", "kind"),
    [(401, AuthError), (403, PermissionDeniedError), (429, QuotaError), (500, ServerError), (503, ServerError)],
)
def test_failure__keeps_its_class(emulator: Emulator, code: int, kind: type[Exception]) -> None:
    emulator.load_code_assist.fail(code, retry_delay="3s", reason="SOME_REASON", link="https://help.example")
    with pytest.raises(kind) as caught:
        _find(emulator)
    error: Any = caught.value
    assert type(error) is kind
    assert (error.code, error.reason, error.link) == (code, "SOME_REASON", "https://help.example")


@pytest.mark.parametrize("code", [400, 404, 409])
def test_failure__of_our_own_request_is_a_credentials_error(emulator: Emulator, code: int) -> None:
    emulator.load_code_assist.fail(code, reason="SOME_REASON", link="https://help.example")
    with pytest.raises(CredentialsError, match="did not name a project") as caught:
        _find(emulator)
    assert caught.value.code == code
    assert (caught.value.reason, caught.value.link) == ("SOME_REASON", "https://help.example")
    assert caught.value.status is not None
    assert caught.value.details


def test_answer__without_content(emulator: Emulator) -> None:
    emulator.load_code_assist.fail(204)
    with pytest.raises(ProtocolError, match="came status 204") as caught:
        _find(emulator)
    assert caught.value.code == 204


@pytest.mark.parametrize("answer", [b"<html>Sign in</html>", b"", b"[]", b"7", b"[" * 50_000])
def test_failure__of_an_answer_that_is_no_object(emulator: Emulator, answer: bytes) -> None:
    emulator.load_code_assist.answer(body=answer)
    with pytest.raises(ProtocolError, match="Expected a JSON object from loadCodeAssist"):
        _find(emulator)


@pytest.mark.parametrize(
    "answer", [{"currentTier": {}, "cloudaicompanionProject": 7}, {"currentTier": {}, "ineligibleTiers": "?"}]
)
def test_answer__with_odd_fields_that_count_as_absent(emulator: Emulator, answer: Any) -> None:
    emulator.load_code_assist.answer(json=answer)
    assert _load(emulator, "mine") == "mine"


def test_failure__of_a_redirect_or_the_network(emulator: Emulator) -> None:
    with Emulator() as other:
        emulator.load_code_assist.fail(308, headers={"Location": other.url + "/v1internal:loadCodeAssist"})
        with pytest.raises(ProtocolError, match="redirect"):
            _find(emulator)
        assert other.requests == []
    emulator.load_code_assist.fail("reset")
    with pytest.raises(TransportError):
        _find(emulator)


def test_load_code_assist(emulator: Emulator) -> None:
    endpoints = Endpoints(**emulator.urls)
    token = emulator.issue_token()
    assert load_code_assist(token, endpoints=endpoints) == "emulator-project"
    emulator.project = None
    assert load_code_assist(token, "mine", endpoints=endpoints) == "mine"
    with pytest.raises(ConfigError, match="access_token"):
        load_code_assist("", endpoints=endpoints)
    assert emulator.wait_closed()
