"""Tests of reading the credentials file: its kinds, files that are half written, and files that are of no use."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Optional

import pytest

from gemini_sync.auth import credentials_file
from gemini_sync.auth.credentials_file import FileContent
from gemini_sync.config import OAuthClient
from gemini_sync.errors import CredentialsError, StreamInterrupted
from gemini_sync.network.cancelling import Call
from tests.auth.credentials_kit import NOW, Slept, told, write_file


def _read(path: Path, slept: Optional[Slept] = None) -> FileContent:
    return credentials_file.read(str(path), Call(sleep=Slept() if slept is None else slept))


def test_read__gemini_cli(tmp_path: Path) -> None:
    content = _read(write_file(tmp_path / "c.json"))
    assert content.login == ("file-access-token", NOW + 3600, "file-refresh-token", None)
    assert content.writable


def test_read__authorized_user(tmp_path: Path) -> None:
    path = tmp_path / "adc.json"
    path.write_text('{"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": " r\\n"}')
    content = _read(path)
    assert content.login == (None, None, "r", OAuthClient("i", "s"))
    assert not content.writable


@pytest.mark.parametrize(
    ("fields", "expires_at"),
    [
        ({"token": "t", "expiry": "2030-03-17T17:46:40Z"}, 1_900_000_000.0),
        ({"token": "t", "expiry": "2030-03-17T17:46:40.500000Z"}, 1_900_000_000.5),
        ({"token": "t", "expiry": "2030-03-17T17:46:40"}, 1_900_000_000.0),
        ({"token": "t", "expiry": "2030-03-17T18:46:40+01:00"}, 1_900_000_000.0),
        ({"token": "t", "expiry": "soon"}, None),
        ({"token": "t", "expiry": None}, None),
        ({"token": "t"}, None),
        ({"access_token": "t", "token_expiry": "2030-03-17T17:46:40Z"}, 1_900_000_000.0),
    ],
)
def test_read__google_auth(tmp_path: Path, fields: dict[str, Any], expires_at: Optional[float]) -> None:
    """``token.json`` of google-auth's samples, and the older one of oauth2client."""
    path = tmp_path / "token.json"
    login = {"refresh_token": "r", "token_uri": "https://x", "client_id": "i", "client_secret": "s", "scopes": ["a"]}
    path.write_text(json.dumps({**login, **fields}))
    content = _read(path)
    assert content.login == ("t", expires_at, "r", OAuthClient("i", "s"))
    assert not content.writable


@pytest.mark.parametrize(
    ("expiry_date", "expires_at"),
    [("5000", 5.0), (5000.5, 5.0005), ("soon", None), ([], None), (1e999, None), ("nan", None), (10**400, None)],
    ids=lambda value: repr(value)[:20],
)
def test_read__expiry_date(tmp_path: Path, expiry_date: Any, expires_at: Optional[float]) -> None:
    assert _read(write_file(tmp_path / "c.json", expiry_date=expiry_date)).expires_at == expires_at


def test_read__byte_order_mark_and_utf16(tmp_path: Path) -> None:
    path = write_file(tmp_path / "c.json")
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_text(path.read_text(), encoding=encoding)
        assert _read(path).access_token == "file-access-token"
        write_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no credentials file"),
        ("[]", "holds no JSON object"),
        ("7", "holds no JSON object"),
        ("{}", "neither access_token nor refresh_token"),
        ('{"access_token": "", "refresh_token": null}', "neither access_token nor refresh_token"),
        ('{"access_token": ["canary"]}', "access_token must be a string"),
        ('{"refresh_token": "can ary"}', "refresh_token holds white space"),
        (
            '{"installed": {"client_id": "i", "client_secret": "canary"}}',
            "came an OAuth client file: .*--client-id-file=",
        ),
        ('{"web": {"client_id": "i", "client_secret": "canary"}}', "came an OAuth client file: .* 'Desktop app'"),
        ('{"type": "service_account", "private_key": "canary"}', "pip install google-auth"),
        ('{"type": "external_account"}', "pip install google-auth"),
    ],
)
def test_read__unusable_is_said_at_once(tmp_path: Path, content: Optional[str], message: str) -> None:
    path = tmp_path / "c.json"
    if content is not None:
        path.write_text(content)
    slept = Slept()
    with pytest.raises(CredentialsError, match=message) as caught:
        _read(path, slept)
    assert slept == []
    assert str(path) in str(caught.value)
    assert not re.search("can ?ary", told(caught.value))


@pytest.mark.parametrize("content", [b"", b'{"access_token": "canary', b"\xff\xfe\xfdcanary", b"[" * 100_000])
def test_read__torn_for_good(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(content)
    slept = Slept()
    with pytest.raises(CredentialsError, match="is not valid JSON") as caught:
        _read(path, slept)
    assert sum(slept) == pytest.approx(0.25, abs=0.01)
    assert "canary" not in told(caught.value)
    assert caught.value.__context__ is None


def test_read__torn_for_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("")
    slept = Slept(hook=lambda: len(slept) == 20 and write_file(path))
    assert _read(path, slept).access_token == "file-access-token"
    assert len(slept) == 20


def test_read__at_most_one_mebibyte(tmp_path: Path) -> None:
    path = write_file(tmp_path / "c.json", padding="-")
    room = 2**20 - path.stat().st_size
    write_file(path, padding="x" * (1 + room))
    assert _read(path).access_token == "file-access-token"
    write_file(path, padding="x" * (2 + room))
    with pytest.raises(CredentialsError, match="is not valid JSON"):
        _read(path)


def test_read__cancelled_while_torn(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("")
    call = Call(sleep=Slept(hook=lambda: call.cancel()))
    with pytest.raises(StreamInterrupted):
        credentials_file.read(str(path), call)


def test_read__not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(CredentialsError, match="is not a file"):
            _read(path)


def test_read__unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "c.json")

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))  # root is never refused

    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", refuse)
        with pytest.raises(CredentialsError, match=r"c\.json cannot be read: Permission denied"):
            _read(path)
    with pytest.raises(CredentialsError, match="cannot be read: Not a directory"):
        _read(path / "below")
    with pytest.raises(CredentialsError, match=r"cannot be read: .*null"):
        credentials_file.file_version("nul\0")


def test_file_version__changes_with_the_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "c.json")
    before = credentials_file.file_version(str(path))
    assert _read(path).version == before == credentials_file.file_version(str(path))
    os.utime(path, ns=(1, 1))
    assert credentials_file.file_version(str(path)) != before


def test_read__settled_once_a_change_would_show(tmp_path: Path) -> None:
    path = write_file(tmp_path / "c.json")
    os.utime(path)
    assert not _read(path).settled
    os.utime(path, (1, 1))
    assert _read(path).settled


def test_read__exposed(tmp_path: Path) -> None:
    path = write_file(tmp_path / "c.json")
    for mode, exposed in ((0o600, False), (0o400, False), (0o640, True), (0o604, True)):
        path.chmod(mode)
        assert _read(path).exposed is exposed
