"""Tests of one refresh: what is tried again, how often and how long, and what each failure says."""

from __future__ import annotations

import gc
import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from gemini_sync.auth.token_endpoint import TokenAnswer, refresh
from gemini_sync.config import OAuthClient, Timeouts
from gemini_sync.errors import DeadlineExceeded, ProtocolError, RefreshError, StreamInterrupted, TransportError
from gemini_sync.network.cancelling import Call
from gemini_sync.network.exchange import Answer
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import Emulator
from tests.auth.credentials_kit import CLIENT, Clock, Counter, ScriptedTransport, Slept

_URL = "https://token.example/token"


def _ask(transport: Any, slept: Any = None, *, quick: bool = False, call: Any = None) -> TokenAnswer:
    call = call or Call(sleep=Slept() if slept is None else slept)
    return refresh(transport, _URL, "kit-refresh", CLIENT, call, quick=quick)


def _emulated(emulator: Emulator, slept: Slept, **timeouts: Any) -> TokenAnswer:
    client = OAuthClient(emulator.client_id, emulator.client_secret)
    refresh_token = emulator.issue_refresh_token()
    call = Call(Timeouts(**timeouts), sleep=slept)
    return refresh(Transport(), emulator.urls["token"], refresh_token, client, call)


def _answer(status: int, body: Any, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, body if isinstance(body, str) else json.dumps(body))


def test_refresh__sends_the_form(emulator: Emulator) -> None:
    answer = _emulated(emulator, Slept())
    (request,) = emulator.token.requests
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert b"grant_type=refresh_token&refresh_token=emulator-refresh-token" in request.body
    assert answer.access_token == "emulator-access-token-2"
    assert answer.lifetime == 3599
    assert answer.refresh_token is None
    assert sorted(answer.fields) == ["id_token", "scope", "token_type"]


@pytest.mark.parametrize("kind", [503, 500, 429, 408, 502, 504, 501, "reset", "cut", "half_headers", "html", "empty"])
def test_refresh__transient_failure_is_tried_again(emulator: Emulator, kind: Any) -> None:
    emulator.token.fail(kind, times=2, **({"at": 3} if kind == "cut" else {}))
    slept = Slept()
    assert _emulated(emulator, slept).access_token.startswith("emulator-access-token")
    assert len(emulator.token.requests) == 3
    assert len(slept) == 2


def test_refresh__silent_endpoint_is_tried_again(emulator: Emulator) -> None:
    emulator.token.fail("stall", times=2)
    # An answer may take 20 s. The total deadline of this call comes first, and its error is not tried again.
    with pytest.raises(DeadlineExceeded) as caught:
        refresh(Transport(), emulator.urls["token"], "any", CLIENT, Call(Timeouts(total=0.1)).start())
    assert (caught.value.deadline, caught.value.seconds) == ("total", 0.1)
    slow = DeadlineExceeded("no answer", deadline="first_token", seconds=20)
    transport = ScriptedTransport(slow, slow, Counter())
    assert _ask(transport).access_token == "kit-access-1"


@pytest.mark.parametrize("error", ["internal_failure", "server_error", "temporarily_unavailable"])
def test_refresh__transient_error_code_is_tried_again(error: str) -> None:
    transport = ScriptedTransport(_answer(400, {"error": error}), Counter())
    assert _ask(transport).access_token == "kit-access-1"


def test_refresh__three_tries_at_most(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    emulator.token.fail(503, times=None)
    slept = Slept()
    with caplog.at_level(logging.INFO), pytest.raises(RefreshError) as caught:
        _emulated(emulator, slept)
    assert caught.value.code == 503
    assert len(emulator.token.requests) == 3
    assert 0.25 <= slept[0] <= 0.5 <= slept[1] <= 1.0
    retries = [record for record in caplog.records if record.name == "gemini_sync.retrying"]
    assert [record.levelname for record in retries] == ["INFO", "INFO"]
    assert "503" in retries[0].getMessage()
    assert "try 1 failed" in retries[0].getMessage()


def test_refresh__sixty_seconds_at_most() -> None:
    clock = Clock()
    transport = ScriptedTransport(lambda: (clock.advance(29.8), _answer(503, ""))[1])
    with pytest.raises(RefreshError):
        _ask(transport, call=Call(clock=clock, sleep=Slept(clock)))
    assert len(transport.forms) == 2


class _Waiting(ScriptedTransport):
    """A transport that keeps how long each try may wait for its answer."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(*answers)
        self.seconds: list[float] = []

    def fetch(self, *arguments: Any, seconds: float, **rest: Any) -> Answer:
        self.seconds.append(seconds)
        return super().fetch(*arguments, **rest)


@pytest.mark.parametrize(("quick", "seconds"), [(False, 20.0), (True, 5.0)], ids=["plain", "quick"])
def test_refresh__one_answer_may_take_so_long(quick: bool, seconds: float) -> None:
    transport = _Waiting(Counter())
    _ask(transport, quick=quick, call=Call(clock=Clock(0.0)))
    assert transport.seconds == [seconds]


def test_refresh__late_try_ends_with_the_sixty_seconds() -> None:
    clock = Clock(0.0)
    slept = Slept(clock)
    transport = _Waiting(lambda: (clock.advance(50), _answer(503, ""))[1], Counter())
    _ask(transport, call=Call(clock=clock, sleep=slept))
    assert transport.seconds == [20.0, 60.0 - (50 + slept[0])]


def test_refresh__hint_is_kept(emulator: Emulator) -> None:
    emulator.token.fail(429, headers={"Retry-After": "7"})
    slept = Slept()
    _emulated(emulator, slept)
    assert len(slept) == 1
    assert 7.0 <= slept[0] <= 7.0 * 1.2


def test_refresh__long_hint_ends_it(emulator: Emulator) -> None:
    emulator.token.fail(503, headers={"Retry-After": "11"}, times=None)
    with pytest.raises(RefreshError) as caught:
        _emulated(emulator, Slept())
    assert caught.value.retry_after == 11.0
    assert len(emulator.token.requests) == 1


@pytest.mark.parametrize("error", ["invalid_grant", "invalid_client", "unauthorized_client", "invalid_scope"])
@pytest.mark.parametrize("code", [400, 401, 503])
def test_refresh__refusal_is_final(error: str, code: int) -> None:
    transport = ScriptedTransport(_answer(code, {"error": error, "error_description": "No."}))
    with pytest.raises(RefreshError, match="No") as caught:
        _ask(transport)
    assert (caught.value.code, caught.value.reason) == (code, error)
    assert len(transport.forms) == 1


def test_refresh__refusals_say_what_to_do(emulator: Emulator) -> None:
    emulator.token.fail(400, error="invalid_grant", error_subtype="invalid_rapt", description="reauth needed")
    with pytest.raises(RefreshError, match="Log in again") as caught:
        _emulated(emulator, Slept())
    assert caught.value.reason == "invalid_rapt"
    with pytest.raises(RefreshError, match="Check the OAuth client"):
        refresh(Transport(), emulator.urls["token"], "any", CLIENT, Call())
    assert len(emulator.token.requests) == 2


@pytest.mark.parametrize("expires_in", [0, -5, "0", "soon", True, [], {}, float("nan"), float("inf"), "1e999", 10**400])
def test_refresh__no_lifetime(expires_in: Any) -> None:
    transport = ScriptedTransport(Counter(expires_in))
    with pytest.raises(RefreshError, match="expires_in"):
        _ask(transport)
    assert len(transport.forms) == 3


@pytest.mark.parametrize(
    ("expires_in", "lifetime"), [("3599", 3599.0), (" 60 ", 60.0), (1.5, 1.5), (None, 300.0)], ids=repr
)
def test_refresh__lifetime(expires_in: Any, lifetime: float) -> None:
    assert _ask(ScriptedTransport(Counter(expires_in))).lifetime == lifetime


def test_refresh__lifetime_missing() -> None:
    assert _ask(ScriptedTransport({"access_token": "kit-access"})).lifetime == 300.0


@pytest.mark.parametrize(
    "body",
    [
        "<html>Sign in</html>",
        "",
        "[]",
        '"text"',
        "[" * 100_000,
        "{}",
        '{"access_token": "", "expires_in": 9}',
        '{"access_token": "two words", "expires_in": 9}',
        '{"access_token": "a\\nb", "expires_in": 9}',
        '{"access_token": 7, "expires_in": 9}',
    ],
    ids=lambda body: body[:30],
)
def test_refresh__no_token_in_the_answer(body: str) -> None:
    gc.collect()  # in the deep recursion of the parser, nothing of earlier tests can be finalized
    transport = ScriptedTransport(_answer(200, body, Content_Type="text/plain"))
    with pytest.raises(RefreshError) as caught:
        _ask(transport)
    assert caught.value.code == 200
    assert "two words" not in str(caught.value)
    assert len(transport.forms) == 3


def test_refresh__refusal_inside_200_is_final() -> None:
    transport = ScriptedTransport(_answer(200, {"error": "invalid_grant"}))
    with pytest.raises(RefreshError, match="Log in again") as caught:
        _ask(transport)
    assert caught.value.reason == "invalid_grant"
    assert len(transport.forms) == 1


def test_refresh__new_refresh_token_is_passed_on() -> None:
    assert _ask(ScriptedTransport(Counter(refresh_token="kit-other"))).refresh_token == "kit-other"
    assert _ask(ScriptedTransport(Counter(refresh_token=""))).refresh_token is None


def test_refresh__redirect_is_not_followed(emulator: Emulator) -> None:
    with Emulator() as other:
        emulator.token.fail(307, headers={"Location": other.urls["token"]}, times=None)
        with pytest.raises(RefreshError, match=r"redirect to 127\.0\.0\.1") as caught:
            _emulated(emulator, Slept())
        assert other.requests == []
    assert caught.value.code == 307
    assert isinstance(caught.value.__cause__, ProtocolError)
    assert len(emulator.token.requests) == 1


def test_refresh__nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    slept = Slept()
    with pytest.raises(RefreshError, match="could not be refreshed") as caught:
        refresh(Transport(), f"http://127.0.0.1:{port}/token", "any", CLIENT, Call(sleep=slept))
    assert isinstance(caught.value.__cause__, TransportError)
    assert len(slept) == 2


def test_refresh__untrusted_certificate_surfaces() -> None:
    error = TransportError("not verified", reason="CERTIFICATE_VERIFY_FAILED")
    transport = ScriptedTransport(error)
    with pytest.raises(TransportError) as caught:
        _ask(transport)
    assert caught.value is error
    assert len(transport.forms) == 1


def test_refresh__quick_is_one_try() -> None:
    transport = ScriptedTransport(_answer(503, "busy"))
    with pytest.raises(RefreshError, match=r"503 \(busy\)"):
        _ask(transport, quick=True)
    assert len(transport.forms) == 1


def test_refresh__cancelled_between_tries() -> None:
    call = Call(sleep=Slept(hook=lambda: call.cancel()))
    transport = ScriptedTransport(_answer(503, ""))
    with pytest.raises(StreamInterrupted):
        _ask(transport, call=call)
    assert len(transport.forms) == 1


def test_refresh__interrupt_is_not_tried_again() -> None:
    transport = ScriptedTransport(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        _ask(transport)
    assert len(transport.forms) == 1


def test_refresh__echoed_secrets_are_removed() -> None:
    client = OAuthClient("kit-client-id", "kit/secret+canary")
    said = "bad: refresh_token=kit%2Frefresh%2Bcanary&client_secret=kit%2Fsecret%2Bcanary kit/refresh+canary"
    for body in (said, {"error": "kit/secret+canary", "error_description": said}):
        with pytest.raises(RefreshError) as caught:
            refresh(ScriptedTransport(_answer(400, body)), _URL, "kit/refresh+canary", client, Call(sleep=Slept()))
        assert "canary" not in str(caught.value)
        assert "canary" not in str(caught.value.reason)


def test_matrix__token_faults_are_all_here(corpus: Path) -> None:
    faults = json.loads((corpus / "fault_matrix.json").read_text())
    names = {fault["name"] for fault in faults if fault["group"] == "token"}
    assert names == {
        "token_503_then_ok",  # transient_failure_is_tried_again, silent_endpoint_is_tried_again
        "token_invalid_grant",  # refusal_is_final, refusals_say_what_to_do
        "token_garbage_200",  # no_lifetime, lifetime, no_token_in_the_answer
        "token_redirect_307",  # redirect_is_not_followed
        "token_down_but_valid",  # in test_credentials.py
    }
