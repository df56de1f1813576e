"""Tests of a shared credentials file: what it says goes first, another login counts at once, memory comes second."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from gemini_sync.auth import credentials_file
from gemini_sync.auth.file_source import FileSource
from gemini_sync.errors import ConfigError, CredentialsError, RefreshError
from gemini_sync.network.cancelling import Call
from gemini_sync.network.exchange import Answer
from tests.auth.credentials_kit import (
    CLIENT,
    Clock,
    Counter,
    ScriptedTransport,
    fetch,
    scripted,
    warnings_in,
    write_file,
)

_REFUSED = Answer(400, {}, '{"error": "invalid_grant"}')


def test_current__valid_token_needs_no_client_and_no_request(path: Path, clock: Clock) -> None:
    credentials = scripted(path, ScriptedTransport(AssertionError()), clock, oauth_client=None)
    token = credentials.fetch(Call())
    assert (token.access_token, token.expires_at) == ("file-access-token", clock() + 3600)
    assert "file" not in token.identity
    assert "file-access-token" not in repr(token)


def test_current__token_without_expiry_is_used_until_it_is_refused(path: Path, clock: Clock) -> None:
    write_file(path, left=None)
    credentials = scripted(path, ScriptedTransport(Counter()), clock)
    assert fetch(credentials) == "file-access-token"
    clock.advance(10**9)
    assert fetch(credentials) == "file-access-token"
    credentials.invalidate("file-access-token")
    assert fetch(credentials) == "kit-access-1"


def test_current__unchanged_file_is_not_read_again(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = scripted(path, ScriptedTransport(), clock)
    for moment in (1, 2):  # it may be touched, or written with the same content
        os.utime(path, (moment, moment))
        fetch(credentials)
    monkeypatch.setattr("builtins.open", lambda *arguments: pytest.fail("read again"))
    assert fetch(credentials) == "file-access-token"


def test_current__change_of_a_file_that_was_old_shows_at_once(path: Path, clock: Clock) -> None:
    os.utime(path, (1, 1))
    credentials = scripted(path, ScriptedTransport(), clock)
    assert fetch(credentials) == "file-access-token"
    write_file(path, access_token="of-a-sibling")
    assert fetch(credentials) == "of-a-sibling"


def test_current__change_within_one_step_of_the_time_stamp(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has the version that it had before, so only its age can tell that it may have changed."""
    monkeypatch.setattr(credentials_file, "_SETTLED_NANOSECONDS", 10**18)
    moment = time.time_ns()
    credentials = scripted(path, ScriptedTransport(), clock)
    for token in ("file-access-token", "FILE-ACCESS-TOKEN"):
        write_file(path, access_token=token)
        os.utime(path, ns=(moment, moment))
        assert fetch(credentials) == token


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("{corrupt"),
        lambda path: path.write_text(""),
        lambda path: path.write_text("[]"),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: shutil.rmtree(path.parent),
    ],
    ids=["deleted", "corrupt", "empty", "list", "directory", "folder deleted"],
)
def test_current__damage_shows_at_the_next_call_and_so_does_repair(path: Path, clock: Clock, damage: Any) -> None:
    credentials = scripted(path, ScriptedTransport(Counter()), clock)
    assert fetch(credentials) == "file-access-token"
    damage(path)
    with pytest.raises(CredentialsError, match=r"c\.json"):
        fetch(credentials)
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    write_file(path, access_token="repaired")
    assert fetch(credentials) == "repaired"


def test_current__login_elsewhere_takes_effect_at_once(path: Path, clock: Clock) -> None:
    credentials = scripted(path, ScriptedTransport(), clock)
    before = credentials.fetch(Call())
    # The same size as before, and the same time stamp if both writes fall into one of its steps.
    write_file(path, access_token="FILE-ACCESS-TOKEN", refresh_token="FILE-REFRESH-TOKEN")
    after = credentials.fetch(Call())
    assert after.access_token == "FILE-ACCESS-TOKEN"
    assert after.identity != before.identity


def test_current__token_of_a_sibling_is_adopted(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    credentials = scripted(path, ScriptedTransport(Counter()), clock)
    assert fetch(credentials) == "kit-access-1"
    clock.advance(3590)
    write_file(path, left=7200, access_token="of-a-sibling")
    assert fetch(credentials) == "of-a-sibling"


def test_current__older_token_of_the_same_login_displaces_nothing(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    credentials = scripted(path, ScriptedTransport(Counter()), clock, persist=False)
    assert fetch(credentials) == "kit-access-1"
    for left, access_token in ((-5, "file-access-token"), (60, "behind"), (None, None)):
        write_file(path, left=left, access_token=access_token)
        assert fetch(credentials) == "kit-access-1"
    write_file(path, left=600, access_token="of-the-other", refresh_token="of-another-login")
    assert fetch(credentials) == "of-the-other"


def test_current__used_up_token_written_back_displaces_nothing(path: Path, clock: Clock) -> None:
    """A backup may do that. The token refreshed meanwhile is still good, even if the token endpoint is down."""
    before = write_file(path, left=-5).read_bytes()
    credentials = scripted(path, ScriptedTransport({"access_token": "refreshed", "expires_in": 3600}, _REFUSED), clock)
    assert fetch(credentials) == "refreshed"
    path.write_bytes(before)
    assert fetch(credentials) == "refreshed"


def test_current__shorter_lived_token_displaces_one_that_the_file_had_said(path: Path, clock: Clock) -> None:
    write_file(path, left=3600)
    credentials = scripted(path, ScriptedTransport(), clock)
    assert fetch(credentials) == "file-access-token"
    write_file(path, left=600, access_token="of-a-sibling")
    assert fetch(credentials) == "of-a-sibling"


def test_current__access_token_alone(path: Path, clock: Clock) -> None:
    write_file(path, refresh_token=None)
    credentials = scripted(path, ScriptedTransport(), clock)
    before = credentials.fetch(Call())
    write_file(path, refresh_token=None, access_token="pasted", left=100)
    after = credentials.fetch(Call())
    assert (after.access_token, after.identity != before.identity) == ("pasted", True)
    clock.advance(100)
    with pytest.raises(CredentialsError, match="no refresh_token"):
        fetch(credentials)


def test_refresh__no_client(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    with pytest.raises(ConfigError) as caught:
        fetch(scripted(path, ScriptedTransport(), clock, oauth_client=None))
    assert caught.value.reason == "OAUTH_CLIENT_REQUIRED"
    for word in ("GEMINI_OAUTH_CLIENT_ID", "GEMINI_OAUTH_CLIENT_SECRET", "oauth_client=", "Google Cloud console",
                 "Desktop app", "still valid works without one"):  # fmt: skip
        assert word in str(caught.value)


def test_refresh__client_of_the_file_goes_first(path: Path, clock: Clock) -> None:
    write_file(path, left=-5, client_id="of-the-file", client_secret="file-client-secret")
    transport = ScriptedTransport(Counter())
    fetch(scripted(path, transport, clock))
    assert b"client_id=of-the-file&client_secret=file-client-secret" in transport.forms[0]


def _refuse_and(change: Any) -> Any:
    return lambda: (change(), _REFUSED)[1]


@pytest.mark.parametrize(("left", "expected", "requests"), [(3600, "of-a-sibling", 0), (-5, "kit-access-1", 1)])
def test_refresh__token_of_a_sibling_needs_no_request(
    path: Path, clock: Clock, left: float, expected: str, requests: int
) -> None:
    transport: Any = ScriptedTransport(Counter())
    source = FileSource(str(path), transport=transport, url="", client=CLIENT, persist=True, clock=clock)
    used_up = source.current(Call())
    write_file(path, left=left, access_token="of-a-sibling")
    assert source.refresh(Call(), used_up).access_token == expected
    assert len(transport.forms) == requests


def test_refresh__invalid_grant_leaves_the_file_alone(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    before = path.read_bytes()
    transport = ScriptedTransport(_REFUSED)
    with pytest.raises(RefreshError, match="Log in again") as caught:
        fetch(scripted(path, transport, clock))
    assert caught.value.reason == "invalid_grant"
    assert len(transport.forms) == 1
    assert path.read_bytes() == before


def test_refresh__invalid_grant_after_a_login_elsewhere(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    log_in = _refuse_and(lambda: write_file(path, access_token="of-the-other", refresh_token="of-another-login"))
    transport = ScriptedTransport(log_in)
    assert fetch(scripted(path, transport, clock)) == "of-the-other"
    assert len(transport.forms) == 1


def test_refresh__invalid_grant_after_a_login_elsewhere_that_is_old(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    log_in = _refuse_and(lambda: write_file(path, left=-5, refresh_token="of-another-login"))
    transport = ScriptedTransport(log_in, Counter())
    assert fetch(scripted(path, transport, clock)) == "kit-access-1"
    assert b"of-another-login" in transport.forms[1]
    # The other login is tried once. If it is refused too, the call fails.
    write_file(path, left=-5)
    transport = ScriptedTransport(log_in, _REFUSED)
    with pytest.raises(RefreshError):
        fetch(scripted(path, transport, clock))
    assert len(transport.forms) == 2


def test_refresh__invalid_grant_after_a_sibling_refreshed(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    transport = ScriptedTransport(_refuse_and(lambda: write_file(path, access_token="of-a-sibling")))
    assert fetch(scripted(path, transport, clock)) == "of-a-sibling"
    assert len(transport.forms) == 1


def test_refresh__invalid_grant_after_an_idle_change(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    transport = ScriptedTransport(_refuse_and(lambda: write_file(path, left=-4)))
    with pytest.raises(RefreshError):
        fetch(scripted(path, transport, clock))
    assert len(transport.forms) == 1


def test_current__file_that_others_can_read_is_warned_about_once(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path.chmod(0o644)
    credentials = scripted(path, ScriptedTransport(), clock)
    for _ in range(3):
        os.utime(path)
        fetch(credentials)
    (warning,) = warnings_in(caplog)
    assert f"chmod 600 {path}" in warning


def test_after_fork__lock_held_in_the_parent(path: Path, clock: Clock) -> None:
    credentials = scripted(path, ScriptedTransport(), clock)
    source: Any = credentials._source
    source._lock.acquire()  # as if another thread of the parent held it at the fork
    source.after_fork()
    assert fetch(credentials) == "file-access-token"
