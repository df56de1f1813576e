"""Helpers for testing code that streams."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gemini_sync.testing.emulator import Emulator

if TYPE_CHECKING:
    from gemini_sync.testing.cassette.values import CassetteError
    from gemini_sync.testing.faults import broken
    from gemini_sync.testing.recorder import record
    from gemini_sync.testing.registering import add_error, add_stream
    from gemini_sync.testing.replayer import UnmatchedRequest, replay

__all__ = [
    "CassetteError",
    "Emulator",
    "UnmatchedRequest",
    "add_error",
    "add_stream",
    "broken",
    "record",
    "replay",
]

# What needs PyYAML or responses is imported as it is used, so that the emulator needs neither.
_LATER = {
    "CassetteError": "gemini_sync.testing.cassette.values",
    "UnmatchedRequest": "gemini_sync.testing.replayer",
    "add_error": "gemini_sync.testing.registering",
    "add_stream": "gemini_sync.testing.registering",
    "broken": "gemini_sync.testing.faults",
    "record": "gemini_sync.testing.recorder",
    "replay": "gemini_sync.testing.replayer",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_LATER[name]), name)
    except ModuleNotFoundError as exc:
        if exc.name not in ("responses", "yaml"):
            raise
        needed = "pip install 'gemini-sync[testing]'"
        raise ImportError(f"gemini_sync.testing.{name} needs {exc.name}, which is not installed: {needed}") from exc
