"""Every request on the wire: it is what the services expect, and no credential stands where it could leak."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gemini_sync
from gemini_sync.config import Endpoints
from gemini_sync.errors import NotFoundError
from gemini_sync.testing.emulator import Emulator, Recorded
from gemini_sync.version import VERSION
from tests.adapter_kit import Rig

METADATA = {"ideType": "IDE_UNSPECIFIED", "platform": "PLATFORM_UNSPECIFIED", "pluginType": "GEMINI"}
USER_AGENT = f"gemini-sync/{VERSION}"
JSON = "application/json"
TURN = {"role": "user", "parts": [{"text": "Hi"}]}
OPTIONS: dict[str, Any] = {
    "system_instruction": "Be brief.",
    "tools": [{"googleSearch": {}}],
    "tool_config": {"functionCallingConfig": {"mode": "AUTO"}},
    "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "generation_config": {"temperature": 0.5, "thinkingConfig": {"thinkingLevel": "low"}},
    "cached_content": "cachedContents/x",
    "labels": {"team": "ünïcode"},
}
BODY: dict[str, Any] = {
    "contents": [TURN],
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "tools": OPTIONS["tools"],
    "toolConfig": OPTIONS["tool_config"],
    "safetySettings": OPTIONS["safety_settings"],
    "generationConfig": OPTIONS["generation_config"],
    "cachedContent": "cachedContents/x",
    "labels": OPTIONS["labels"],
}


@pytest.fixture
def rig(emulator: Emulator, tmp_path: Path) -> Iterator[Rig]:
    with Rig(emulator, tmp_path) as rig:
        yield rig


def check_headers(rig: Rig, request: Recorded, credential: dict[str, str], content_type: str = JSON) -> None:
    """The request has the credential and the standard headers, and no others."""
    expected = {
        "Host": urllib.parse.urlsplit(rig.emulator.url).netloc,
        "User-Agent": USER_AGENT,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "keep-alive",
        "Content-Type": content_type,
        "Content-Length": str(len(request.body)),
        **credential,
    }
    assert dict(request.headers.items()) == expected


def key(rig: Rig) -> dict[str, str]:
    return {"x-goog-api-key": rig.emulator.key}


def bearer(rig: Rig) -> dict[str, str]:
    return {"Authorization": f"Bearer {json.loads(rig.path.read_text())['access_token']}"}


# -- the API-key route


def test_api_key__streaming(rig: Rig) -> None:
    rig.adapter(oauth_creds_path=None).generate("Hi", model="some-model", **OPTIONS)
    (request,) = rig.emulator.requests
    assert (request.method, request.path) == ("POST", "/v1beta/models/some-model:streamGenerateContent")
    assert request.query == {"alt": "sse"}
    assert request.json == BODY
    check_headers(rig, request, key(rig))


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (gemini_sync.DEFAULT_MODEL, "models/gemini-3.8-flash"),
        ("models/gemini-2.5-pro", "models/gemini-2.5-pro"),
        ("tunedModels/my-own", "tunedModels/my-own"),
        ("a?key=x", "models/a%3Fkey%3Dx"),
        ("a#f", "models/a%23f"),
        ("a%2Fb:c", "models/a%252Fb%3Ac"),
        ("modèle", "models/mod%C3%A8le"),
    ],
)
def test_api_key__model_in_the_path(rig: Rig, model: str, path: str) -> None:
    rig.adapter(oauth_creds_path=None).generate("Hi", model=model)
    (request,) = rig.emulator.api_key.requests
    assert request.path == f"/v1beta/{path}:streamGenerateContent"
    assert request.query == {"alt": "sse"}


@pytest.mark.parametrize(
    ("ending", "version", "path"),
    [
        ("", {}, "/v1beta/"),
        ("/v1beta", {}, "/v1beta/"),
        ("/v1beta/", {}, "/v1beta/"),
        ("/v1", {}, "/v1/"),
        ("", {"gemini_version": "v1alpha"}, "/v1alpha/"),
        ("/base", {"gemini_version": "v1"}, "/base/v1/"),
    ],
)
def test_api_key__version_in_the_path(rig: Rig, ending: str, version: dict[str, str], path: str) -> None:
    endpoints = Endpoints(gemini=rig.emulator.url + ending, **version)
    adapter = rig.adapter(oauth_creds_path=None, endpoints=endpoints)
    for ask in (adapter.generate, adapter.count_tokens):
        with contextlib.suppress(NotFoundError):  # the emulator serves v1beta alone
            ask("Hi", model="m")
    assert [request.path.partition(":")[0] for request in rig.emulator.requests] == [f"{path}models/m"] * 2


def test_oauth__version_at_the_end_of_the_url(rig: Rig) -> None:
    urls = {**rig.emulator.urls, "code_assist": rig.emulator.url + "/v1internal/"}
    assert rig.adapter(endpoints=Endpoints(**urls)).generate("Hi").route == "oauth"
    assert rig.counts == (1, 0)


def test_api_key__count_tokens(rig: Rig) -> None:
    rig.adapter(oauth_creds_path=None).count_tokens(
        "Hi", model="some-model", system_instruction="Be brief.", tools=OPTIONS["tools"]
    )
    (request,) = rig.emulator.requests
    assert (request.method, request.path, request.query) == ("POST", "/v1beta/models/some-model:countTokens", {})
    counted = {name: BODY[name] for name in ("contents", "systemInstruction", "tools")}
    assert request.json == {"generateContentRequest": {"model": "models/some-model", **counted}}
    check_headers(rig, request, key(rig))


# -- the OAuth route


def test_oauth__streaming(rig: Rig) -> None:
    adapter = rig.adapter()
    for _ in range(2):
        adapter.generate("Hi", model="models/some-model", **{**OPTIONS, "cached_content": "in no known form"})
    first, second = rig.emulator.oauth.requests
    assert (first.method, first.path, first.query) == ("POST", "/v1internal:streamGenerateContent", {"alt": "sse"})
    body = first.json
    session_id, prompt_id = body["request"].pop("session_id"), body.pop("user_prompt_id")
    assert body == {
        "model": "some-model",
        "project": "emulator-project",
        "request": {**BODY, "cachedContent": "in no known form"},
    }
    assert re.fullmatch("[0-9a-f]{32}", session_id)
    assert second.json["request"]["session_id"] == session_id
    assert re.fullmatch("[0-9a-f]{32}", prompt_id)
    assert second.json["user_prompt_id"] != prompt_id
    check_headers(rig, first, bearer(rig))


def test_oauth__has_its_own_spelling_of_a_model(rig: Rig) -> None:
    """Google's client sends gemini-3.5-flash as gemini-3-flash (GC config/models.ts)."""
    adapter = rig.adapter(model="gemini-3.5-flash")
    adapter.generate("Hi")
    adapter.count_tokens("Hi")
    adapter.generate("Hi", model="gemini-3.5-pro")
    generated, counted, other = rig.emulator.oauth.requests
    assert generated.json["model"] == "gemini-3-flash"
    assert counted.json["request"]["model"] == "models/gemini-3-flash"
    assert other.json["model"] == "gemini-3.5-pro"
    rig.emulator.oauth.fail(403)
    adapter.generate("Hi")
    assert rig.emulator.api_key.requests[0].path == "/v1beta/models/gemini-3.5-flash:streamGenerateContent"


def test_oauth__count_tokens(rig: Rig) -> None:
    """It sends the contents alone, and asks for no project."""
    rig.adapter(api_key=None).count_tokens(
        "Hi", model="some-model", system_instruction="Be brief.", tools=OPTIONS["tools"]
    )
    (request,) = rig.emulator.requests
    assert (request.method, request.path, request.query) == ("POST", "/v1internal:countTokens", {})
    assert request.json == {"request": {"model": "models/some-model", "contents": [TURN]}}
    check_headers(rig, request, bearer(rig))


def test_oauth__configured_project_is_not_asked_about(rig: Rig) -> None:
    rig.emulator.tier, rig.emulator.project = None, None
    rig.adapter(project="my-project").generate("Hi")
    (request,) = rig.emulator.requests
    assert (request.path, request.json["project"]) == ("/v1internal:streamGenerateContent", "my-project")


def test_oauth__load_code_assist(rig: Rig) -> None:
    adapter = rig.adapter()
    for _ in range(2):
        adapter.generate("Hi")
    (request,) = rig.emulator.load_code_assist.requests
    assert (request.method, request.path, request.query) == ("POST", "/v1internal:loadCodeAssist", {})
    assert request.json == {"metadata": METADATA}
    check_headers(rig, request, bearer(rig))


def test_oauth__onboarding(rig: Rig) -> None:
    rig.emulator.tier = None
    rig.emulator.onboarding_polls = 2
    adapter = rig.adapter()
    adapter.generate("Hi")
    (request,) = rig.emulator.onboard.requests
    assert (request.method, request.path, request.query) == ("POST", "/v1internal:onboardUser", {})
    assert request.json == {"tierId": "free-tier", "metadata": METADATA}
    check_headers(rig, request, bearer(rig))
    polls = rig.emulator.operation.requests
    assert [(poll.method, poll.path, poll.query) for poll in polls] == [
        ("GET", "/v1internal/operations/onboard-1", {})
    ] * 2
    for poll in polls:
        assert poll.body == b""
        assert bearer(rig).items() <= dict(poll.headers.items()).items()
    assert rig.slept == [5.0, 5.0]
    assert rig.emulator.oauth.requests[0].json["project"] == "emulator-project"


def test_token__refresh(rig: Rig) -> None:
    rig.emulator.client_id, rig.emulator.client_secret = "an-id&x", "a=secret+/%"
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-1)
    refresh_token = json.loads(rig.path.read_text())["refresh_token"]
    rig.adapter().generate("Hi")
    (request,) = rig.emulator.token.requests
    assert (request.method, request.path, request.query) == ("POST", "/token", {})
    form = urllib.parse.parse_qs(request.body.decode("ascii"), strict_parsing=True)
    assert form == {
        "grant_type": ["refresh_token"],
        "refresh_token": [refresh_token],
        "client_id": ["an-id&x"],
        "client_secret": ["a=secret+/%"],
    }
    check_headers(rig, request, {}, "application/x-www-form-urlencoded")
    assert bearer(rig).items() <= dict(rig.emulator.oauth.requests[0].headers.items()).items()


# -- both


def test_credentials__never_in_a_url_nor_on_the_other_route(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """With a .netrc, and through refresh, discovery, 401, fallback and the route of the API key."""
    (home / ".netrc").write_text("machine 127.0.0.1 login netrc-login password netrc-password\n")
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-1)
    rig.emulator.tier = None
    adapter = rig.adapter()
    adapter.generate("Hi")
    adapter.count_tokens("Hi")
    rig.emulator.oauth.fail(401, times=None)
    adapter.generate("Hi")
    adapter.count_tokens("Hi")
    routes = {request.route for request in rig.emulator.requests}
    assert routes == {"token", "load_code_assist", "onboard", "oauth", "api_key"}
    secrets = (rig.emulator.key, rig.emulator.client_secret, "emulator-access-token", "emulator-refresh-token", "netrc")
    for request in rig.emulator.requests:
        target = f"{request.path}?{urllib.parse.urlencode(request.query)}"
        assert not any(secret in target for secret in secrets)
        everything = "\n".join(f"{name}: {value}" for name, value in request.headers.items()) + request.body.decode()
        held = {secret for secret in secrets if secret in everything}
        expected = {
            "api_key": {rig.emulator.key},
            "token": {rig.emulator.client_secret, "emulator-refresh-token"},
        }.get(request.route, {"emulator-access-token"})
        assert held == expected
        assert request.headers["User-Agent"] == USER_AGENT
        assert request.headers.get_all("Cookie") is None


def test_cookies__of_one_answer_do_not_come_back(rig: Rig) -> None:
    for route in (rig.emulator.oauth, rig.emulator.api_key):
        route.answer(text="Hello", headers={"Set-Cookie": "session=of-this-credential; Path=/"})
    adapter = rig.adapter()
    adapter.generate("Hi")
    rig.emulator.oauth.fail(403)
    adapter.generate("Hi")
    adapter.generate("Hi")
    assert rig.counts == (2, 2)
    assert all("Cookie" not in request.headers for request in rig.emulator.requests)
