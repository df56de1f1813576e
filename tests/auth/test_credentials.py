"""Tests of one shared token: the times before its expiry, recent failures, refused tokens, what is a source."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gemini_sync.auth.credentials import Credentials, get_access_token
from gemini_sync.config import Endpoints, OAuthClient
from gemini_sync.environment import oauth_client_from
from gemini_sync.errors import (
    ConfigError,
    CredentialsError,
    DeadlineExceeded,
    RefreshError,
    StreamInterrupted,
    TransportError,
)
from gemini_sync.network.exchange import Answer
from gemini_sync.testing.emulator import Emulator
from tests.auth.credentials_kit import Clock, Counter, ScriptedTransport, fetch, scripted, warnings_in, write_file

_DOWN = Answer(503, {}, "down")
_REFUSED = Answer(400, {}, '{"error": "invalid_grant"}')


@pytest.mark.parametrize(
    ("lifetime", "early", "unusable"), [(3600, 225, 30), (36000, 225, 30), (360, 22.5, 3), (16, 1, 0.1333)]
)
def test_fetch__windows_go_with_the_lifetime(
    path: Path, clock: Clock, lifetime: float, early: float, unusable: float
) -> None:
    write_file(path, left=-5)
    transport = ScriptedTransport(Counter(lifetime), _DOWN)
    credentials = scripted(path, transport, clock)
    fetch(credentials)
    clock.advance(lifetime - early - 0.01)
    assert fetch(credentials) == "kit-access-1"
    assert len(transport.forms) == 1
    clock.advance(0.02)
    assert fetch(credentials) == "kit-access-1"
    assert len(transport.forms) == 2
    clock.advance(early - unusable - 0.02)
    assert fetch(credentials) == "kit-access-1"
    clock.advance(0.02)
    with pytest.raises(RefreshError):
        fetch(credentials)


def test_fetch__token_is_over_with_the_very_second_of_the_mandatory_window(path: Path, clock: Clock) -> None:
    write_file(path, left=30)
    with pytest.raises(RefreshError):
        fetch(scripted(path, ScriptedTransport(_DOWN), clock))


def test_fetch__ahead_of_expiry_refreshes(path: Path, clock: Clock) -> None:
    write_file(path, left=200)
    transport = ScriptedTransport(Counter())
    credentials = scripted(path, transport, clock)
    assert [fetch(credentials), fetch(credentials)] == ["kit-access-1"] * 2
    assert len(transport.forms) == 1


def test_fetch__failure_ahead_of_expiry_is_one_warning(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    write_file(path, left=90)
    transport = ScriptedTransport(_DOWN)
    credentials = scripted(path, transport, clock)
    assert [fetch(credentials) for _ in range(5)] == ["file-access-token"] * 5
    (warning,) = warnings_in(caplog)
    assert "serves for 90 s more" in warning
    assert "503" in warning
    clock.advance(29.9)
    fetch(credentials)
    assert len(transport.forms) == 1
    clock.advance(0.2)
    fetch(credentials)
    assert len(transport.forms) == len(warnings_in(caplog)) == 2


def test_fetch__clock_set_back_does_not_put_off_the_next_try(path: Path, clock: Clock) -> None:
    write_file(path, left=90)
    transport = ScriptedTransport(_DOWN, Counter())
    credentials = scripted(path, transport, clock)
    fetch(credentials)
    clock.advance(-10)
    assert fetch(credentials) == "kit-access-1"


def test_fetch__untrusted_certificate_ahead_of_expiry_costs_nothing(path: Path, clock: Clock) -> None:
    write_file(path, left=90)
    error = TransportError("not verified", reason="CERTIFICATE_VERIFY_FAILED")
    credentials = scripted(path, ScriptedTransport(error), clock)
    assert fetch(credentials) == "file-access-token"
    clock.advance(90)
    with pytest.raises(TransportError, match="not verified"):
        fetch(credentials)


def test_fetch__missing_client_ahead_of_expiry_costs_nothing(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    write_file(path, left=90)
    assert fetch(scripted(path, ScriptedTransport(), clock, oauth_client=None)) == "file-access-token"
    assert "GEMINI_OAUTH_CLIENT_ID" in warnings_in(caplog)[0]


@pytest.mark.parametrize("left", [90, -5], ids=["early", "expired"])
def test_fetch__what_ends_the_call_ends_it_alone(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, left: float
) -> None:
    write_file(path, left=left)
    total = DeadlineExceeded("over", deadline="total", seconds=1)
    credentials = scripted(path, ScriptedTransport(total, StreamInterrupted("", cancelled=True), Counter()), clock)
    with pytest.raises(DeadlineExceeded):
        fetch(credentials)
    with pytest.raises(StreamInterrupted):
        fetch(credentials)
    assert fetch(credentials) == "kit-access-1"
    assert warnings_in(caplog) == []


def test_fetch__failure_stands_for_a_second(path: Path, clock: Clock) -> None:
    write_file(path, left=-500)
    transport = ScriptedTransport(_REFUSED)
    credentials = scripted(path, transport, clock)
    errors = []
    for seconds in (0, 0, 0.9):
        clock.advance(seconds)
        with pytest.raises(RefreshError) as caught:
            fetch(credentials)
        errors.append(caught.value)
    assert len(transport.forms) == 1
    assert len(set(map(id, errors))) == 3
    assert {error.reason for error in errors} == {"invalid_grant"}
    clock.advance(0.2)
    with pytest.raises(RefreshError):
        fetch(credentials)
    assert len(transport.forms) == 2
    clock.advance(-100)  # a clock set back does not make the failure stand longer
    with pytest.raises(RefreshError):
        fetch(credentials)
    assert len(transport.forms) == 3


def test_fetch__failure_stands_no_longer_than_the_file(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    transport = ScriptedTransport(_REFUSED, Counter())
    credentials = scripted(path, transport, clock)
    with pytest.raises(RefreshError):
        fetch(credentials)
    write_file(path, left=-4, refresh_token="of-another-login")
    assert fetch(credentials) == "kit-access-1"


def test_fetch__token_that_is_over_at_once_is_no_loop(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    transport = ScriptedTransport(Counter(1e-9))
    credentials = scripted(path, transport, clock)
    assert fetch(credentials) == "kit-access-1"
    clock.advance(1)
    assert fetch(credentials) == "kit-access-2"
    assert len(transport.forms) == 2


def test_invalidate__gives_another_token_once(path: Path, clock: Clock) -> None:
    transport = ScriptedTransport(Counter())
    credentials = scripted(path, transport, clock)
    assert fetch(credentials) == "file-access-token"
    credentials.invalidate("file-access-token")
    assert fetch(credentials) == "kit-access-1"
    credentials.invalidate("file-access-token")  # a slow thread, which reports the older token only now
    assert fetch(credentials) == "kit-access-1"
    assert len(transport.forms) == 1


def test_invalidate__remembers_so_many(path: Path, clock: Clock) -> None:
    credentials = scripted(path, ScriptedTransport(Counter()), clock)
    for number in range(1000):
        credentials.invalidate(f"older-{number}")
    assert len(credentials._refused) <= 64
    credentials.invalidate("file-access-token")
    assert fetch(credentials) == "kit-access-1"


def test_invalidate__ahead_of_expiry(path: Path, clock: Clock) -> None:
    write_file(path, left=90)
    credentials = scripted(path, ScriptedTransport(_DOWN), clock)
    credentials.invalidate("file-access-token")
    with pytest.raises(RefreshError):  # the old token was refused, so it does not serve
        fetch(credentials)


def test_invalidate__same_token_again_is_used(path: Path, clock: Clock) -> None:
    transport = ScriptedTransport({"access_token": "file-access-token", "expires_in": 3600})
    credentials = scripted(path, transport, clock)
    credentials.invalidate("file-access-token")
    assert [fetch(credentials), fetch(credentials)] == ["file-access-token"] * 2
    assert len(transport.forms) == 1


def test_invalidate__token_of_a_sibling_serves(path: Path, clock: Clock) -> None:
    credentials = scripted(path, ScriptedTransport(), clock)
    credentials.invalidate(fetch(credentials))
    write_file(path, left=7200, access_token="of-a-sibling")
    assert fetch(credentials) == "of-a-sibling"


def test_credentials_for__path(home: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    write_file(home / "c.json")
    monkeypatch.chdir(home)
    for given in ("~/c.json", "c.json", Path("c.json"), home / "c.json"):
        credentials = scripted(given, ScriptedTransport(), clock)
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir("/")
            assert fetch(credentials) == "file-access-token"


@pytest.mark.parametrize("given", [None, 7, b"path", ("credentials", "project"), object()], ids=repr)
def test_credentials_for__no_source(given: Any, clock: Clock) -> None:
    with pytest.raises(ConfigError, match="google-auth Credentials object, not"):
        scripted(given, ScriptedTransport(), clock)


@pytest.mark.parametrize("rest", [{}, {"invalidate": None}, {"invalidate": "no method"}], ids=repr)
def test_credentials_for__token_source_that_cannot_be_told_of_a_refusal(rest: dict[str, Any], clock: Clock) -> None:
    with pytest.raises(ConfigError, match=r"token\(\) and invalidate\(token\)"):
        scripted(SimpleNamespace(token=lambda: "kit-1", **rest), ScriptedTransport(), clock)


@pytest.mark.parametrize("given", ["", "  ", "ya29.canary-canary", '{"refresh_token": "canary"}', "1//canary-canary"])
def test_credentials_for__no_path(given: str, clock: Clock) -> None:
    with pytest.raises(ConfigError, match="oauth_creds_path") as caught:
        scripted(given, ScriptedTransport(), clock)
    assert "canary" not in str(caught.value)


def test_oauth_client_from() -> None:
    both = {"GEMINI_OAUTH_CLIENT_ID": "the-id", "GEMINI_OAUTH_CLIENT_SECRET": "canary"}
    assert oauth_client_from(both) == OAuthClient("the-id", "canary")
    assert oauth_client_from({}) is None
    for blank in ("", " "):
        assert oauth_client_from({"GEMINI_OAUTH_CLIENT_ID": blank}) is None
        for name in both:
            with pytest.raises(ConfigError, match=f"{name} is not set") as caught:
                oauth_client_from({**both, name: blank})
            assert "canary" not in str(caught.value)


def test_get_access_token__of_the_environment(
    emulator: Emulator, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints = Endpoints(**emulator.urls)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", " ")
    with pytest.raises(CredentialsError, match=r"oauth_creds\.json"):
        get_access_token(endpoints=endpoints)
    default = emulator.write_credentials(home / ".gemini" / "oauth_creds.json", expires_in=-5)
    with pytest.raises(ConfigError, match="GEMINI_OAUTH_CLIENT_ID"):
        get_access_token(endpoints=endpoints)
    monkeypatch.setenv("GEMINI_OAUTH_CLIENT_ID", emulator.client_id)
    monkeypatch.setenv("GEMINI_OAUTH_CLIENT_SECRET", emulator.client_secret)
    token = get_access_token(endpoints=endpoints)
    assert token in default.read_text()
    named = emulator.write_credentials(tmp_path / "named.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(named))
    assert get_access_token(endpoints=endpoints) in named.read_text()
    assert get_access_token(default, endpoints=endpoints) == token
    assert len(emulator.token.requests) == 1


def test_get_access_token__given_client(emulator: Emulator, tmp_path: Path) -> None:
    path = emulator.write_credentials(tmp_path / "c.json", expires_in=-5)
    client = OAuthClient(emulator.client_id, emulator.client_secret)
    assert get_access_token(path, oauth_client=client, endpoints=Endpoints(**emulator.urls)) in path.read_text()
    assert emulator.wait_closed()


def test_token__is_a_token_source(path: Path, clock: Clock) -> None:
    inner = scripted(path, ScriptedTransport(Counter()), clock)
    outer: Credentials = scripted(inner, ScriptedTransport(), clock)
    assert inner.token() == fetch(outer) == "file-access-token"
    outer.invalidate("file-access-token")
    assert fetch(outer) == "kit-access-1"
