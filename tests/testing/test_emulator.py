"""The emulator as a plain HTTP client sees it: endpoints, credentials, state, scripting, sockets and threads."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import stat
import urllib.parse
from types import SimpleNamespace

import pytest

from gemini_sync.testing.emulator import Emulator, default_text

MODEL = "/v1beta/models/gemini-3.5-flash"
STREAM = MODEL + ":streamGenerateContent?alt=sse"
OAUTH_STREAM = "/v1internal:streamGenerateContent?alt=sse"
PROMPT = {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]}
WRAPPED = {"model": "gemini-3-flash", "project": "p", "request": PROMPT}
TIMEOUT = 10


def connect(emulator):
    return http.client.HTTPConnection(urllib.parse.urlsplit(emulator.url).netloc, timeout=TIMEOUT)


def send(emulator, method, path, body=None, headers=None):
    """Status, headers and JSON (else the bytes) of one exchange."""
    with contextlib.closing(connect(emulator)) as client:
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        client.request(method, path, data, headers or {})
        answer = client.getresponse()
        content = answer.read()
    with contextlib.suppress(ValueError):
        content = json.loads(content)
    return SimpleNamespace(status=answer.status, headers=answer.headers, content=content)


def ask(emulator, path=STREAM, body=PROMPT):
    return send(emulator, "POST", path, body, {"x-goog-api-key": emulator.key})


def ask_oauth(emulator, path=OAUTH_STREAM, body=WRAPPED, token=None):
    headers = {"Authorization": f"Bearer {token or emulator.issue_token()}"}
    return send(emulator, "GET" if body is None else "POST", path, body, headers)


def refresh(emulator, **changes):
    form = {
        "grant_type": "refresh_token",
        "refresh_token": emulator.issue_refresh_token(),
        "client_id": emulator.client_id,
        "client_secret": emulator.client_secret,
        **changes,
    }
    return send(emulator, "POST", "/token", urllib.parse.urlencode(form).encode())


def events(content):
    assert content.endswith(b"\r\n\r\n")
    return [json.loads(event.removeprefix(b"data: ")) for event in content[:-4].split(b"\r\n\r\n")]


def text_of(chunks):
    return "".join(part["text"] for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"])


# --- generating


def test_stream__default(emulator):
    answer = ask(emulator)
    chunks = events(answer.content)
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert text_of(chunks) == default_text("Why?")
    assert len(chunks) > 3
    assert [chunk["candidates"][0].get("finishReason") for chunk in chunks] == [None] * (len(chunks) - 1) + ["STOP"]
    totals = [chunk["usageMetadata"]["totalTokenCount"] for chunk in chunks]
    assert totals == sorted(set(totals))
    assert chunks[0]["modelVersion"] == "gemini-3.5-flash"
    assert {chunk["responseId"] for chunk in chunks} == {"emulator-000001"}


def test_stream__oauth_wraps(emulator):
    answers = [events(ask_oauth(emulator).content) for _ in range(2)]
    assert text_of([event["response"] for event in answers[0]]) == default_text("Why?")
    assert answers[0][0]["traceId"] != answers[1][0]["traceId"]


def test_stream__without_sse_is_an_array(emulator):
    answer = ask(emulator, MODEL + ":streamGenerateContent")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert text_of(answer.content) == default_text("Why?")
    emulator.api_key.answer(chunks=[])
    assert ask(emulator, MODEL + ":streamGenerateContent").content == []


def test_generate__one_merged_answer(emulator):
    call = {"name": "now", "args": {}}
    emulator.oauth.answer(text="One two three. ", thoughts="Let me think.", function_calls=[call, call])
    answer = ask_oauth(emulator, "/v1internal:generateContent").content["response"]
    parts = answer["candidates"][0]["content"]["parts"]
    assert [part.get("text") for part in parts] == ["Let me think.", "One two three. ", None, None]
    assert parts[0]["thought"]
    assert [part.get("functionCall") for part in parts[2:]] == [call, call]
    assert "thoughtSignature" in parts[2]
    assert "thoughtSignature" not in parts[3]
    assert answer["candidates"][0]["finishReason"] == "STOP"
    assert answer["usageMetadata"]["thoughtsTokenCount"] == 4


def test_generate__chunks_without_parts(emulator):
    emulator.api_key.answer(chunks=[{"promptFeedback": {"blockReason": "SAFETY"}}], times=1)
    emulator.api_key.answer(chunks=[])
    answers = [ask(emulator, MODEL + ":generateContent").content for _ in range(2)]
    assert answers == [{"promptFeedback": {"blockReason": "SAFETY"}}, {}]


def test_signature__of_the_other_route_is_corrupted(emulator):
    emulator.oauth.answer(thoughts="Hm.", text="Yes")
    chunk = events(ask_oauth(emulator).content)[-1]["response"]
    model_turn = chunk["candidates"][0]["content"]
    history = {"contents": [*PROMPT["contents"], model_turn, *PROMPT["contents"]]}
    assert ask_oauth(emulator, body={**WRAPPED, "request": history}).status == 200
    assert ask(emulator, body=history).content["error"]["message"] == "Corrupted thought signature."
    model_turn["parts"][0]["thoughtSignature"] = "skip_thought_signature_validator"
    assert ask(emulator, body=history).status == 200


def test_count_tokens__every_form(emulator):
    count = {"generateContentRequest": {"model": "models/m", **PROMPT}}
    assert ask(emulator, MODEL + ":countTokens").content == {"totalTokens": 1}
    assert ask(emulator, MODEL + ":countTokens", count).content == {"totalTokens": 1}
    body = {"request": {"model": "models/gemini-3-flash", **PROMPT}}
    assert ask_oauth(emulator, "/v1internal:countTokens", body).content == {"totalTokens": 1}
    assert emulator.oauth.requests[-1].model == "gemini-3-flash"


# --- credentials


@pytest.mark.parametrize("headers", [{}, {"x-goog-api-key": "wrong"}])
def test_api_key__not_valid(emulator, headers):
    error = send(emulator, "POST", STREAM, PROMPT, headers).content["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["details"][0]["reason"] == "API_KEY_INVALID"


def test_credentials__one_and_not_in_the_url(emulator):
    both = {"x-goog-api-key": emulator.key, "Authorization": "Bearer x"}
    assert "Multiple" in send(emulator, "POST", STREAM, PROMPT, both).content["error"]["message"]
    in_url = send(emulator, "POST", f"{STREAM}&key={emulator.key}", PROMPT)
    assert in_url.status == 400
    assert "URL" in in_url.content["error"]["message"]


def test_bearer__revoked_expired_unknown():
    now = [1000.0]
    with Emulator(clock=lambda: now[0]) as emulator:
        token = emulator.issue_token(expires_in=60)
        assert ask_oauth(emulator, token=token).status == 200
        now[0] += 60
        refused = ask_oauth(emulator, token=token)
        assert (refused.status, refused.content["error"]["status"]) == (401, "UNAUTHENTICATED")
        assert "invalid_token" in refused.headers["WWW-Authenticate"]
        token = emulator.issue_token()
        emulator.revoke(token)
        assert ask_oauth(emulator, token=token).status == 401
        assert send(emulator, "POST", OAUTH_STREAM, WRAPPED, {"Authorization": "Basic eA=="}).status == 401
        assert send(emulator, "POST", OAUTH_STREAM, WRAPPED).status == 401


def test_token__refresh(emulator):
    emulator.token_lifetime = 77
    answer = refresh(emulator).content
    assert answer["expires_in"] == 77
    assert "refresh_token" not in answer
    assert ask_oauth(emulator, token=answer["access_token"]).status == 200


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_id": "x"}, 401, "invalid_client"),
        ({"client_secret": "x"}, 401, "invalid_client"),
        ({"refresh_token": "x"}, 400, "invalid_grant"),
    ],
)
def test_token__refused(emulator, change, status, error):
    answer = refresh(emulator, **change)
    assert (answer.status, answer.content["error"]) == (status, error)


def test_write_credentials__gemini_cli(tmp_path):
    with Emulator(clock=lambda: 1000.0) as emulator:
        path = emulator.write_credentials(tmp_path / "new" / "creds.json", expires_in=60)
        content = json.loads(path.read_text())
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert content["expiry_date"] == 1_060_000
        assert "client_id" not in content
        assert ask_oauth(emulator, token=content["access_token"]).status == 200
        emulator.revoke(content["refresh_token"])
        assert refresh(emulator, refresh_token=content["refresh_token"]).status == 400


def test_write_credentials__authorized_user(emulator, tmp_path):
    path = tmp_path / "creds.json"
    path.write_text("{}")
    path.chmod(0o644)
    content = json.loads(emulator.write_credentials(str(path), style="authorized_user").read_text())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert content.pop("type") == "authorized_user"
    assert refresh(emulator, **content).status == 200
    emulator.revoke_all()
    assert refresh(emulator, **content).status == 400
    with pytest.raises(ValueError, match="style"):
        emulator.write_credentials(path, style="other")


# --- the requests' shape


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "Invalid JSON payload received"),
        (b"[]", "The root is not an object"),
        ({}, "contents is not specified"),
        ({"contents": "Why?"}, "a list of objects"),
        ({"contents": [1]}, "a list of objects"),
        ({"contents": [{"role": "user"}]}, "a list of parts"),
        ({"contents": [{"role": "system", "parts": [{"text": "x"}]}]}, "Please use a valid role"),
    ],
)
def test_body__malformed(emulator, body, message):
    error = ask(emulator, body=body).content["error"]
    assert error["code"] == 400
    assert message in error["message"]
    assert error["details"][0]["@type"].endswith("BadRequest")
    assert ask_oauth(emulator, body=body).status == 400


def test_model__missing(emulator):
    assert "model" in ask_oauth(emulator, body={"request": PROMPT}).content["error"]["message"]


def test_models__unknown_one(emulator):
    emulator.models = {"gemini-3.5-flash"}
    assert ask(emulator).status == 200
    error = ask(emulator, "/v1beta/models/other:generateContent").content["error"]
    assert (error["code"], error["status"]) == (404, "NOT_FOUND")
    assert error["message"].startswith("models/other is not found for API version v1beta")
    emulator.oauth.models = {"gemini-3-flash"}
    assert ask_oauth(emulator).status == 200
    emulator.oauth.models = set()
    assert ask_oauth(emulator).status == 404


def test_path__names_are_unquoted_and_unknown_paths_404(emulator):
    assert ask(emulator, "/v1beta/tunedModels/my%3Aown:generateContent").status == 200
    assert emulator.api_key.requests[0].model == "tunedModels/my:own"
    for method, path in [("POST", "/v1beta/models/a/b:generateContent"), ("GET", STREAM), ("POST", "/v1internal:no")]:
        assert send(emulator, method, path, b"" if method == "POST" else None).status == 404
    assert [request.route for request in emulator.requests] == ["api_key", "", "", ""]


# --- Code Assist


def test_load_code_assist__with_and_without_tier(emulator):
    loaded = ask_oauth(emulator, "/v1internal:loadCodeAssist", {}).content
    assert loaded["currentTier"]["id"] == "free-tier"
    assert loaded["cloudaicompanionProject"] == "emulator-project"
    assert [tier["id"] for tier in loaded["allowedTiers"]] == ["free-tier", "standard-tier"]
    emulator.tier = None
    emulator.ineligible_tiers = [{"reasonCode": "UNSUPPORTED_CLIENT", "tierId": "free-tier"}]
    loaded = ask_oauth(emulator, "/v1internal:loadCodeAssist", {}).content
    assert loaded.keys() == {"allowedTiers", "ineligibleTiers"}
    emulator.tier = "legacy-tier"
    assert ask_oauth(emulator, "/v1internal:loadCodeAssist", {}).content["currentTier"] == {"id": "legacy-tier"}


def test_onboard__polled_until_done(emulator):
    emulator.tier, emulator.onboarding_polls = None, 2
    operation = ask_oauth(emulator, "/v1internal:onboardUser", {"tierId": "free-tier"}).content
    assert "done" not in operation
    polled = [ask_oauth(emulator, f"/v1internal/{operation['name']}", None).content for _ in range(3)]
    assert [answer.get("done") for answer in polled] == [None, True, True]
    assert polled[2]["response"]["cloudaicompanionProject"]["id"] == "emulator-project"
    assert emulator.tier == "free-tier"
    assert len(emulator.operation.requests) == 3
    assert ask_oauth(emulator, "/v1internal/operations/other", None).status == 404


def test_onboard__at_once_and_refused(emulator):
    emulator.tier = emulator.project = None
    both = {"tierId": "free-tier", "cloudaicompanionProject": "mine"}
    error = ask_oauth(emulator, "/v1internal:onboardUser", both).content["error"]
    assert (error["status"], error["message"]) == ("FAILED_PRECONDITION", "Precondition failed")
    assert ask_oauth(emulator, "/v1internal:onboardUser", {"tierId": "none"}).status == 400
    assert emulator.tier is None
    answer = ask_oauth(emulator, "/v1internal:onboardUser", {"tierId": "free-tier"}).content
    assert (answer["done"], answer["response"]) == (True, {})
    answer = ask_oauth(emulator, "/v1internal:onboardUser", {**both, "tierId": "standard-tier"}).content
    assert answer["response"]["cloudaicompanionProject"]["id"] == "mine"
    assert (emulator.tier, emulator.project) == ("standard-tier", "mine")


def test_quota(emulator):
    emulator.models = {"m"}
    bucket = ask_oauth(emulator, "/v1internal:retrieveUserQuota", {"project": "p"}).content["buckets"][0]
    assert (bucket["modelId"], bucket["tokenType"]) == ("m", "REQUESTS")
