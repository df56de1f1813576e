"""What users need to test code that streams: the emulator."""

from gemini_sync.testing.emulator import Emulator

__all__ = ["Emulator"]
