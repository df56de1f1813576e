"""No error, event, log record or pickle shows a credential, even if the server quotes it and logging is at DEBUG."""

from __future__ import annotations

import logging
import pickle
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemini_sync import BlockedError, GeminiSyncError
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Rig
from tests.auth.credentials_kit import together, told

KEY, CLIENT_SECRET = "canary+api/key=1", "canary+client/secret=2"
ACCESS_TOKEN, REFRESH_TOKEN = "emulator-access-token", "emulator-refresh-token"
CANARIES = (KEY, CLIENT_SECRET, ACCESS_TOKEN, REFRESH_TOKEN, *map(urllib.parse.quote_plus, (KEY, CLIENT_SECRET)))

# Answers of a server that quotes the credentials it got; {echo} stands for them.
FAULTS: dict[str, tuple[Any, dict[str, Any]]] = {
    **{f"{code} echo": (code, {"message": "You sent {echo}."}) for code in (400, 401, 403, 404, 409, 429, 500, 503)},
    "reason": (403, {"reason": "{echo}", "metadata": {"sent": "{echo}"}}),
    "status": (403, {"status": "{echo}"}),
    "link": (403, {"link": "https://example.com/?q={echo}"}),
    "details": (429, {"retry_delay": "60s", "details": [{"@type": "x", "sent": ["{echo}"]}]}),
    "field": (400, {"fields": {"{echo}": "{echo}"}}),
    "text body": (500, {"body": b"<p>{echo}</p>", "content_type": "text/html"}),
    "page as 200": ("html", {}),
    "redirect": (307, {"headers": {"Location": "https://evil.example/?token={echo}"}}),
    "error event": ("error_event", {"code": 403, "message": "{echo}"}),
    "error event in the middle": ("error_event", {"after": 2, "code": 503, "message": "{echo}"}),
    "bare error in the middle": ("error_json", {"after": 2, "code": 403, "message": "{echo}", "reason": "{echo}"}),
    "no JSON": ("garbage_event", {"data": b"{echo}"}),
    "no JSON in the middle": ("garbage_event", {"after": 2, "data": b"{echo}"}),
    "cut": ("cut", {"after": 2}),
    "reset": ("reset", {}),
    "half the headers": ("half_headers", {}),
    "empty": ("empty", {}),
    "gzip cut off": ("gzip", {"truncate": True}),
}  # fmt: skip


def echoed(value: Any, secrets: str) -> Any:
    if isinstance(value, str):
        return value.replace("{echo}", secrets)
    if isinstance(value, bytes):
        return value.replace(b"{echo}", secrets.encode())
    if isinstance(value, dict):
        return {echoed(name, secrets): echoed(item, secrets) for name, item in value.items()}
    return [echoed(item, secrets) for item in value] if isinstance(value, list) else value


def sent_to(route: str, rig: Rig) -> str:
    """The credentials that are sent to a route, as its server would quote them."""
    by_route = {"api_key": KEY, "token": f"{file_token(rig, 'refresh')} {CLIENT_SECRET}"}
    return by_route.get(route, file_token(rig, "access"))


def file_token(rig: Rig, kind: str) -> str:
    lines = rig.path.read_text().splitlines()
    return next(line.split('"')[3] for line in lines if f'"{kind}_token"' in line)


@pytest.fixture
def rig(tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[Rig]:
    caplog.set_level(logging.DEBUG)
    with Emulator(key=KEY, client_secret=CLIENT_SECRET) as emulator:
        # After a 401 the adapter sends a second token, but the server still quotes the first one. Only its form shows
        # that it is a token.
        if "401" in request.node.name:
            emulator.accounts.token_prefix = "ya29."
        with Rig(emulator, tmp_path) as rig:
            yield rig


def check_silence(rig: Rig, caplog: pytest.LogCaptureFixture, *shown: object) -> None:
    """No canary is in ``shown``, in the log, or in an event."""
    texts = [caplog.text, *(str(event) + repr(event) for event in rig.flips)]
    for item in shown:
        texts += [repr(item), str(item)]
        if isinstance(item, BaseException):
            texts += [told(item), *(told(attempt.error) for attempt in item.attempts if attempt.error)]  # type: ignore[attr-defined]
            texts.append(pickle.dumps(item).decode("latin-1"))
    for canary in CANARIES:
        assert not [text for text in texts if canary in text]


def failures(rig: Rig) -> list[Any]:
    """The replies, errors, adapters and statuses with both routes, with OAuth alone and with the key alone."""
    found: list[Any] = []
    for changes in ({}, {"api_key": None}, {"oauth_creds_path": None}):
        adapter = rig.adapter(**changes)
        for method in (adapter.generate, adapter.count_tokens):
            try:
                found.append(method("Hi"))
            except GeminiSyncError as exc:
                found.append(exc)
        found += [adapter, adapter.route_status()]
    return found


@pytest.mark.parametrize(("kind", "arguments"), FAULTS.values(), ids=FAULTS)
def test_failure__of_a_route_shows_no_secret(
    rig: Rig, caplog: pytest.LogCaptureFixture, kind: Any, arguments: dict[str, Any]
) -> None:
    for route in ("oauth", "api_key"):
        getattr(rig.emulator, route).fail(kind, times=None, **echoed(arguments, sent_to(route, rig)))
    shown = failures(rig)
    assert sum(isinstance(item, GeminiSyncError) for item in shown) >= 3
    check_silence(rig, caplog, *shown)


@pytest.mark.parametrize("route", ["load_code_assist", "onboard", "token"])
@pytest.mark.parametrize(
    "fault", ["400 echo", "401 echo", "403 echo", "503 echo", "reason", "text body", "redirect", "reset"]
)
def test_failure__before_a_route_shows_no_secret(
    rig: Rig, caplog: pytest.LogCaptureFixture, route: str, fault: str
) -> None:
    kind, arguments = FAULTS[fault]
    if route == "token":
        rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
    rig.emulator.tier = None
    echo = sent_to(route, rig)
    getattr(rig.emulator, route).fail(kind, times=None, **echoed(arguments, echo))
    shown = failures(rig)
    assert any(isinstance(item, GeminiSyncError) for item in shown)
    assert rig.flips or fault == "redirect"
    check_silence(rig, caplog, *shown)


@pytest.mark.parametrize("escape", ["/", "all"])
def test_echo__escaped_in_json_shows_no_secret(rig: Rig, caplog: pytest.LogCaptureFixture, escape: str) -> None:
    """Some servers write \\/ for a slash, and those of Google write \\u003d for an equals sign."""
    for route in ("oauth", "api_key"):
        secret = sent_to(route, rig)
        secret = secret.replace("/", "\\/") if escape == "/" else "".join(f"\\u{ord(c):04x}" for c in secret)
        body = '{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "You sent SECRET."}}'
        getattr(rig.emulator, route).fail(403, times=None, body=body.replace("SECRET", secret).encode())
    shown = failures(rig)
    assert sum("You sent" in str(item) for item in shown) >= 3
    check_silence(rig, caplog, *shown)


@pytest.mark.parametrize("echo", ["plain", "quoted"])
def test_refused_refresh__shows_no_secret(rig: Rig, caplog: pytest.LogCaptureFixture, echo: str) -> None:
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
    form = f"{file_token(rig, 'refresh')} {CLIENT_SECRET}"
    form = form if echo == "plain" else urllib.parse.quote_plus(form)
    rig.emulator.token.fail(400, times=None, error="invalid_grant", error_subtype=form, description=f"Sent: {form}")
    shown = failures(rig)
    assert any("Sent:" in str(item) for item in shown)
    check_silence(rig, caplog, *shown)


@pytest.mark.parametrize("refused", ["prompt", "answer"])
@pytest.mark.parametrize("route", ["oauth", "api_key"])
def test_blocked__shows_no_secret(rig: Rig, caplog: pytest.LogCaptureFixture, route: str, refused: str) -> None:
    said = f"You sent {sent_to(route, rig)}."
    if refused == "prompt":
        chunk: dict[str, Any] = {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": said}}
    else:
        chunk = {"candidates": [{"finishReason": "SAFETY", "finishMessage": said}]}
    getattr(rig.emulator, route).answer(chunks=[chunk])
    with pytest.raises(BlockedError, match="You sent") as caught:
        rig.adapter(**({} if route == "oauth" else {"oauth_creds_path": None})).generate("Hi")
    texts = [caplog.text, str(caught.value), repr(caught.value), str(caught.value.finish_message)]
    assert not [canary for canary in CANARIES if any(canary in text for text in texts)]


def test_many_401s__at_once_show_no_secret(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for route in ("oauth", "api_key"):
        getattr(rig.emulator, route).fail(401, times=None, message=f"You sent {sent_to(route, rig)}.")
    adapter = rig.adapter()
    errors = together(20, lambda: adapter.generate("Hi"))
    assert all(isinstance(error, GeminiSyncError) for error in errors)
    check_silence(rig, caplog, adapter, *errors)


def test_success__shows_no_secret(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
    adapter = rig.adapter()
    replies = [adapter.generate("Hi")]
    rig.emulator.oauth.fail(403)
    replies.append(adapter.generate("Hi"))
    assert [reply.route for reply in replies] == ["oauth", "api_key"]
    check_silence(rig, caplog, adapter, adapter.route_status(), *replies)
    assert not any(canary.encode() in pickle.dumps(reply) for reply in replies for canary in CANARIES)
    assert "POST" in caplog.text  # the log holds the DEBUG records of urllib3
