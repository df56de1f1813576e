"""The demo shows the fallback, reports a step that fails, and leaves no files and no threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from gemini_sync import cli
from gemini_sync.adapter import GeminiDualAdapter
from gemini_sync.cli import demo
from gemini_sync.testing.emulator import default_text
from tests.support import run_python

TEXT = default_text("Why is the sky blue?")
_DEMO = """
import sys
from gemini_sync import cli
from gemini_sync.cli import demo
demo._PACE_SECONDS = None
sys.exit(cli.main(["demo"]))
"""


def snapshot(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_demo__from_the_command_line(home: Path, tmp_path: Path) -> None:
    """The demo does not use the proxies, keys and credentials of the environment. Only its pace is changed."""
    nowhere = "http://127.0.0.1:9"
    hostile = {
        **dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "GOOGLE_GEMINI_BASE_URL"), nowhere),
        "CODE_ASSIST_ENDPOINT": nowhere,
        "GEMINI_API_KEY": "not-the-emulators",
        "GOOGLE_CLOUD_PROJECT": "12345",
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "missing.json"),
        "TMPDIR": str(tmp_path),
    }
    done = run_python("-c", _DEMO, env=hostile, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(TEXT) == 4
    served = [line.split()[2] for line in done.stdout.splitlines() if "served by" in line]
    assert served == ["oauth", "api_key", "api_key", "oauth"]
    assert done.stderr.startswith("gemini-sync: OAuth failed")
    assert done.stderr.count("\n") == 1
    assert snapshot(home) == []
    assert snapshot(tmp_path) == []


def test_demo__answers_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_PACE_SECONDS", None)
    pieces: list[str] = []
    demo.run(pieces.append)
    assert "".join(pieces).count(TEXT) == 4
    assert TEXT not in pieces


@pytest.mark.parametrize(
    ("owner", "name", "broken", "step"),
    [
        (demo, "default_text", lambda prompt: "another answer", "1"),
        (GeminiDualAdapter, "fallback_active", property(lambda self: False), "2"),
        (GeminiDualAdapter, "reset", lambda self: None, "4"),
    ],
)
def test_demo__step_that_fails(
    owner: Any, name: str, broken: Any, step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_PACE_SECONDS", None)
    monkeypatch.setattr(owner, name, broken)
    assert cli.main(["demo"]) == 1
    assert f"gemini-sync: Step {step} of the demo failed: " in capsys.readouterr().err


def test_demo__leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_PACE_SECONDS", None)
    before = set(threading.enumerate())
    environment = dict(os.environ)
    demo.run(lambda text: None)
    assert set(threading.enumerate()) == before
    assert dict(os.environ) == environment
