"""Helpers for the tests of the command line: the environment of a user, and chunks to answer with."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest

from gemini_sync.testing import Emulator

ASK = ("-m", "gemini_sync.cli", "ask")
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs the signals and terminals of POSIX")

Captured = pytest.CaptureFixture[str]


def use_key(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment of a user with an API key; standard input is empty."""
    monkeypatch.setenv("GEMINI_API_KEY", emulator.key)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", emulator.url)
    monkeypatch.setattr("sys.stdin", io.StringIO())


def candidate(text: str, **fields: Any) -> dict[str, Any]:
    """A chunk with ``text``; ``fields`` are further fields of its candidate."""
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, **fields}]}
