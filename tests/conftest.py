"""The fixtures of all tests, such as an empty home directory and a running emulator."""

from __future__ import annotations

import gc
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Rig
from tests.support import CORPUS_MISSING, find_corpus

_OURS = ("GEMINI_", "GOOGLE_", "CODE_ASSIST_", "CLOUDSDK_")
_numbers = itertools.count()
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

# Each run tries the same examples, keeps none on disk and has no deadline, because a busy machine could miss it.
hypothesis.settings.register_profile("here", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("here")


def pytest_collection_finish() -> None:
    """The collected tests stay until the end, so the garbage collections of the tests need not look at them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, and an environment without the variables that the package reads."""
    folder = tmp_path_factory.getbasetemp() / f"home-{next(_numbers)}"  # mktemp() would look at all homes each time
    folder.mkdir()
    for name in list(os.environ):
        if (name.startswith(_OURS) and name != "GEMINI_SYNC_CORPUS") or name.upper() in _NETWORK:
            monkeypatch.delenv(name)
    for name, path in {
        "HOME": folder,
        "USERPROFILE": folder,
        "XDG_CONFIG_HOME": folder / ".config",
        "XDG_CACHE_HOME": folder / ".cache",
        "XDG_DATA_HOME": folder / ".local" / "share",
        "XDG_STATE_HOME": folder / ".local" / "state",
        "CLOUDSDK_CONFIG": folder / ".config" / "gcloud",
    }.items():
        monkeypatch.setenv(name, str(path))
    return folder


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Makes Ctrl-C work in the tests and in the programs they start.

    A job that a script starts in the background ignores SIGINT, and so do its children.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A running emulator for one test."""
    with Emulator() as running:
        yield running


@pytest.fixture
def rig(emulator: Emulator, tmp_path: Path) -> Iterator[Rig]:
    """Adapters on that emulator, with a credentials file."""
    with Rig(emulator, tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of shared test data; without it the test is skipped."""
    found = find_corpus()
    if found is None:
        pytest.skip(CORPUS_MISSING)
    return found
