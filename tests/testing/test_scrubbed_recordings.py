"""Recordings hold no secret, and are not saved if they would."""

from __future__ import annotations

import base64
import json
import urllib.parse

import pytest
import requests

from gemini_sync import Endpoints, GeminiDualAdapter, OAuthClient
from gemini_sync.testing import CassetteError, Emulator, record, replay
from gemini_sync.testing.cassette.storing import save
from gemini_sync.testing.cassette.values import Body, Exchange, Request, Response
from tests.testing.canaries import (
    CLIENT_ID,
    CLIENT_SECRET,
    EMAIL,
    KEY,
    PROJECT,
    REFRESH,
    SECRETS,
    TOKEN,
    assert_clean,
    spellings,
)
from tests.testing.cassette_kit import QUICK, SSE, ask, exchange, outcome, tape_of
from tests.testing.test_record_replay import ANSWERS, FAULTS, fault_arguments


@pytest.fixture
def canaries(tmp_path):
    emulator = Emulator(key=KEY, client_id=CLIENT_ID, client_secret=CLIENT_SECRET)
    emulator.accounts.token_prefix = TOKEN + "-"
    emulator.project = PROJECT
    with emulator:
        yield emulator


def use(emulator, credentials, prompt="Why?"):
    with GeminiDualAdapter(
        emulator.key,
        credentials,
        oauth_client=OAuthClient(CLIENT_ID, CLIENT_SECRET),
        endpoints=Endpoints(**emulator.urls),
        on_fallback=lambda event: None,
        sleep=lambda seconds: None,
        **QUICK,
    ) as adapter:
        return outcome(adapter.stream(prompt)), outcome(adapter.stream(prompt))


CASES = {
    **{name: ("answer", fields) for name, fields in ANSWERS.items()},
    **{f"fault {name}": fault for name, fault in FAULTS.items()},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_recording__holds_no_canary(canaries, tmp_path, case):
    kind, fields = case
    if kind == "answer":
        canaries.oauth.answer(**fields)
    else:
        kind, arguments = fault_arguments(case)
        canaries.oauth.fail(kind, times=1, **arguments)
    credentials = canaries.write_credentials(tmp_path / "creds.json", expires_in=-60)
    stored = json.loads(credentials.read_text())
    tokens = (stored["access_token"], stored["refresh_token"])
    with record(tmp_path / "a.yaml"):
        use(canaries, credentials, f"I am {EMAIL}. My key is {KEY}.")
    assert len(assert_clean(tmp_path / "a.yaml", (*SECRETS, *tokens)).exchanges) >= 3


@pytest.mark.parametrize("place", ["text", "error", "header", "error event", "quoted form"])
def test_recording__in_which_the_server_repeats_them(canaries, tmp_path, place):
    said = " ; ".join(form for secret in SECRETS for form in spellings(secret))
    if place == "text":
        canaries.oauth.answer(
            chunks=[{"candidates": [{"content": {"parts": [{"text": said}]}, "finishReason": "STOP"}]}]
        )
    elif place == "error":
        canaries.oauth.fail(400, message=said, times=None)
    elif place == "header":
        canaries.oauth.answer(text="Hi", headers={"X-Goog-Request-Id": KEY, "Set-Cookie": f"a={TOKEN}"})
    elif place == "error event":
        canaries.oauth.fail("error_event", after=1, message=said, times=None)
    else:
        canaries.token.fail(
            400, body=f"bad form: {urllib.parse.quote_plus(REFRESH)} {CLIENT_SECRET}".encode(), times=None
        )
    credentials = canaries.write_credentials(tmp_path / "creds.json", expires_in=-60)
    with record(tmp_path / "a.yaml"):
        use(canaries, credentials)
    assert_clean(tmp_path / "a.yaml")


def test_recording__can_be_read_in_a_review(canaries, tmp_path):
    canaries.api_key.answer(text="The answer is forty-two, said Jürgen.")
    with record(tmp_path / "a.yaml"):
        "".join(ask(canaries.urls, "api_key", KEY, "What is the answer?"))
    lines = (tmp_path / "a.yaml").read_text().splitlines()
    assert any('"text": "What is the answer?"' in line for line in lines)
    assert any("said J" in line and line.strip().startswith("data: {") for line in lines)
    assert "      x-goog-api-key: API-KEY-1" in lines


def test_environment__at_both_ends_of_the_block_counts(canaries, tmp_path, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "key-before-the-block")
    canaries.api_key.answer(text="key-before-the-block key-inside-the-block")
    with record(tmp_path / "a.yaml"):
        monkeypatch.setenv("GEMINI_API_KEY", "key-inside-the-block")
        "".join(ask(canaries.urls, "api_key", KEY))
    assert_clean(tmp_path / "a.yaml", ("key-before-the-block", "key-inside-the-block"))


def test_compressed_answers__are_recorded_in_the_clear(canaries, tmp_path):
    canaries.api_key.fail("gzip", times=None)
    canaries.api_key.answer(text=f"It is {KEY}.")
    with record(tmp_path / "a.yaml"):
        live = "".join(ask(canaries.urls, "api_key", KEY))
    canaries.stop()
    assert live == f"It is {KEY}."
    assert_clean(tmp_path / "a.yaml")
    with replay(tmp_path / "a.yaml"):
        assert "".join(ask(canaries.urls, "api_key", "a-key")) == "It is API-KEY-1."


def test_requests_of_other_code__lose_their_credentials_as_well(canaries, tmp_path):
    with record(tmp_path / "a.yaml"):
        requests.get(
            canaries.url + f"/x?key={urllib.parse.quote(KEY)}", auth=("canary-user", "canary-password"), timeout=5
        )
        requests.get(canaries.url + "/y", headers={"Cookie": "session=canary-cookie", "X-Api-Key": "canary"}, timeout=5)
    assert "canary" not in (tmp_path / "a.yaml").read_text().lower()


@pytest.mark.parametrize(
    "put",
    [
        lambda secret: secret,
        lambda secret: urllib.parse.quote(secret, safe=""),
        lambda secret: json.dumps(json.dumps(secret)),
        lambda secret: base64.b64encode(b"xy" + secret.encode() + b"z").decode(),
        lambda secret: base64.urlsafe_b64encode(b"x" + secret.encode()).decode(),
        lambda secret: "".join(char if char.isalnum() else f"\\u{ord(char):04x}" for char in secret),
    ],
    ids=["plain", "URL", "JSON", "base64", "base64 for URLs", "escapes"],
)
@pytest.mark.parametrize("where", ["request", "response", "url"])
def test_saving__refuses_while_a_secret_is_left(canaries, tmp_path, where, put):
    """A scrubber of the user's own brings one back."""

    def bring_back(found):
        request, response = found.request, found.response
        if where == "request":
            request = Request(request.method, request.url, {}, put(KEY).encode())
        elif where == "url":
            request = Request(request.method, request.url + "&x=" + put(KEY).replace('"', ""), {}, b"")
        else:
            response = Response(200, SSE, Body((put(KEY).encode(),)))
        return Exchange(request, response)

    refused = pytest.raises(CassetteError, match="was not saved, because it would hold secrets: API-KEY in ")
    with refused as caught, record(tmp_path / "a.yaml", scrub=[bring_back]):
        "".join(ask(canaries.urls, "api_key", KEY))
    assert KEY not in str(caught.value)
    assert not (tmp_path / "a.yaml").exists()


def test_saving__looks_at_what_another_recording_has_written(canaries, tmp_path):
    save(tape_of(exchange(body=KEY.encode())), tmp_path / "a.yaml")
    with pytest.raises(CassetteError, match="API-KEY in"), record(tmp_path / "a.yaml", keep=True):
        "".join(ask(canaries.urls, "api_key", KEY))
