"""The cases of short calls: on an open connection, on fresh TLS connections, and in many threads."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Optional

from gemini_sync import StreamInterrupted
from tests.benchmark import measure
from tests.benchmark import readers as names
from tests.benchmark.measure import MICRO, MILLI, Bench, Samples, Task, consume, paired, ratio, table
from tests.benchmark.payload import Answer
from tests.benchmark.readers import Readers
from tests.benchmark.results import Result

_SHORT = Answer("text", 3, 50)
_CALLS = 40
_STREAMS = 16
_THREADS = (1, 8, 32)
_EACH = Answer("text", 800, 50)
_SILENT = Answer("text", 2, 50, "silent")
_SILENT_STREAMS = 31
_MOST_ROUNDS = 11


def calls(bench: Bench) -> Result:
    """A call of 3 events on an open connection."""
    readers = bench.readers.named(names.OURS, names.PLAIN, names.OAUTH, names.GENAI, names.REQUESTS, names.HTTP_CLIENT)
    measure.verify(readers, _SHORT)

    tasks = {name: partial(measure.read_cpu, reader, _SHORT, _CALLS) for name, reader in readers.items()}
    samples = paired(tasks, bench.rounds)
    result = Result([table("a call of 3 events", "ms per call", samples, MILLI)])
    for other, limit in ((names.REQUESTS, 0.75), (names.GENAI, 0.4)):
        result.expect(f"CPU of a call of 3 events, gemini_sync / {other}", ratio(samples, names.OURS, other), limit)
    return result


def _fresh_connections(bench: Bench, name: str) -> float:
    """CPU seconds of one call on a fresh connection; ``_STREAMS`` streams are open at the same time."""
    readers = Readers(bench.tls_url, bench.bundle)
    reader = readers.named(name)[name]
    found = 0

    def read() -> None:
        nonlocal found
        streams = [iter(reader(_SHORT)) for _ in range(_STREAMS)]
        found = sum(len(next(stream)) for stream in streams) + sum(map(consume, streams))

    with contextlib.closing(readers):
        seconds = measure.cpu_seconds(read)
    if found != _STREAMS * _SHORT.length:
        raise AssertionError(f"{name} found {found} characters")
    return seconds / _STREAMS


def tls(bench: Bench) -> Result:
    """16 fresh TLS connections, each verified against the usual CA bundle with one more CA."""
    os.environ["REQUESTS_CA_BUNDLE"] = bench.bundle
    try:
        tasks = {name: partial(_fresh_connections, bench, name) for name in (names.OURS, names.GENAI, names.REQUESTS)}
        for task in tasks.values():
            task()
        samples = paired(tasks, min(bench.rounds, _MOST_ROUNDS))
    finally:
        del os.environ["REQUESTS_CA_BUNDLE"]
    result = Result([table(f"{_STREAMS} fresh TLS connections", "ms per connection", samples, MILLI)])
    figure = ratio(samples, names.OURS, names.REQUESTS)
    result.expect("CPU of a fresh TLS connection, gemini_sync / bare requests", figure, 0.35)
    return result


@contextlib.contextmanager
def _bound(cores: Optional[set[int]]) -> Iterator[None]:
    """Threads that start in this block run on ``cores`` only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _in_threads(bench: Bench, count: int, cores: Optional[set[int]]) -> float:
    """CPU seconds of one event if ``count`` threads read 32 streams together."""
    streams = max(_THREADS)
    started = threading.Barrier(count)
    with _bound(cores), ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda _: started.wait(), range(count)))
        found: list[int] = []

        def read(_: int) -> None:
            found.append(consume(bench.readers.ours(_EACH)))

        seconds = measure.cpu_seconds(lambda: list(pool.map(read, range(streams))))
    if found != [_EACH.length] * streams:
        raise AssertionError(f"found {sum(found)} characters")
    return seconds / (streams * _EACH.events)


def _threads(count: int) -> str:
    return f"{count} thread" + "s" * (count > 1)


def threads(bench: Bench) -> Result:
    """32 streams in 1, 8 and 32 threads, on one core and on all; a short call beside silent streams."""
    result, most = Result(), _threads(max(_THREADS))
    if hasattr(os, "sched_setaffinity"):
        core = {min(os.sched_getaffinity(0))}
        for cores_name, cores, limit in (("on one core", core, 1.2), ("free", None, 1.8)):
            tasks = {_threads(count): partial(_in_threads, bench, count, cores) for count in _THREADS}
            tasks[most]()
            samples = paired(tasks, min(bench.rounds, _MOST_ROUNDS))
            result.tables.append(table(f"threads, {cores_name}", "us per event", samples, MICRO))
            result.expect(
                f"CPU per event {cores_name}, {most} / {_threads(1)}", ratio(samples, most, _threads(1)), limit
            )
    samples = _beside_silent(bench)
    result.tables.append(table("a call of 3 events, wall time", "ms", samples, MILLI))
    figure = ratio(samples, f"beside {_SILENT_STREAMS} silent streams", "alone")
    result.expect("wall time of a call beside silent streams / alone", figure, 2.0)
    return result


def _wall(bench: Bench) -> float:
    started = time.perf_counter()
    for _ in range(_CALLS):
        consume(bench.readers.ours(_SHORT))
    return (time.perf_counter() - started) / _CALLS


def _beside_silent(bench: Bench) -> Samples:
    def wait(stream: Iterator[str]) -> None:
        with contextlib.suppress(StreamInterrupted):  # cancelled below
            consume(stream)

    def beside() -> float:
        replies = [bench.readers.adapter.stream("Wait.", model=_SILENT.name) for _ in range(_SILENT_STREAMS)]
        with ThreadPoolExecutor(len(replies)) as pool:
            for reply in replies:
                next(reply)
                pool.submit(wait, reply)
            try:
                return _wall(bench)
            finally:
                for reply in replies:
                    reply.cancel()

    tasks: dict[str, Task] = {"alone": partial(_wall, bench), f"beside {_SILENT_STREAMS} silent streams": beside}
    return paired(tasks, min(bench.rounds, _MOST_ROUNDS))
