"""Tests of google-auth credentials as a source of tokens, with the real google-auth."""

from __future__ import annotations

import datetime
import json
import ssl
import threading
from typing import Any, Optional

import google.auth.exceptions
import google.oauth2.credentials
import pytest
import trustme

from gemini_sync.config import Timeouts
from gemini_sync.errors import DeadlineExceeded, RefreshError, StreamInterrupted, TransportError
from gemini_sync.network.cancelling import Call
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Gate, in_thread
from tests.auth.credentials_kit import (
    Watched,
    await_all,
    emulated,
    fetch,
    together,
    told,
)


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
    given = _google(emulator)
    credentials = emulated(given, emulator)
    outcomes = together(20, lambda: credentials.fetch(Call()))
    assert set(outcomes) == {credentials.fetch(Call())}
    assert outcomes[0].access_token == given.token
    assert outcomes[0].expires_at == given.expiry.replace(tzinfo=datetime.timezone.utc).timestamp()
    assert len(emulator.token.requests) == 1


def test_google_auth__valid_token_needs_no_request(emulator: Emulator) -> None:
    for expires_in in (3600, None):
        given = _google(emulator, expires_in)
        assert fetch(emulated(given, emulator)) == given.token
    assert emulator.requests == []


def test_google_auth__no_token_yet(emulator: Emulator) -> None:
    given = _google(emulator, token=None, expiry=None)
    assert fetch(emulated(given, emulator)) == given.token
    assert len(emulator.token.requests) == 1


def test_google_auth__ahead_of_expiry(emulator: Emulator) -> None:
    given = _google(emulator, 100)
    old = given.token
    emulator.token.fail(400, error="invalid_grant", times=None)
    assert fetch(emulated(given, emulator)) == old
    emulator.token.reset()
    assert fetch(emulated(given, emulator)) == given.token != old


def test_google_auth__refused_token(emulator: Emulator) -> None:
    given = _google(emulator, 3600)
    credentials = emulated(given, emulator)
    refused = fetch(credentials)
    credentials.invalidate(refused)
    assert fetch(credentials) == given.token != refused
    emulator.token_lifetime = 1800
    for requests in (2, 3):
        refused = fetch(credentials)
        credentials.invalidate(refused)
        assert fetch(credentials) == given.token != refused
        assert len(emulator.token.requests) == requests


def test_google_auth__refreshed_by_the_application(emulator: Emulator) -> None:
    given = _google(emulator, token=None, expiry=None)
    credentials = emulated(given, emulator)
    for access_token in ("kit-first", "kit-second"):
        given.token = access_token
        assert fetch(credentials) == access_token
        credentials.invalidate(access_token)
    assert emulator.requests == []


def test_google_auth__refreshed_by_the_application_too_long_ago(emulator: Emulator) -> None:
    given = _google(emulator)
    credentials = emulated(given, emulator)
    given.token = stale = "kit-stale"
    assert fetch(credentials) == given.token != stale


def test_google_auth__refresh_token_is_refused(emulator: Emulator) -> None:
    emulator.token.fail(400, error="invalid_grant", description="revoked")
    with pytest.raises(RefreshError, match=r"RefreshError: invalid_grant: revoked\. Log in") as caught:
        fetch(emulated(_google(emulator), emulator))
    assert caught.value.reason == "invalid_grant"
    emulator.token.fail(400, error="invalid_grant", error_subtype="invalid_rapt")
    with pytest.raises(RefreshError, match="Reauthentication is needed"):
        fetch(emulated(_google(emulator), emulator))
    assert len(emulator.token.requests) == 2


def test_google_auth__token_that_changes_at_each_reading(emulator: Emulator) -> None:
    class Restless:
        readings, expiry = 0, None

        @property
        def token(self) -> str:
            self.readings += 1
            return f"kit-{self.readings}"

        def refresh(self, request: Any) -> None:
            raise AssertionError("not needed")

    assert fetch(emulated(Restless(), emulator)).startswith("kit-")


@pytest.mark.parametrize("ending", ["cancel", "total"])
def test_google_auth__refresh_ends_with_its_call(emulator: Emulator, ending: str) -> None:
    """Other calls go on: a thread that waited for this refresh runs one of its own."""
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


def test_google_auth__refreshed_by_the_application_between_two_readings(emulator: Emulator) -> None:
    """The refused old token does not come back with the expiry of the new one."""

    class Torn:
        token_now, expiry, refreshed = "old", datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), False

        @property
        def token(self) -> str:
            token = self.token_now
            if self.refreshed:
                self.token_now, self.expiry, self.refreshed = "new", self.expiry.replace(year=2999), False
            return token

        def refresh(self, request: Any) -> None:
            raise AssertionError("not needed")

    given = Torn()
    credentials = emulated(given, emulator)
    credentials.invalidate("old")
    given.refreshed = True
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


def test_google_auth__secrets_in_the_answer_are_not_shown(emulator: Emulator) -> None:
    given = _google(emulator)
    echo = {
        "error": f"bad {given.refresh_token}",
        "error_description": given.client_secret,
        "all": given.token,
    }
    emulator.token.fail(400, body=json.dumps(echo).encode(), times=None)
    with pytest.raises(RefreshError, match="RefreshError: bad") as caught:
        fetch(emulated(given, emulator))
    for secret in (given.refresh_token, given.client_secret, given.token):
        assert secret not in told(caught.value)


def test_google_auth__untrusted_certificate_surfaces() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with Emulator(ssl_context=context) as emulator:
        with pytest.raises(TransportError, match=r"certificate of 127\.0\.0\.1") as caught:
            fetch(emulated(_google(emulator), emulator))
        assert emulator.requests == []
    assert caught.value.reason == "CERTIFICATE_VERIFY_FAILED"
