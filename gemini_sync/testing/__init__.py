"""Helpers for testing code that streams."""

from gemini_sync.testing.emulator import Emulator

__all__ = ["Emulator"]
