"""A Gemini on this machine for tests: both endpoints and the token endpoint, with scripted answers and failures."""

from __future__ import annotations

from gemini_sync.testing.emulator.answers import ScriptedAnswer, default_text
from gemini_sync.testing.emulator.emulator import Emulator
from gemini_sync.testing.emulator.messages import Recorded
from gemini_sync.testing.emulator.script import Route

__all__ = ["Emulator", "Recorded", "Route", "ScriptedAnswer", "default_text"]
