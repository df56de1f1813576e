"""The case of recorded responses: what replaying a stream and loading a file cost."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gemini_sync import Endpoints, stream_gemini_api_key
from gemini_sync.testing import Emulator, record, replay
from gemini_sync.testing.cassette.storing import load, save
from gemini_sync.testing.cassette.values import Cassette
from gemini_sync.testing.emulator.messages import sse_event
from tests.benchmark.measure import MEBI, MILLI, Bench, consume, cpu_seconds, median, paired, ratio, table
from tests.benchmark.results import Result

_EVENTS = 10_000
_FILE_MEBI = 20
_MOST_ROUNDS = 7
_EMULATOR, _REPLAY, _REPLAY_FILE = "the emulator", "a replay", "a replay, and loading its file"


def cassettes(bench: Bench) -> Result:
    """A stream of 10,000 events from the emulator and from a recording of it, and a file of 20 MiB."""
    rounds = min(bench.rounds, _MOST_ROUNDS)
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
        path, large = Path(folder, "stream.yaml"), Path(folder, "large.yaml")
        events = [sse_event(_chunk(number)) for number in range(_EVENTS)]
        emulator.api_key.answer(body=b"".join(events), pieces=events)
        endpoints = Endpoints(**emulator.urls)

        def read() -> None:
            if not consume(stream_gemini_api_key("Hi", emulator.key, "m", endpoints=endpoints)):
                raise AssertionError("nothing came")

        def read_file() -> None:
            with replay(path):
                read()

        with record(path):
            read()
        tape = load(path)

        def read_tape() -> None:
            with replay(tape):
                read()

        tasks = {_EMULATOR: read, _REPLAY: read_tape, _REPLAY_FILE: read_file}
        samples = paired({name: _cpu(task) for name, task in tasks.items()}, rounds)
        copies = _FILE_MEBI * MEBI // os.path.getsize(path) + 1
        save(Cassette(tape.exchanges * copies), large)
        seconds = [_wall(large) for _ in range(rounds)]
        size = os.path.getsize(large) / MEBI
    result = Result([table(f"{_EVENTS} events of a stream", "ms", samples, MILLI)])
    result.expect(f"CPU of {_REPLAY} / {_EMULATOR}", ratio(samples, _REPLAY, _EMULATOR), 2.0)
    result.expect(f"CPU of {_REPLAY_FILE} / {_EMULATOR}", ratio(samples, _REPLAY_FILE, _EMULATOR), 2.0)
    result.expect(f"seconds to load a cassette of {size:.0f} MiB", median(seconds), 2.0)
    return result


def _chunk(number: int) -> dict[str, object]:
    candidate = {"content": {"parts": [{"text": f"piece {number} of the answer"}], "role": "model"}, "index": 0}
    last = {"finishReason": "STOP"} if number == _EVENTS - 1 else {}
    return {"candidates": [{**candidate, **last}], "usageMetadata": {"totalTokenCount": number}, "modelVersion": "m"}


def _cpu(task: Callable[[], object]) -> Callable[[], float]:
    return lambda: cpu_seconds(task)


def _wall(path: Path) -> float:
    started = time.perf_counter()
    load(path)
    return time.perf_counter() - started
