"""Saving cassettes: in one step, under a lock, by several processes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gemini_sync.testing import CassetteError
from gemini_sync.testing.cassette import storing
from gemini_sync.testing.cassette.storing import load, locked, save
from gemini_sync.testing.cassette.values import (
    Body,
    Exchange,
    Request,
    Response,
)
from tests.support import run_python
from tests.testing.cassette_kit import tape_of
from tests.testing.test_cassette_files import TAPE


def test_save__makes_folders_and_keeps_the_mode_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "tape.yaml"
    save(TAPE, path)
    assert load(path).exchanges == TAPE.exchanges
    os.chmod(path, 0o640)
    save(tape_of(), path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(path.parent) == ["tape.yaml"]


def test_save__leaves_the_old_file_if_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tape.yaml"
    save(tape_of(), path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storing.os, "replace", fail)
    with pytest.raises(CassetteError, match=r"tape\.yaml cannot be written: No space left"):
        save(TAPE, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["tape.yaml"]


def test_save__refuses_what_would_not_read_back(tmp_path: Path) -> None:
    odd = tape_of(Exchange(Request("POST", "https://host/", {}, b""), Response(True, {}, Body())))
    with pytest.raises(CassetteError):
        save(odd, tmp_path / "tape.yaml")
    assert os.listdir(tmp_path) == []


def test_lock__is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path, inside, worst = tmp_path / "tape.yaml", [0], [0]
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait(20)
        for _ in range(20):
            with locked(path):
                inside[0] += 1
                worst[0] = max(worst[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (worst[0], inside[0]) == (1, 0)
    assert os.listdir(tmp_path) == []


def test_lock__that_cannot_be_taken(tmp_path: Path) -> None:
    (tmp_path / ".tape.yaml.lock").mkdir()
    with pytest.raises(CassetteError, match=r"The lock .*tape\.yaml\.lock of the cassette cannot be taken"):
        locked(tmp_path / "tape.yaml").__enter__()


def test_two_processes__lose_nothing(emulator, tmp_path: Path) -> None:
    """Both begin before either ends."""
    program = """
import sys
from gemini_sync import Endpoints, stream_gemini_api_key
from gemini_sync.testing import record
path, url, key, name = sys.argv[1:]
with record(path):
    "".join(stream_gemini_api_key(name, key, endpoints=Endpoints(gemini=url)))
"""
    path, both_in = tmp_path / "tape.yaml", threading.Barrier(2)
    emulator.api_key.before = lambda: both_in.wait(30)
    done = []

    def run(name: str) -> None:
        done.append(run_python("-c", program, str(path), emulator.url, emulator.key, name))

    threads = [threading.Thread(target=run, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [child.stderr for child in done] == ["", ""]
    sent = [exchange.request.body for exchange in load(path).exchanges]
    assert sorted(b"first" in body for body in sent) == [False, True]
    assert os.listdir(tmp_path) == ["tape.yaml"]
