"""The exercise of the README: OAuth breaks, one message says so, the API key answers until ``reset()``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gemini_sync import GeminiDualAdapter
from gemini_sync.routing.events import notify_stderr
from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Gate, Rig
from tests.auth.credentials_kit import together

PROMPT = "Why is the sky blue?"
THREADS = 20


def served_by(adapter: GeminiDualAdapter) -> str:
    """The route that streamed the whole answer."""
    with adapter.stream(PROMPT) as reply:
        assert "".join(reply) == default_text(PROMPT)
    assert reply.route is not None
    return reply.route


def truncate(path: Path) -> None:
    path.write_text(path.read_text()[:40])


def remove(path: Path) -> None:
    path.unlink()


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def empty(path: Path) -> None:
    path.write_bytes(b"")


BREAKS = [truncate, remove, replace_by_folder, empty]


@pytest.mark.parametrize("break_file", BREAKS)
def test_exercise(rig: Rig, capfd: pytest.CaptureFixture[str], break_file: Callable[[Path], None]) -> None:
    adapter = rig.adapter(on_fallback=notify_stderr)
    good = rig.path.read_bytes()
    assert (served_by(adapter), adapter.fallback_active) == ("oauth", False)
    assert capfd.readouterr() == ("", "")

    break_file(rig.path)
    assert (served_by(adapter), adapter.fallback_active) == ("api_key", True)
    out, line = capfd.readouterr()
    assert out == ""
    assert line.startswith("gemini-sync: OAuth failed (CredentialsError: ")
    assert str(rig.path) in line
    assert "the API key serves the rest of this session. To go back, fix this, then call reset().\n" in line
    assert line.count("\n") == 1
    assert (served_by(adapter), served_by(adapter)) == ("api_key", "api_key")

    if rig.path.is_dir():
        rig.path.rmdir()
    rig.path.write_bytes(good)
    os.chmod(rig.path, 0o600)
    assert [served_by(adapter) for _ in range(3)] == ["api_key"] * 3
    assert adapter.fallback_active
    assert rig.counts == (1, 6)
    assert capfd.readouterr() == ("", "")

    adapter.reset()
    assert not adapter.fallback_active
    assert (served_by(adapter), adapter.fallback_active) == ("oauth", False)
    assert capfd.readouterr() == ("", "")

    break_file(rig.path)
    assert served_by(adapter) == "api_key"
    assert capfd.readouterr().err == line


def test_exercise__with_threads(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    adapter = rig.adapter(on_fallback=notify_stderr)
    good = rig.path.read_bytes()
    assert together(THREADS, lambda: served_by(adapter)) == ["oauth"] * THREADS
    assert capfd.readouterr() == ("", "")

    truncate(rig.path)
    assert together(THREADS, lambda: served_by(adapter)) == ["api_key"] * THREADS
    assert capfd.readouterr().err.count("\n") == 1

    rig.path.write_bytes(good)
    assert together(THREADS, lambda: served_by(adapter)) == ["api_key"] * THREADS
    assert rig.counts == (THREADS, 2 * THREADS)
    adapter.reset()
    assert together(THREADS, lambda: served_by(adapter)) == ["oauth"] * THREADS
    assert capfd.readouterr() == ("", "")


def test_exercise__file_breaks_while_streams_run(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    """Streams that run over OAuth go on to their end, although later calls fall back."""
    gate = Gate()
    rig.emulator.oauth.answer(pace=lambda index: gate() if index == 2 else None)
    adapter = rig.adapter(on_fallback=notify_stderr)
    early = [adapter.stream(PROMPT) for _ in range(3)]
    begun = [next(reply) for reply in early]
    gate.await_arrivals(3)
    truncate(rig.path)
    assert served_by(adapter) == "api_key"
    gate.open()
    for first, reply in zip(begun, early):
        assert first + "".join(reply) == default_text(PROMPT)
        assert reply.route == "oauth"
    assert rig.counts == (3, 1)
    assert capfd.readouterr().err.count("\n") == 1
