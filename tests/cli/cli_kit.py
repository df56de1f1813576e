"""Knows what the tests of the command line share: its user's environment, and chunks to answer with."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest

from gemini_sync.testing import Emulator

ASK = ("-m", "gemini_sync.cli", "ask")
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")

Captured = pytest.CaptureFixture[str]


def use_key(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this the environment of somebody who uses an API key, with a standard input that is empty."""
    monkeypatch.setenv("GEMINI_API_KEY", emulator.key)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", emulator.url)
    monkeypatch.setattr("sys.stdin", io.StringIO())


def candidate(text: str, **fields: Any) -> dict[str, Any]:
    """A chunk with that text."""
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, **fields}]}
