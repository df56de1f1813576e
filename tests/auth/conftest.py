"""The fixtures of the tests of credentials: a clock that stands still, and a credentials file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.auth.credentials_kit import Clock, write_file


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a good access token, in a folder of its own."""
    folder = tmp_path / "creds"
    folder.mkdir()
    return write_file(folder / "c.json")
