"""Tests of saving to the credentials file: other writers, full disks and killed writers do no harm."""

from __future__ import annotations

import itertools
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gemini_sync.auth import credentials_file
from gemini_sync.auth.credentials_file import FileContent
from gemini_sync.network.cancelling import Call
from tests.auth.credentials_kit import Slept, write_file
from tests.support import run_python

_CHANGES = {"access_token": "new-access", "refresh_token": "file-refresh-token", "expiry_date": 5}


def _update(path: Path, refresh_token: str = "file-refresh-token") -> FileContent:
    return credentials_file.update(str(path), refresh_token, _CHANGES, Call(sleep=Slept()))


def test_update__keeps_other_fields(tmp_path: Path) -> None:
    path = write_file(tmp_path / "c.json", other={"kept": ["as", "it", "is"]})
    path.chmod(0o644)
    content = _update(path)
    document = json.loads(path.read_text())
    assert document == dict(content.document)
    assert document == {**document, **_CHANGES, "id_token": "file-id-token", "other": {"kept": ["as", "it", "is"]}}
    assert content.version == credentials_file.file_version(str(path))
    assert content.access_token == "new-access"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["c.json"]


def test_update__other_login_is_left_alone(tmp_path: Path) -> None:
    path = write_file(tmp_path / "c.json", refresh_token="of-another-login")
    before = path.read_bytes()
    assert _update(path).refresh_token == "of-another-login"
    assert path.read_bytes() == before


def test_update__login_during_the_write_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "c.json")
    fsync = os.fsync

    def log_in_meanwhile(descriptor: int) -> None:
        fsync(descriptor)
        write_file(path, refresh_token="of-another-login")

    monkeypatch.setattr(os, "fsync", log_in_meanwhile)
    assert _update(path).refresh_token == "of-another-login"
    assert json.loads(path.read_text())["refresh_token"] == "of-another-login"
    assert os.listdir(tmp_path) == ["c.json"]


@pytest.mark.parametrize("changes", [2, 1000])
def test_update__while_another_program_keeps_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    """It is tried three times."""
    path, tries = write_file(tmp_path / "c.json"), itertools.count(1)

    def write_meanwhile(descriptor: int) -> None:
        if next(tries) <= changes:
            path.write_text(path.read_text() + " ")

    monkeypatch.setattr(os, "fsync", write_meanwhile)
    if changes == 2:
        assert _update(path).access_token == "new-access"
    else:
        with pytest.raises(BlockingIOError):
            _update(path)
    assert next(tries) == 4
    assert json.loads(path.read_text())["access_token"] == ("new-access" if changes == 2 else "file-access-token")
    assert os.listdir(tmp_path) == ["c.json"]


def test_update__symbolic_link_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target = write_file(folder / "real.json")
    link = tmp_path / "c.json"
    link.symlink_to(Path("elsewhere") / "real.json")
    _update(link)
    assert link.is_symlink()
    assert json.loads(target.read_text())["access_token"] == "new-access"
    assert os.listdir(folder) == ["real.json"]


@pytest.mark.parametrize("call", ["mkstemp", "fsync", "replace", "stat"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_update__failure_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    path = write_file(tmp_path / "c.json")
    before, inode = path.read_bytes(), path.stat().st_ino

    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    stat_of_file = os.stat

    def fail_late(name: Any, *arguments: Any, **options: Any) -> Any:
        return fail() if len(os.listdir(tmp_path)) > 1 else stat_of_file(name, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(tempfile if call == "mkstemp" else os, call, fail_late if call == "stat" else fail)
        with pytest.raises(type(error)):
            _update(path)
    assert (path.read_bytes(), path.stat().st_ino) == (before, inode)
    assert os.listdir(tmp_path) == ["c.json"]


def test_update__unremovable_remains_do_not_hide_the_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "c.json")

    def fail(*arguments: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(OSError, match="No space left"):
        _update(path)


def test_update__file_of_another_user_keeps_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "c.json")
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    monkeypatch.setattr(os, "fchown", lambda descriptor, user, group: given.append((user, group)))
    _update(path)
    assert given == [(path.stat().st_uid, path.stat().st_gid)]


_KILLED = """
import json, os, random, signal, sys, time
from gemini_sync.auth import credentials_file
from gemini_sync.auth.credentials_file import FileContent
from gemini_sync.network.cancelling import Call
path, states = sys.argv[1], set()
random.seed(4)
for _ in range(200):
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        for number in range(10**6):
            changes = {"access_token": f"{os.getpid()}-{number}", "padding": "x" * 20_000}
            credentials_file.update(path, "file-refresh-token", changes, Call())
            os.write(told, b".")
    os.read(ready, 1)
    time.sleep(random.random() / 500)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready), os.close(told)
    with open(path) as file:
        document = json.load(file)
    assert document["refresh_token"] == "file-refresh-token", document
    states.add(document["access_token"])
print(len(states))
"""


def test_update__killed_at_any_moment(tmp_path: Path) -> None:
    path = write_file(tmp_path / "c.json")
    ran = run_python("-c", _KILLED, str(path))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert int(ran.stdout) == 200
