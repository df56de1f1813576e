"""Holds the sources that bring their own tokens together: callables, TokenSource objects, and the real google-auth."""

from __future__ import annotations

import datetime
import json
import ssl
import sys
import threading
from typing import Any, Optional

import google.auth.exceptions
import google.oauth2.credentials
import pytest
import trustme

from gemini_sync.auth.credentials import Credentials
from gemini_sync.auth.sources import GoogleAuthSource, Token
from gemini_sync.config import Timeouts
from gemini_sync.errors import (
    ConfigError,
    CredentialsError,
    DeadlineExceeded,
    RefreshError,
    StreamInterrupted,
    TransportError,
)
from gemini_sync.network.deadlines import Call
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Gate, in_thread
from tests.auth.credentials_kit import (
    Clock,
    ScriptedTransport,
    Watched,
    await_all,
    emulated,
    fetch,
    scripted,
    together,
    told,
)


def _of(source: Any) -> Credentials:
    return scripted(source, ScriptedTransport(AssertionError()), Clock())


def test_callable__is_asked_each_time() -> None:
    tokens = iter(["kit-1", " kit-2\n"])
    credentials = _of(lambda: next(tokens))
    assert credentials.fetch(Call()) == Token("kit-1", None)
    assert credentials.fetch(Call()) == Token("kit-2", None)


def test_callable__same_token_after_a_refusal() -> None:
    credentials = _of(lambda: "kit-only")
    credentials.invalidate("kit-only")
    assert [fetch(credentials), fetch(credentials)] == ["kit-only"] * 2


@pytest.mark.parametrize("given", [None, b"bytes", 7, "", "  ", "two words", "canary\nline"], ids=repr)
def test_callable__no_token(given: Any) -> None:
    with pytest.raises(CredentialsError, match="What the token source gave") as caught:
        fetch(_of(lambda: given))
    assert "canary" not in str(caught.value)


def test_callable__failure() -> None:
    def fail() -> str:
        raise LookupError("no agent at ya29.canary-canary")

    with pytest.raises(CredentialsError, match="LookupError: no agent") as caught:
        fetch(_of(fail))
    assert isinstance(caught.value.__cause__, LookupError)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("error", [RefreshError("ours"), ConfigError("ours"), KeyboardInterrupt()], ids=repr)
def test_callable__errors_that_stay_as_they_are(error: BaseException) -> None:
    def fail() -> str:
        raise error

    with pytest.raises(type(error)) as caught:
        fetch(_of(fail))
    assert caught.value is error


class _Source:
    def __init__(self) -> None:
        self.number, self.told = 1, []  # type: tuple[int, list[str]]

    def token(self) -> str:
        return f"kit-{self.number}"

    def invalidate(self, token: str) -> None:
        self.told.append(token)
        if token == "kit-9":
            raise OSError("no agent for kit-9")
        self.number += 1


def test_token_source__is_told_of_a_refusal() -> None:
    source = _Source()
    credentials = _of(source)
    assert fetch(credentials) == "kit-1"
    credentials.invalidate("kit-1")
    assert fetch(credentials) == "kit-2"
    assert source.told == ["kit-1"]


def test_token_source__failure_at_a_refusal() -> None:
    with pytest.raises(CredentialsError, match="OSError: no agent") as caught:
        _of(_Source()).invalidate("kit-9")
    assert "kit-9" not in str(caught.value)


def _google(emulator: Emulator, expires_in: Optional[float] = -5, **options: Any) -> Any:
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    expiry = None if expires_in is None else now + datetime.timedelta(seconds=expires_in)
    given = {
        "token": emulator.issue_token(expires_in or 3600),
        "refresh_token": emulator.issue_refresh_token(),
        "token_uri": emulator.urls["token"],
        "client_id": emulator.client_id,
        "client_secret": emulator.client_secret,
        "expiry": expiry,
        **options,
    }
    return google.oauth2.credentials.Credentials(**given)  # type: ignore[no-untyped-call]


def test_google_auth__twenty_threads_one_refresh(emulator: Emulator) -> None:
    theirs = _google(emulator)
    credentials = emulated(theirs, emulator)
    outcomes = together(20, lambda: credentials.fetch(Call()))
    assert set(outcomes) == {credentials.fetch(Call())}
    assert outcomes[0].access_token == theirs.token
    assert outcomes[0].expires_at == theirs.expiry.replace(tzinfo=datetime.timezone.utc).timestamp()
    assert len(emulator.token.requests) == 1


def test_google_auth__valid_token_needs_no_request(emulator: Emulator) -> None:
    for expires_in in (3600, None):
        theirs = _google(emulator, expires_in)
        assert fetch(emulated(theirs, emulator)) == theirs.token
    assert emulator.requests == []


def test_google_auth__no_token_yet(emulator: Emulator) -> None:
    theirs = _google(emulator, token=None, expiry=None)
    assert fetch(emulated(theirs, emulator)) == theirs.token
    assert len(emulator.token.requests) == 1


def test_google_auth__ahead_of_expiry(emulator: Emulator) -> None:
    theirs = _google(emulator, 100)
    old = theirs.token
    emulator.token.fail(400, error="invalid_grant", times=None)
    assert fetch(emulated(theirs, emulator)) == old
    emulator.token.reset()
    assert fetch(emulated(theirs, emulator)) == theirs.token != old


def test_google_auth__refused_token(emulator: Emulator) -> None:
    theirs = _google(emulator, 3600)
    credentials = emulated(theirs, emulator)
    refused = fetch(credentials)
    credentials.invalidate(refused)
    assert fetch(credentials) == theirs.token != refused
    emulator.token_lifetime = 1800
    for requests in (2, 3):
        refused = fetch(credentials)
        credentials.invalidate(refused)
        assert fetch(credentials) == theirs.token != refused
        assert len(emulator.token.requests) == requests


def test_google_auth__refreshed_by_somebody_else(emulator: Emulator) -> None:
    theirs = _google(emulator, token=None, expiry=None)
    credentials = emulated(theirs, emulator)
    for access_token in ("kit-first", "kit-second"):
        theirs.token = access_token
        assert fetch(credentials) == access_token
        credentials.invalidate(access_token)
    assert emulator.requests == []


def test_google_auth__refresh_token_is_refused(emulator: Emulator) -> None:
    emulator.token.fail(400, error="invalid_grant", description="revoked")
    with pytest.raises(RefreshError, match=r"RefreshError: invalid_grant: revoked\. Log in") as caught:
        fetch(emulated(_google(emulator), emulator))
    assert caught.value.reason == "invalid_grant"
    emulator.token.fail(400, error="invalid_grant", error_subtype="invalid_rapt")
    with pytest.raises(RefreshError, match="Reauthentication is needed"):
        fetch(emulated(_google(emulator), emulator))
    assert len(emulator.token.requests) == 2


def test_google_auth__token_that_is_another_one_at_each_look(emulator: Emulator) -> None:
    class Restless:
        looks, expiry = 0, None

        @property
        def token(self) -> str:
            self.looks += 1
            return f"kit-{self.looks}"

        def refresh(self, request: Any) -> None:
            raise AssertionError("not needed")

    assert fetch(emulated(Restless(), emulator)).startswith("kit-")


@pytest.mark.parametrize("ending", ["cancel", "total"])
def test_google_auth__refresh_ends_with_its_call(emulator: Emulator, ending: str) -> None:
    """And with that one alone: whoever waits for it refreshes for itself."""
    credentials = emulated(_google(emulator), emulator)
    gate, waiting = Gate(), threading.Semaphore(0)
    emulator.token.fail(503, before=gate)
    call = Call(Timeouts(total=0.2 if ending == "total" else None)).start()
    leader = in_thread(lambda: credentials.fetch(call))
    gate.await_arrivals()
    if ending == "cancel":
        waiter = in_thread(lambda: credentials.fetch(Watched(waiting)).access_token)
        await_all(waiting, 1)
        call.cancel()
        assert waiter() == fetch(credentials)
    with pytest.raises(StreamInterrupted if ending == "cancel" else DeadlineExceeded):
        leader()
    gate.open()


def test_google_auth__refreshed_by_somebody_else_between_two_reads(emulator: Emulator) -> None:
    """The refused old token does not come back with the expiry of the new one."""

    class Torn:
        token_now, expiry, renewed = "old", datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), False

        @property
        def token(self) -> str:
            token = self.token_now
            if self.renewed:
                self.token_now, self.expiry, self.renewed = "new", self.expiry.replace(year=2999), False
            return token

        def refresh(self, request: Any) -> None:
            raise AssertionError("not needed")

    theirs = Torn()
    credentials = emulated(theirs, emulator)
    credentials.invalidate("old")
    theirs.renewed = True
    assert fetch(credentials) == "new"


def test_google_auth__redirect_is_not_followed(emulator: Emulator) -> None:
    with Emulator() as other:
        emulator.token.fail(307, headers={"Location": other.urls["token"]}, times=None)
        with pytest.raises(RefreshError):
            fetch(emulated(_google(emulator), emulator))
        assert other.requests == []


def test_google_auth__token_that_is_over_at_once(emulator: Emulator) -> None:
    emulator.token_lifetime = -5
    with pytest.raises(RefreshError, match="no usable access token"):
        fetch(emulated(_google(emulator), emulator))
    assert len(emulator.token.requests) == 1


def test_google_auth__secrets_in_the_answer_are_not_told(emulator: Emulator) -> None:
    theirs = _google(emulator)
    echo = {"error": f"bad {theirs.refresh_token}", "error_description": theirs.client_secret, "all": theirs.token}
    emulator.token.fail(400, body=json.dumps(echo).encode(), times=None)
    with pytest.raises(RefreshError, match="RefreshError: bad") as caught:
        fetch(emulated(theirs, emulator))
    for secret in (theirs.refresh_token, theirs.client_secret, theirs.token):
        assert secret not in told(caught.value)


class _Fake:
    """Any object of google-auth's shape."""

    token: Optional[str] = None
    expiry: Optional[datetime.datetime] = None

    def __init__(self, error: Optional[Exception] = None) -> None:
        self._error = error

    def refresh(self, request: Any) -> None:
        assert request is None or request.keywords == {"timeout": 20.0}
        if self._error is not None:
            raise self._error
        self.token = "kit-fake"
        self.expiry = datetime.datetime.fromtimestamp(Clock()() + 90, datetime.timezone.utc)


def test_google_auth__expiry_with_a_time_zone() -> None:
    token = _of(_Fake()).fetch(Call())
    assert token == Token("kit-fake", Clock()() + 90)


def test_google_auth__windows_go_by_the_clock_that_is_given() -> None:
    """By the system's clock this token expired long ago, by the given one it is good."""
    clock, theirs = Clock(1000.0), _Fake()
    theirs.token, theirs.expiry = "kit-old", datetime.datetime.fromtimestamp(4600, datetime.timezone.utc)
    credentials = scripted(theirs, ScriptedTransport(), clock)
    assert fetch(credentials) == "kit-old"
    clock.advance(3590)
    assert fetch(credentials) == "kit-fake"


def test_google_auth__untrusted_certificate_surfaces() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with Emulator(ssl_context=context) as emulator:
        with pytest.raises(TransportError, match=r"certificate of 127\.0\.0\.1") as caught:
            fetch(emulated(_google(emulator), emulator))
        assert emulator.requests == []
    assert caught.value.reason == "CERTIFICATE_VERIFY_FAILED"


def test_google_auth__failure_without_words() -> None:
    with pytest.raises(RefreshError, match="ValueError") as caught:
        fetch(_of(_Fake(ValueError())))
    assert caught.value.reason is None


def test_google_auth__not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth.transport.requests", None)
    with pytest.raises(ConfigError, match="pip install google-auth"):
        fetch(_of(_Fake()))


def test_google_auth__other_threads_never_see_it_half_refreshed() -> None:
    clock, theirs = Clock(), _Fake()
    theirs.refresh(None)
    source = GoogleAuthSource(theirs, clock)
    before = source.look(Call())
    theirs.token = "half"  # set by a refresh in progress, its expiry not yet
    assert source.look(Call()) is before
    assert before.held is not None
    assert before.held.token.access_token == "kit-fake"
