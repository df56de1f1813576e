"""The search for a project: each kind of account, and failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import pytest

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.config import Endpoints
from gemini_sync.errors import (
    AuthError,
    ConfigError,
    CredentialsError,
    PermissionDeniedError,
    ProtocolError,
    QuotaError,
    ServerError,
    TransportError,
)
from gemini_sync.network.cancelling import Call
from gemini_sync.services.project import load_code_assist
from gemini_sync.testing.emulator import Emulator
from tests.services.project_kit import METADATA, find, load, newcomer, projects_of

_UNSUPPORTED = {"reasonCode": "UNSUPPORTED_CLIENT", "reasonMessage": "Use another client.", "tierId": "free-tier"}


def test_project__of_a_known_user(emulator: Emulator) -> None:
    assert find(emulator) == "emulator-project"
    (request,) = emulator.requests
    assert request.json == {"metadata": METADATA}
    assert request.headers["Authorization"].startswith("Bearer emulator-access-token")
    assert request.headers["Content-Type"] == "application/json"


def test_project__that_is_configured_is_used_as_it_is(emulator: Emulator) -> None:
    projects = projects_of(emulator, " mine ")
    for token in (AccessToken("a"), AccessToken("a"), AccessToken("b", identity="other")):
        assert projects.project(Call(), token) == "mine"
    assert emulator.requests == []


def test_load_code_assist__sends_a_project_of_ones_own_and_returns_it(emulator: Emulator) -> None:
    assert load(emulator, " mine ") == "mine"
    assert emulator.requests[0].json == {
        "cloudaicompanionProject": "mine",
        "metadata": {**METADATA, "duetProject": "mine"},
    }
    emulator.project = None
    assert load(emulator, "mine") == "mine"


@pytest.mark.parametrize("configured", [None, ""])
def test_project__that_is_neither_named_nor_configured(emulator: Emulator, configured: Optional[str]) -> None:
    emulator.project = None
    with pytest.raises(ConfigError, match=r"as project=, or in GOOGLE_CLOUD_PROJECT for from_env") as caught:
        find(emulator, configured)
    assert caught.value.reason == "PROJECT_REQUIRED"


@pytest.mark.parametrize("find", [find, load])
def test_project__that_is_a_number_is_refused(emulator: Emulator, find: Callable[[Emulator, str], str]) -> None:
    with pytest.raises(ConfigError, match=r"123456 is the number of a project\. Give its id") as caught:
        find(emulator, "123456")
    assert caught.value.reason == "PROJECT_REQUIRED"
    assert emulator.requests == []


@pytest.mark.parametrize("configured", [7, "two words", "  "])
def test_project__that_is_no_id_is_refused(emulator: Emulator, configured: Any) -> None:
    with pytest.raises(ConfigError, match="project"):
        find(emulator, configured)
    assert emulator.requests == []


def test_project__of_a_known_user_who_is_ineligible_for_another_tier(emulator: Emulator) -> None:
    emulator.ineligible_tiers = [_UNSUPPORTED]
    assert find(emulator) == "emulator-project"


def test_project__of_a_known_user_without_one_gives_the_reasons(emulator: Emulator) -> None:
    emulator.project = None
    emulator.ineligible_tiers = [_UNSUPPORTED, {"reasonCode": "RESTRICTED_AGE"}, {}, {"reasonCode": 7}]
    with pytest.raises(PermissionDeniedError) as caught:
        find(emulator)
    assert caught.value.reason == "UNSUPPORTED_CLIENT"
    assert caught.value.link is None
    for words in ("Use another client.", "RESTRICTED_AGE", "no reason given", "API key"):
        assert words in str(caught.value)


@pytest.mark.parametrize("link", ["https://accounts.example/validate", 7, True])
def test_project__validation_required(emulator: Emulator, link: Any) -> None:
    needed = {"reasonCode": "VALIDATION_REQUIRED", "reasonMessage": "Verify.", "validationUrl": link}
    newcomer(emulator, ineligible_tiers=[_UNSUPPORTED | {"tierId": "other"}, needed])
    with pytest.raises(PermissionDeniedError, match=f"Verify. Use another client. See {link}") as caught:
        find(emulator)
    assert caught.value.reason == "VALIDATION_REQUIRED"
    assert caught.value.link == (link if isinstance(link, str) else None)
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
    newcomer(emulator, **state)
    with pytest.raises(PermissionDeniedError, match="Use another client") as caught:
        find(emulator)
    assert caught.value.reason == "UNSUPPORTED_CLIENT"
    assert emulator.onboard.requests == []


def test_project__of_a_new_user_who_is_ineligible_for_another_tier(emulator: Emulator) -> None:
    newcomer(emulator, ineligible_tiers=[{"reasonCode": "VALIDATION_REQUIRED", "tierId": "standard-tier"}])
    assert find(emulator) == "emulator-project"


def test_perimeter__uses_the_configured_project(emulator: Emulator) -> None:
    emulator.load_code_assist.fail(403, reason="SECURITY_POLICY_VIOLATED", times=None)
    assert find(emulator, "mine") == load(emulator, "mine") == "mine"
    with pytest.raises(PermissionDeniedError, match="GOOGLE_CLOUD_PROJECT") as caught:
        find(emulator)
    assert (caught.value.code, caught.value.reason) == (403, "SECURITY_POLICY_VIOLATED")


@pytest.mark.parametrize(
    ("code", "kind"),
    [(401, AuthError), (403, PermissionDeniedError), (429, QuotaError), (500, ServerError), (503, ServerError)],
)
def test_failure__keeps_its_class(emulator: Emulator, code: int, kind: type[Exception]) -> None:
    emulator.load_code_assist.fail(code, retry_delay="3s", reason="SOME_REASON", link="https://help.example")
    with pytest.raises(kind) as caught:
        find(emulator)
    error: Any = caught.value
    assert type(error) is kind
    assert (error.code, error.reason, error.link) == (code, "SOME_REASON", "https://help.example")


@pytest.mark.parametrize("code", [400, 404, 409])
def test_failure__of_our_own_request_is_a_credentials_error(emulator: Emulator, code: int) -> None:
    emulator.load_code_assist.fail(code, reason="SOME_REASON", link="https://help.example")
    with pytest.raises(CredentialsError, match="did not name a project") as caught:
        find(emulator)
    assert caught.value.code == code
    assert (caught.value.reason, caught.value.link) == ("SOME_REASON", "https://help.example")
    assert caught.value.status is not None
    assert caught.value.details


def test_answer__without_content(emulator: Emulator) -> None:
    emulator.load_code_assist.fail(204)
    with pytest.raises(ProtocolError, match="came status 204") as caught:
        find(emulator)
    assert caught.value.code == 204


@pytest.mark.parametrize("answer", [b"<html>Sign in</html>", b"", b"[]", b"7", b"[" * 50_000])
def test_failure__of_an_answer_that_is_no_object(emulator: Emulator, answer: bytes) -> None:
    emulator.load_code_assist.answer(body=answer)
    with pytest.raises(ProtocolError, match="Expected a JSON object from loadCodeAssist"):
        find(emulator)


@pytest.mark.parametrize(
    "answer", [{"currentTier": {}, "cloudaicompanionProject": 7}, {"currentTier": {}, "ineligibleTiers": "?"}]
)
def test_answer__with_odd_fields_that_count_as_absent(emulator: Emulator, answer: Any) -> None:
    emulator.load_code_assist.answer(json=answer)
    assert load(emulator, "mine") == "mine"


def test_failure__of_a_redirect_or_the_network(emulator: Emulator) -> None:
    with Emulator() as other:
        emulator.load_code_assist.fail(308, headers={"Location": other.url + "/v1internal:loadCodeAssist"})
        with pytest.raises(ProtocolError, match="redirect"):
            find(emulator)
        assert other.requests == []
    emulator.load_code_assist.fail("reset")
    with pytest.raises(TransportError):
        find(emulator)


def test_load_code_assist(emulator: Emulator) -> None:
    endpoints = Endpoints(**emulator.urls)
    token = emulator.issue_token()
    assert load_code_assist(token, endpoints=endpoints) == "emulator-project"
    emulator.project = None
    assert load_code_assist(token, "mine", endpoints=endpoints) == "mine"
    with pytest.raises(ConfigError, match="access_token"):
        load_code_assist("", endpoints=endpoints)
    assert emulator.wait_closed()
