"""The command line, ``gemini-sync``."""

from gemini_sync.cli.main import main

__all__ = ["main"]
