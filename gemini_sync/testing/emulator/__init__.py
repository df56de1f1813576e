"""A loopback Gemini: both endpoints and the token endpoint, scriptable; it imports nothing else of gemini_sync."""

from __future__ import annotations

from gemini_sync.testing.emulator.answers import Answer, default_text
from gemini_sync.testing.emulator.routes import Route
from gemini_sync.testing.emulator.server import Emulator
from gemini_sync.testing.emulator.wire import Recorded

__all__ = ["Answer", "Emulator", "Recorded", "Route", "default_text"]
