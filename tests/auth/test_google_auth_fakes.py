"""Objects that have only the attributes of google-auth credentials can be a source of tokens as well."""

from __future__ import annotations

import datetime
import gc
import sys
import weakref
from typing import Any, Optional

import pytest

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.credentials import Credentials
from gemini_sync.auth.google_auth import GoogleAuthSource
from gemini_sync.errors import ConfigError, RefreshError
from gemini_sync.network.cancelling import Call
from tests.auth.credentials_kit import (
    Clock,
    ScriptedTransport,
    fetch,
    scripted,
)


def _of(source: Any) -> Credentials:
    return scripted(source, ScriptedTransport(AssertionError()), Clock())


class _Fake:
    """An object with the attributes of google-auth credentials."""

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


def test_google_auth__windows_go_by_the_clock_that_is_given() -> None:
    """The system's clock says that this token expired long ago; the given clock says that it is good."""
    clock, given = Clock(1000.0), _Fake()
    given.token, given.expiry = "kit-old", datetime.datetime.fromtimestamp(4600, datetime.timezone.utc)
    credentials = scripted(given, ScriptedTransport(), clock)
    assert fetch(credentials) == "kit-old"
    clock.advance(3590)
    assert fetch(credentials) == "kit-fake"


def test_google_auth__expiry_with_a_time_zone() -> None:
    token = _of(_Fake()).fetch(Call())
    assert token == AccessToken("kit-fake", Clock()() + 90, lifetime=90.0)


def test_google_auth__failure_without_words() -> None:
    with pytest.raises(RefreshError, match="ValueError") as caught:
        fetch(_of(_Fake(ValueError())))
    assert caught.value.reason is None


def test_google_auth__not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth.transport.requests", None)
    with pytest.raises(ConfigError, match="pip install google-auth"):
        fetch(_of(_Fake()))


def test_google_auth__other_threads_never_see_it_half_refreshed() -> None:
    clock, given = Clock(), _Fake()
    given.refresh(None)
    source = GoogleAuthSource(given, clock)
    before = source.current(Call())
    given.token = "half"  # by a refresh that has not set the expiry yet
    assert source.current(Call()) is before
    assert before.access_token == "kit-fake"


def test_google_auth__session_is_not_closed_by_the_collection_of_its_request() -> None:
    closers: list[str] = []

    class Watching(_Fake):
        def refresh(self, request: Any) -> None:
            super().refresh(request)
            session = request.func.session
            close = session.close
            session.close = lambda: (closers.append(sys._getframe(1).f_code.co_name), close())

    fetch(_of(Watching()))
    assert closers[0] == "__exit__"


def test_google_auth__failed_refresh_keeps_no_frame_of_its_caller() -> None:
    class Local:
        pass

    class Down(_Fake):
        def refresh(self, request: Any) -> None:
            raise ValueError("down")

    def caller() -> weakref.ref[Local]:
        local = Local()
        try:
            fetch(_of(Down()))
        except RefreshError:
            return weakref.ref(local)
        raise AssertionError("nothing failed")

    gc.collect()
    gc.disable()
    try:
        assert caller()() is None
    finally:
        gc.enable()
