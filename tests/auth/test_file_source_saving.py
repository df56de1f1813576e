"""Tests of saving tokens: only our fields change, another login is kept, and memory serves if the disk refuses."""

from __future__ import annotations

import json
import os
import stat
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from gemini_sync.errors import CredentialsError
from gemini_sync.network.cancelling import Call
from gemini_sync.testing.emulator import Emulator
from tests.auth.credentials_kit import (
    Clock,
    Counter,
    ScriptedTransport,
    Slept,
    emulated,
    fetch,
    scripted,
    warnings_in,
    write_file,
)
from tests.support import run_python


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_mode


def test_save__our_fields_only(path: Path, clock: Clock) -> None:
    write_file(path, left=-5, other="kept")
    answer = Counter(scope="more", id_token="kit-id-token", surprise="dropped")
    credentials = scripted(path, ScriptedTransport(answer), clock)
    assert fetch(credentials) == "kit-access-1"
    assert json.loads(path.read_text()) == {
        "access_token": "kit-access-1",
        "refresh_token": "file-refresh-token",
        "scope": "more",
        "token_type": "Bearer",
        "id_token": "kit-id-token",
        "expiry_date": int((clock() + 3600) * 1000),
        "other": "kept",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert fetch(scripted(path, ScriptedTransport(), clock)) == "kit-access-1"


def test_save__new_refresh_token_is_saved_and_used(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    transport = ScriptedTransport(Counter(refresh_token="rotated"))
    credentials = scripted(path, transport, clock)
    fetch(credentials)
    assert json.loads(path.read_text())["refresh_token"] == "rotated"
    clock.advance(4000)
    fetch(credentials)
    assert b"refresh_token=rotated" in transport.forms[1]


def test_save__new_refresh_token_that_could_not_be_saved_is_used(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    transport = ScriptedTransport(Counter(refresh_token="rotated"))
    credentials = scripted(path, transport, clock, persist=False)
    fetch(credentials)
    os.utime(path)  # touched, not changed
    clock.advance(4000)
    assert fetch(credentials) == "kit-access-2"
    assert b"refresh_token=rotated" in transport.forms[1]


def test_save__authorized_user_is_never_written(emulator: Emulator, tmp_path: Path) -> None:
    path = emulator.write_credentials(tmp_path / "adc.json", style="authorized_user")
    before = path.read_bytes(), _state(path)
    credentials = emulated(path, emulator, oauth_client=None)
    assert credentials.token() == credentials.token()
    assert len(emulator.token.requests) == 1
    assert (path.read_bytes(), _state(path)) == before


@pytest.mark.parametrize("left", [3600, -5])
def test_save__google_auth_file_is_used_and_never_written(emulator: Emulator, tmp_path: Path, left: float) -> None:
    path = emulator.write_credentials(tmp_path / "token.json", style="authorized_user")
    expiry = datetime.fromtimestamp(time.time() + left, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    document = {"token": "of-the-file", **json.loads(path.read_text()), "expiry": expiry, "scopes": []}
    del document["type"]
    path.write_text(json.dumps(document))
    before = path.read_bytes(), _state(path)
    credentials = emulated(path, emulator, oauth_client=None)
    token = credentials.token()
    assert token == credentials.token()
    assert (token == "of-the-file") is (left > 0)
    assert len(emulator.token.requests) == (left < 0)
    assert (path.read_bytes(), _state(path)) == before


def test_save__persist_off_writes_nothing(emulator: Emulator, tmp_path: Path) -> None:
    path = emulator.write_credentials(tmp_path / "c.json", expires_in=-5)
    before = path.read_bytes(), _state(path)
    credentials = emulated(path, emulator, persist=False)
    assert credentials.token() == credentials.token()
    assert len(emulator.token.requests) == 1
    assert (path.read_bytes(), _state(path)) == before


@pytest.mark.parametrize("left", [3600, -5], ids=["valid", "expired"])
def test_save__login_during_the_refresh_is_kept(emulator: Emulator, tmp_path: Path, left: float) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    real = emulator.write_credentials(folder / "c.json", expires_in=-5)
    path = tmp_path / "link.json"
    path.symlink_to(real)
    other = {"refresh_token": emulator.issue_refresh_token(), "access_token": "of-the-other", "more": 1}

    def log_in() -> None:
        write_file(real, left=left, now=time.time(), **other)

    emulator.token.fail(503, before=log_in)
    emulator.token.fail(503, before=lambda: None)
    credentials = emulated(path, emulator)
    token = credentials.fetch(Call(sleep=Slept())).access_token
    document = json.loads(real.read_text())
    assert {name: document[name] for name in other} == other
    assert path.is_symlink()
    assert (token == "of-the-other") is (left > 0)
    # The next token is one of the other login in any case.
    credentials.token()
    assert json.loads(real.read_text())["refresh_token"] == other["refresh_token"]
    assert len(emulator.token.requests) == (3 if left > 0 else 4)


def test_save__logout_during_the_refresh_is_kept(path: Path, clock: Clock) -> None:
    write_file(path, left=-5)
    counter = Counter()
    credentials = scripted(path, ScriptedTransport(lambda: (path.unlink(), counter())[1]), clock)
    assert fetch(credentials) == "kit-access-1"
    assert os.listdir(path.parent) == []
    with pytest.raises(CredentialsError, match="There is no credentials file"):
        fetch(credentials)


@pytest.mark.parametrize("broken", ["mkstemp", "replace"])
def test_save__failure_keeps_the_token_in_memory(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    write_file(path, left=-5)
    before = path.read_bytes()

    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp" if broken == "mkstemp" else "os.replace", fail)
    credentials = scripted(path, ScriptedTransport(Counter()), clock)
    assert [fetch(credentials), fetch(credentials)] == ["kit-access-1"] * 2
    clock.advance(4000)
    assert fetch(credentials) == "kit-access-2"
    (warning,) = warnings_in(caplog)
    assert "No space left on device" in warning
    assert str(path) in warning
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["c.json"]


_FULL_DISK = """
import json, logging, os, resource, sys
from gemini_sync.network.cancelling import Call
from gemini_sync.config import Endpoints, OAuthClient
from gemini_sync.auth.credentials import credentials_for
from gemini_sync.network.transport import Transport
path, url, client_id, client_secret = sys.argv[1:]
warnings = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: warnings.append(record.getMessage())
logging.getLogger().addHandler(handler)
credentials = credentials_for(path, transport=Transport(), oauth_client=OAuthClient(client_id, client_secret),
                              endpoints=Endpoints(token=url))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
tokens = [credentials.token(), credentials.token()]
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
print(json.dumps([tokens, warnings]))
"""


def test_save__disk_full(emulator: Emulator, tmp_path: Path) -> None:
    path = emulator.write_credentials(tmp_path / "c.json", expires_in=-5)
    before = path.read_bytes(), _state(path)
    ran = run_python("-c", _FULL_DISK, str(path), emulator.urls["token"], emulator.client_id, emulator.client_secret)
    assert ran.returncode == 0, ran.stderr
    tokens, warnings = json.loads(ran.stdout)
    assert tokens[0] == tokens[1]
    assert tokens[0] not in path.read_text()
    assert ["File too large" in warning for warning in warnings] == [True]
    assert (path.read_bytes(), _state(path)) == before
    assert os.listdir(tmp_path) == ["c.json"]
    assert len(emulator.token.requests) == 1
