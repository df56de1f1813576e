"""Knows the cases of ordinary streams: many small events, in a burst, paced, and without an end in sight."""

from __future__ import annotations

import time
from functools import partial

from tests.benchmark import readers as names
from tests.benchmark.measure import MICRO, Bench, Samples, consume, median, paired, peak_bytes, ratio, read_cpu, table, verify
from tests.benchmark.payload import Answer, event_bytes, text_of
from tests.benchmark.results import Result, Row, Table

_SMALL = ((Answer("text", 2000, 50), 1 / 15, 1.25), (Answer("text", 300, 4096), 1 / 7.5, 1.5))
_PACED = Answer("text", 300, 50, "paced")
_ENDLESS = Answer("text", 200_000, 50)
_ENDLESS_ROUNDS = 3


def _per_event(bench: Bench, answer: Answer, *wanted: str) -> Samples:
    readers = bench.readers.named(*wanted)
    verify(readers, answer)
    samples = paired({name: partial(read_cpu, reader, answer) for name, reader in readers.items()}, bench.rounds)
    return {name: [seconds / answer.events for seconds in values] for name, values in samples.items()}


def small(bench: Bench) -> Result:
    """CPU per event, all events sent at once."""
    result = Result()
    for answer, genai_limit, loop_limit in _SMALL:
        samples = _per_event(bench, answer)
        title = f"{answer.events} events of {answer.size} characters ({event_bytes(answer)} bytes each)"
        result.tables.append(table(title, "us per event", samples, MICRO))
        for name, other, limit in (
            (names.OURS, names.GENAI, genai_limit),
            (names.OURS, names.HTTP_CLIENT, loop_limit),
            (names.CHUNKS, names.OURS, 1.25),
            (names.OAUTH, names.OURS, 1.25),
            (names.PLAIN, names.OURS, 1.1),
        ):
            what = f"CPU per event of {answer.size} characters, {name} / {other}"
            result.expect(what, ratio(samples, name, other), limit)
    return result


def paced(bench: Bench) -> Result:
    """CPU per event, one sent each millisecond: every event costs a system call, and the scheduler."""
    samples = _per_event(bench, _PACED, names.OURS, names.GENAI, names.SSECLIENT, names.REQUESTS, names.HTTP_CLIENT)
    return Result([table(f"{_PACED.events} events of {_PACED.size} characters, one per ms", "us per event", samples, MICRO)])


def _quarters(bench: Bench) -> list[float]:
    """The CPU seconds of each quarter of the endless stream."""
    marks, quarter = [time.process_time()], _ENDLESS.events // 4
    found = 0
    for number, text in enumerate(bench.readers.ours(_ENDLESS), 1):
        found += len(text)
        if number % quarter == 0:
            marks.append(time.process_time())
    if found != _ENDLESS.length:
        raise AssertionError(f"found {found} characters of {_ENDLESS.length}")
    return [after - before for before, after in zip(marks, marks[1:])]


def endless(bench: Bench) -> Result:
    """200,000 events in one stream: no event costs more for those before it, and only the text stays in memory."""
    rounds = [_quarters(bench) for _ in range(_ENDLESS_ROUNDS)]
    samples = {f"quarter {number + 1}": [quarters[number] for quarters in rounds] for number in range(4)}
    per_event = MICRO / (_ENDLESS.events // 4)
    peak = peak_bytes(lambda: consume(bench.readers.ours(_ENDLESS)))
    text_bytes = len(text_of(_ENDLESS).encode())
    result = Result([table(f"{_ENDLESS.events} events in one stream", "us per event", samples, per_event)])
    memory = [Row("peak while reading", peak / 2**20), Row("the text alone", text_bytes / 2**20)]
    result.tables.append(Table(f"{_ENDLESS.events} events in one stream: memory", "MiB, tracemalloc", memory))
    growth = median(last / first for first, *_, last in rounds)
    result.expect(f"CPU of {_ENDLESS.events} events, last quarter / first", growth, 1.15)
    result.expect(f"peak memory of {_ENDLESS.events} events / their text", peak / text_bytes, 3.0)
    return result
