"""Many reads of one login, by threads at once, and while another program writes the file."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.network.cancelling import Call
from tests.auth.credentials_kit import (
    Clock,
    Counter,
    ScriptedTransport,
    fetch,
    scripted,
    together,
    write_file,
)
from tests.support import python_child


@pytest.mark.parametrize("persist", [False, True])
def test_fetch__twenty_threads_two_thousand_reads(tmp_path: Path, persist: bool) -> None:
    lifetime, step = (8.0, 0.01) if not persist else (80.0, 0.01)
    clock = Clock()
    counter = Counter(lifetime)
    credentials = scripted(write_file(tmp_path / "c.json", left=-5), ScriptedTransport(counter), clock, persist=persist)
    expiries: dict[str, Any] = {}

    def read() -> int:
        mixed = 0
        for _ in range(2000):
            token: AccessToken = credentials.fetch(Call())
            mixed += expiries.setdefault(token.access_token, token.expires_at) != token.expires_at
            clock.advance(step)
        return mixed

    assert together(20, read) == [0] * 20
    elapsed = 20 * 2000 * step
    ahead = lifetime / 16
    assert elapsed / lifetime - 1 <= counter.issued <= elapsed / (lifetime - ahead) + 1
    issued = [expiries[f"kit-access-{number + 1}"] for number in range(counter.issued)]
    assert issued == sorted(issued)


_WRITER = """
import json, sys, time
path, rounds = sys.argv[1], int(sys.argv[2])
with open(path) as file:
    document = json.load(file)
print(flush=True)
for number in range(rounds):
    document["access_token"] = "written-" + str(number)
    document["expiry_date"] += 1000
    with open(path, "w") as file:
        file.flush()
        time.sleep(0.003)
        text = json.dumps(document)
        file.write(text[:40])
        file.flush()
        time.sleep(0.003)
        file.write(text[40:])
    time.sleep(0.004)
"""


def test_fetch__writer_that_truncates_every_ten_milliseconds(tmp_path: Path) -> None:
    path = write_file(tmp_path / "c.json")
    credentials = scripted(path, ScriptedTransport(), Clock())
    slept: list[float] = []

    def pause(seconds: float) -> None:
        slept.append(seconds)
        pausing.wait(seconds)

    pausing = threading.Event()
    seen = set()
    with python_child("-c", _WRITER, str(path), "100") as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while writer.poll() is None:
            seen.add(credentials.fetch(Call(sleep=pause)).access_token)
    assert writer.returncode == 0
    assert len(seen) > 10
    assert len(slept) > 10  # the file was read while it was half written
    assert fetch(credentials) == "written-99"
