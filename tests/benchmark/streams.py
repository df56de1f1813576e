"""The cases of ordinary streams: many small events in a burst, paced, and in a very long stream."""

from __future__ import annotations

import sys
import time
from functools import partial

from tests.benchmark import measure
from tests.benchmark import readers as names
from tests.benchmark.measure import MEBI, MICRO, Bench, Samples, consume, median, paired, ratio, table
from tests.benchmark.payload import Answer, event_bytes
from tests.benchmark.results import Result, Row, Table

_SMALL = ((Answer("text", 2000, 50), 1 / 15, 1.25), (Answer("text", 300, 4096), 1 / 7.5, 1.3))
_PACED = Answer("text", 300, 50, "paced")
_ENDLESS = Answer("text", 200_000, 50)
_ENDLESS_ROUNDS = 3
_SLICE = 2500


def _per_event(bench: Bench, answer: Answer, *wanted: str) -> Samples:
    readers = bench.readers.named(*wanted)
    measure.verify(readers, answer)
    samples = paired(
        {name: partial(measure.read_cpu, reader, answer) for name, reader in readers.items()}, bench.rounds
    )
    return {name: [seconds / answer.events for seconds in values] for name, values in samples.items()}


def small(bench: Bench) -> Result:
    """CPU per event if all events are sent at once."""
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
    """CPU per event if one is sent each millisecond, so that each costs a system call and the scheduler."""
    samples = _per_event(bench, _PACED, names.OURS, names.GENAI, names.SSECLIENT, names.REQUESTS, names.HTTP_CLIENT)
    title = f"{_PACED.events} events of {_PACED.size} characters, one per ms"
    result = Result([table(title, "us per event", samples, MICRO)])
    result.expect(
        f"CPU of {title}, gemini_sync / http.client loop", ratio(samples, names.OURS, names.HTTP_CLIENT), 1.35
    )
    return result


def _quarters(bench: Bench) -> list[float]:
    """The CPU seconds of an event in each quarter of the very long stream."""
    marks, found = [time.process_time()], 0
    for number, text in enumerate(bench.readers.ours(_ENDLESS), 1):
        found += len(text)
        if number % _SLICE == 0:
            marks.append(time.process_time())
    if found != _ENDLESS.length:
        raise AssertionError(f"found {found} characters of {_ENDLESS.length}")
    slices = [(after - before) / _SLICE for before, after in zip(marks, marks[1:])]
    quarter = len(slices) // 4
    # Medians of slices, because other programs on the machine come and go within seconds.
    return [median(slices[start : start + quarter]) for start in range(0, len(slices), quarter)]


def endless(bench: Bench) -> Result:
    """200,000 events in one stream: the last cost no more than the first, and only the text stays in memory."""
    rounds = [_quarters(bench) for _ in range(_ENDLESS_ROUNDS)]
    samples = {f"quarter {number + 1}": [quarters[number] for quarters in rounds] for number in range(4)}
    title = f"{_ENDLESS.events} events in one stream"
    result = Result([table(title, "us per event", samples, MICRO)])
    result.expect(f"CPU of {title}, last quarter / first", ratio(samples, "quarter 4", "quarter 1"), 1.15)
    reply = bench.readers.ours(_ENDLESS)
    peak = measure.peak_bytes(lambda: consume(reply))
    text = sys.getsizeof(reply.text)
    memory = [Row("the text as a string", text / MEBI, 1.0), Row("peak while reading", peak / MEBI, peak / text)]
    result.tables.append(Table(f"{title}: memory", "MiB, tracemalloc", memory))
    result.expect(f"peak memory of {title} / the text", peak / text, 3.0)
    return result
