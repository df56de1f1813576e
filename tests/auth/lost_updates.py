"""Counts how often a save loses the login that another program writes at the same moment.

Run as ``python -m tests.auth.lost_updates``.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from gemini_sync.auth import credentials_file
from gemini_sync.network.cancelling import Call

WAYS = ("in place", "rename")
_ROUNDS = 4_000
_SPREAD_SECONDS = 0.0006  # some saves are faster and some are slower


def _text(login: str) -> bytes:
    return json.dumps({"access_token": f"token-of-{login}", "refresh_token": login, "expiry_date": 1}).encode()


def _write_logins(path: str, way: str, orders: int, done: int) -> None:
    """The other program: writes a login after each delay that it is told."""
    while order := os.read(orders, 8):
        until = time.perf_counter() + struct.unpack("d", order)[0]
        if way == "rename":
            Path(f"{path}.other").write_bytes(_text("theirs"))
        while time.perf_counter() < until:
            continue
        if way == "rename":
            os.replace(f"{path}.other", path)
        else:
            Path(path).write_bytes(_text("theirs"))
        os.write(done, b"x")


def count_lost(folder: Path, way: str, rounds: int = _ROUNDS, seed: int = 1) -> tuple[int, int]:
    """How many logins were lost in so many saves, and before how many of them the save had begun and ended well."""
    path, rng = str(folder / "c.json"), random.Random(seed)
    (ordered, order), (done, tell) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(order)
            _write_logins(path, way, ordered, tell)
        finally:
            os._exit(0)
    os.close(ordered)
    os.close(tell)
    lost = raced = 0
    try:
        with mock.patch("os.fsync"):  # a slow disk spreads the writes over too long a time
            for _ in range(rounds):
                Path(path).write_bytes(_text("ours"))
                os.write(order, struct.pack("d", rng.random() * _SPREAD_SECONDS))
                content = credentials_file.update(path, "ours", {"access_token": "refreshed"}, Call())
                raced += content.refresh_token == "ours"
                assert os.read(done, 1), "the other program has ended"
                lost += json.loads(Path(path).read_bytes())["refresh_token"] != "theirs"
    finally:
        os.close(order)
        os.waitpid(child, 0)
        os.close(done)
    return lost, raced


def main() -> int:
    total = 0
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            lost, raced = count_lost(Path(folder), way)
        total += lost
        print(f"{way}: {lost} logins lost in {_ROUNDS} saves, {raced} of which were done before the login was seen")
    return total


if __name__ == "__main__":
    sys.exit(main() > 1)
