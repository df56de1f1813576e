"""The lock between processes: who it keeps out, for how long, when it ends, and what happens where there is none."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import stat
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Optional

import pytest

from gemini_sync.auth import file_lock
from gemini_sync.auth.file_lock import locked
from gemini_sync.config import Timeouts
from gemini_sync.errors import DeadlineExceeded, StreamInterrupted
from gemini_sync.network.cancelling import Call
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Gate, in_thread
from tests.auth.credentials_kit import Clock, Counter, ScriptedTransport, Slept, emulated, fetch, scripted, write_file
from tests.support import in_child, python_child

needs_posix = pytest.mark.skipif(os.name != "posix", reason="fork and signals are POSIX")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(write_file(tmp_path / "c.json", left=-5))


def _is_free(path: str) -> bool:
    try:
        with locked(path, 0, _never):
            return True
    except BlockingIOError:
        return False


def _never(seconds: float) -> None:
    raise AssertionError("nothing waits here")


def test_locked__keeps_threads_out_until_its_end(path: str) -> None:
    with locked(path, 0, _never):
        assert in_thread(lambda: _is_free(path))() is False
    assert _is_free(path)


def test_locked__by_another_name_of_the_file(path: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link.json").symlink_to(path)
    with locked(str(tmp_path / "folder" / "link.json"), 0, _never):
        assert not _is_free(path)


def test_locked__leaves_nothing_behind(path: str) -> None:
    folder = os.path.dirname(path)
    with suppress(KeyError), locked(path, 0, _never):
        (beside,) = set(os.listdir(folder)) - {"c.json"}
        assert beside == ".c.json.lock"
        assert stat.S_IMODE(os.stat(os.path.join(folder, beside)).st_mode) == 0o600
        raise KeyError
    assert os.listdir(folder) == ["c.json"]
    assert _is_free(path)


def test_locked__waits_for_so_long(path: str) -> None:
    slept: list[float] = []
    with locked(path, 0, _never), pytest.raises(BlockingIOError), locked(path, 1, slept.append):
        pass
    assert sum(slept) == pytest.approx(1)
    with ExitStack() as holder:
        holder.enter_context(locked(path, 0, _never))
        with locked(path, 1, lambda seconds: holder.close()):
            assert not _is_free(path)


def test_locked__others_remove_the_file_before_it_is_locked(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder removes it while we have it open already. What we lock then is on no disk."""
    take, removed = file_lock._lock, list[str]()

    def lock(descriptor: int) -> None:
        if not removed:
            removed.append(os.path.join(os.path.dirname(path), ".c.json.lock"))
            os.unlink(removed[0])
        take(descriptor)

    monkeypatch.setattr(file_lock, "_lock", lock)
    with locked(path, 1, Slept()):
        assert os.path.exists(removed[0])
        assert not _is_free(path)


@needs_posix
def test_locked__does_not_follow_a_link(path: str, tmp_path: Path) -> None:
    (tmp_path / ".c.json.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), locked(path, 1, _never):
        pass
    assert not (tmp_path / "elsewhere").exists()


_HOLD = """
import sys, time
from gemini_sync.auth.file_lock import locked
with locked(sys.argv[1], 0, time.sleep):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_locked__ends_with_its_process(path: str, end: str) -> None:
    with python_child("-c", _HOLD, path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert not _is_free(path)
        if end == "kill":
            child.kill()
        child.communicate("")
    assert _is_free(path)


@needs_posix
def test_locked__a_forked_child_does_not_keep_it(path: str) -> None:
    reading, writing = os.pipe()
    with locked(path, 0, _never):
        child = in_child(lambda: os.read(reading, 1).decode())
    assert _is_free(path)
    os.write(writing, b"x")
    assert child() == "x"
    os.close(reading)
    os.close(writing)


# -- a refresh


def test_refresh__waits_and_takes_the_token_of_another_process(path: str) -> None:
    transport, clock = ScriptedTransport(), Clock()
    credentials = scripted(path, transport, clock)
    with ExitStack() as holder:
        holder.enter_context(locked(path, 0, _never))

        def refreshed_by_another() -> None:
            write_file(Path(path), access_token="of-another", refresh_token="rotated")
            holder.close()

        assert credentials.fetch(Call(sleep=Slept(hook=refreshed_by_another))).access_token == "of-another"
    assert transport.forms == []


def test_refresh__is_one_for_two_adapters(path: str) -> None:
    clock, gate, counter = Clock(), Gate(), Counter()
    transport = ScriptedTransport(lambda: (gate(), counter())[1])
    first = in_thread(lambda: fetch(scripted(path, transport, clock)))
    gate.await_arrivals()

    def let_the_first_end(seconds: float) -> None:
        gate.open()
        first()

    second = scripted(path, transport, clock).fetch(Call(sleep=let_the_first_end)).access_token
    assert first() == second == "kit-access-1"
    assert len(transport.forms) == 1


def test_refresh__early_does_not_wait(path: str) -> None:
    """The token still serves, and another process refreshes it."""
    write_file(Path(path), left=100)
    credentials = scripted(path, ScriptedTransport(), Clock())
    with locked(path, 0, _never):
        assert credentials.fetch(Call(sleep=_never)).access_token == "file-access-token"


def test_refresh__goes_on_after_a_long_wait(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gemini_sync")
    slept = Slept()
    with locked(path, 0, _never):
        credentials = scripted(path, ScriptedTransport(Counter()), Clock())
        assert credentials.fetch(Call(sleep=slept)).access_token == "kit-access-1"
    assert 30 <= sum(slept) < 31
    assert "another process holds the lock" in caplog.text


def test_refresh__cancelled_while_it_waits(path: str) -> None:
    credentials, call = scripted(path, ScriptedTransport(), Clock()), Call()
    with locked(path, 0, _never):
        refreshing = in_thread(lambda: credentials.fetch(call))
        call.cancel()
        with pytest.raises(StreamInterrupted):
            refreshing()


def test_refresh__deadline_while_it_waits(path: str) -> None:
    clock = Clock()
    call = Call(Timeouts(total=5), clock=clock, sleep=Slept(clock)).start()
    with locked(path, 0, _never), pytest.raises(DeadlineExceeded, match="total"):
        scripted(path, ScriptedTransport(), clock).fetch(call)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EROFS, errno.EACCES])
def test_refresh__where_there_is_no_lock(
    path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    in_the_folder = number in (errno.EROFS, errno.EACCES)
    monkeypatch.setattr(file_lock, "_open_ours" if in_the_folder else "_lock", refuse)
    caplog.set_level(logging.INFO, "gemini_sync")
    clock = Clock()
    credentials = scripted(path, ScriptedTransport(Counter()), clock)
    assert fetch(credentials) == "kit-access-1"
    clock.advance(4000)
    assert fetch(credentials) == "kit-access-2"
    assert [record.getMessage() for record in caplog.records] == [f"No lock for {path}: {os.strerror(number)}"]


@pytest.mark.parametrize("style", ["gemini-cli", "authorized_user"])
def test_refresh__that_is_not_saved_takes_no_lock(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    path = emulator.write_credentials(tmp_path / "c.json", expires_in=-5, style=style)
    monkeypatch.setattr("gemini_sync.auth.file_source.locked", _never)
    assert emulated(path, emulator, persist=style == "authorized_user").token()


# -- Windows


class _Msvcrt(ModuleType):
    """Locks as Windows does: for one open file each, at the position of that."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.taken: Optional[int] = None

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert (os.lseek(descriptor, 0, os.SEEK_CUR), count) == (0, 1)
        if mode == self.LK_UNLCK:
            assert self.taken == descriptor
            self.taken = None
        elif self.taken is not None:
            raise PermissionError(errno.EACCES, "Permission denied")
        else:
            self.taken = descriptor


@pytest.fixture
def on_windows(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as Windows imports it."""
    msvcrt = _Msvcrt()
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    spec = importlib.util.spec_from_file_location("file_lock_of_windows", file_lock.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        spec.loader.exec_module(module)
    assert not hasattr(module, "fcntl")
    return SimpleNamespace(locked=module.locked, msvcrt=msvcrt)


def test_locked__on_windows(on_windows: Any, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(name: str) -> None:
        raise PermissionError(errno.EACCES, "The process cannot access the file")

    monkeypatch.setattr(os, "unlink", keep)
    for _ in range(2):  # the file stays, because it is open when it should be removed
        with on_windows.locked(path, 0, _never):
            assert on_windows.msvcrt.taken is not None
            with pytest.raises(BlockingIOError), on_windows.locked(path, 0.1, Slept()):
                pass
        assert on_windows.msvcrt.taken is None
