"""Writing a file where renames are refused: trying again, in place under a backup, or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemini_sync.auth import file_writing
from gemini_sync.auth.file_writing import replace_file
from gemini_sync.network.cancelling import Call
from tests.auth.credentials_kit import (
    Clock,
    Counter,
    ScriptedTransport,
    Slept,
    fetch,
    scripted,
    warnings_in,
    write_file,
)
from tests.support import run_python

_REFUSALS = [errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EROFS, errno.EINVAL, errno.ENOTSUP]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "c.json"
    path.write_text("the old content, which is longer")
    path.chmod(0o640)
    return path


def _refuse(number: int, times: int = 10**6, then: Any = None) -> Callable[..., Any]:
    """A system call that is refused so often."""
    refused: list[int] = []

    def call(*arguments: Any, **options: Any) -> Any:
        if len(refused) < times:
            refused.append(number)
            raise OSError(number, os.strerror(number))
        return then(*arguments, **options)

    return call


def _replace(path: Path, slept: list[float], is_current: Callable[[os.stat_result], bool] = lambda status: True) -> Any:
    return replace_file(str(path), b"the new content", is_current, slept.append)


@pytest.mark.parametrize("number", _REFUSALS, ids=errno.errorcode.get)
def test_replace__rename_refused_for_good(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    slept: list[float] = []
    before = path.stat()
    monkeypatch.setattr(os, "replace", _refuse(number))
    status = _replace(path, slept)
    assert path.read_text() == "the new content"
    assert (status.st_ino, status.st_size, stat.S_IMODE(status.st_mode)) == (before.st_ino, 15, 0o600)
    assert status.st_mtime_ns == path.stat().st_mtime_ns
    assert 0 < sum(slept) < 0.5
    assert os.listdir(path.parent) == ["c.json"]


def test_replace__rename_refused_for_a_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sharing violation on Windows is a PermissionError, with the errno of EACCES."""
    slept: list[float] = []
    before = path.stat().st_ino
    monkeypatch.setattr(os, "replace", _refuse(errno.EACCES, 2, os.replace))
    assert _replace(path, slept).st_ino == path.stat().st_ino != before
    assert path.read_text() == "the new content"
    assert len(slept) == 2
    assert os.listdir(path.parent) == ["c.json"]


@pytest.mark.parametrize("call", ["mkstemp", "fchown"])
def test_replace__no_file_beside_it(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """As in a folder of root, or if the file belongs to another user: it is written in place."""
    before = path.stat().st_ino
    if call == "mkstemp":
        monkeypatch.setattr(file_writing.tempfile, call, _refuse(errno.EACCES))
    else:
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
        monkeypatch.setattr(os, call, _refuse(errno.EPERM))
    assert _replace(path, []).st_ino == before
    assert path.read_text() == "the new content"
    assert os.listdir(path.parent) == ["c.json"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
@pytest.mark.parametrize("in_place", [False, True])
def test_replace__no_fsync(path: Path, monkeypatch: pytest.MonkeyPatch, number: int, in_place: bool) -> None:
    before = path.stat().st_ino
    monkeypatch.setattr(os, "fsync", _refuse(number))
    if in_place:
        monkeypatch.setattr(os, "replace", _refuse(errno.EBUSY))
    assert (_replace(path, []).st_ino == before) is in_place
    assert path.read_text() == "the new content"
    assert os.listdir(path.parent) == ["c.json"]


def test_replace__refused_and_changed_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that another program writes in the pause stays."""
    monkeypatch.setattr(os, "replace", _refuse(errno.EBUSY))
    size = path.stat().st_size

    def write_meanwhile(seconds: float) -> None:
        path.write_text("another login")

    assert replace_file(str(path), b"new", lambda status: status.st_size == size, write_meanwhile) is None
    assert path.read_text() == "another login"
    assert os.listdir(path.parent) == ["c.json"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_replace__in_place_breaks_off(path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The old content comes back; a backup holds it meanwhile."""
    before, inode, write, backups = path.read_bytes(), path.stat().st_ino, file_writing._write, list[bytes]()

    def break_off(file: Any, data: bytes) -> None:
        if os.fstat(file.fileno()).st_ino == inode and data == b"the new content":
            write(file, data[:5])
            backups.extend(found.read_bytes() for found in path.parent.glob(".c.json.*.bak"))
            assert path.read_bytes() != before
            raise error
        write(file, data)

    monkeypatch.setattr(os, "replace", _refuse(errno.EBUSY))
    monkeypatch.setattr(file_writing, "_write", break_off)
    with pytest.raises(type(error)):
        _replace(path, [])
    assert backups == [before]
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["c.json"]


def test_replace__backup_stays_if_nothing_else_can_be_done(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, inode, write = path.read_bytes(), path.stat().st_ino, file_writing._write

    def break_off(file: Any, data: bytes) -> None:
        if os.fstat(file.fileno()).st_ino == inode:
            raise OSError(errno.EIO, "Input/output error")
        write(file, data)

    monkeypatch.setattr(os, "replace", _refuse(errno.EBUSY))
    monkeypatch.setattr(file_writing, "_write", break_off)
    with pytest.raises(OSError, match="Input/output error"):
        _replace(path, [])
    (backup,) = path.parent.glob(".c.json.*.bak")
    assert backup.read_bytes() == before
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


def test_save__refused_everywhere_stays_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = write_file(tmp_path / "c.json", left=-5), Clock()
    before = path.read_bytes()
    real_open = open

    def refuse_writing(name: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "r+b":
            raise OSError(errno.EROFS, "Read-only file system")
        return real_open(name, mode, *arguments, **options)

    monkeypatch.setattr(os, "replace", _refuse(errno.EROFS))
    monkeypatch.setattr("builtins.open", refuse_writing)
    credentials = scripted(path, ScriptedTransport(Counter(refresh_token="rotated")), clock)
    assert [fetch(credentials), fetch(credentials)] == ["kit-access-1"] * 2
    (warning,) = warnings_in(caplog)
    assert "stays in memory" in warning
    assert "Read-only file system" in warning
    assert path.read_bytes() == before


def test_save__cancelled_in_the_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token serves from memory, although the call ends before it is saved."""
    path, clock = write_file(tmp_path / "c.json", left=-5), Clock()
    monkeypatch.setattr(os, "replace", _refuse(errno.EBUSY))
    call = Call(sleep=Slept(hook=lambda: call.cancel()))
    credentials = scripted(path, ScriptedTransport(Counter()), clock)
    with pytest.raises(Exception, match="cancelled"):
        credentials.fetch(call)
    assert fetch(credentials) == "kit-access-1"
    assert os.listdir(tmp_path) == ["c.json"]


_IN_A_MOUNT = """
import json, logging, subprocess, sys
from gemini_sync.auth import credentials_file
from gemini_sync.network.cancelling import Call
source, target = sys.argv[1:]
subprocess.run(["mount", "--bind", source, target], check=True)
content = credentials_file.update(target, "file-refresh-token", {"access_token": "new"}, Call())
assert content.version == credentials_file.file_version(target)
print(json.dumps([content.access_token, json.load(open(target))["access_token"]]))
"""


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("unshare"), reason="there is no unshare here")
def test_update__file_that_is_mounted_alone(tmp_path: Path) -> None:
    """A real bind mount, in a mount namespace of its own, as Docker makes one of ``-v creds.json:/creds.json``."""
    source, folder = write_file(tmp_path / "source.json"), tmp_path / "container"
    folder.mkdir()
    target = folder / "c.json"
    target.touch()
    probe = ["unshare", "-rm", "mount", "--bind", str(source), str(target)]
    if subprocess.run(probe, capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("this user may not mount anything here")
    child = ["-c", _IN_A_MOUNT, str(source), str(target)]
    launch = f"import os, sys; os.execvp('unshare', ['unshare', '-rm', sys.executable, *{child!r}])"
    ran = run_python("-c", launch)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == ["new", "new"]
    assert json.loads(source.read_text())["access_token"] == "new"
    assert os.listdir(folder) == ["c.json"]
