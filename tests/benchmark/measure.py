"""Knows how to measure fairly: CPU time, readers in turn, medians of paired rounds; knows no case and no limit."""

from __future__ import annotations

import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass

from tests.benchmark.payload import Answer, text_of
from tests.benchmark.readers import Reader, Readers
from tests.benchmark.results import Row, Table

Samples = dict[str, list[float]]
Task = Callable[[], float]

MICRO, MILLI = 1e6, 1e3
MEBI = 2**20


@dataclass(frozen=True)
class Bench:
    """What a case is given.

    Attributes:
        readers: of the server that speaks plain HTTP.
        tls_url: of the one that speaks TLS; ``bundle`` is the CA bundle that verifies it.
        rounds: how many times each reader has its turn; cases whose turns are long take fewer.
    """

    readers: Readers
    tls_url: str
    bundle: str
    rounds: int


def consume(pieces: Iterable[Sized]) -> int:
    """Read to the end and keep nothing; the total length."""
    total = 0
    for piece in pieces:
        total += len(piece)
    return total


def cpu_seconds(task: Callable[[], object]) -> float:
    """The CPU time of this process, all its threads, while ``task`` runs."""
    gc.collect()
    started = time.process_time()
    task()
    return time.process_time() - started


def read_cpu(reader: Reader, answer: Answer, times: int = 1) -> float:
    """The CPU time in seconds of reading ``answer``; raises AssertionError where not all of it was found."""
    found = 0

    def read() -> None:
        nonlocal found
        for _ in range(times):
            found += consume(reader(answer))

    seconds = cpu_seconds(read)
    if found != answer.length * times:
        raise AssertionError(f"{reader} found {found} of {answer.name}, {times} times, not {answer.length} each")
    return seconds / times


def peak_bytes(task: Callable[[], object]) -> int:
    """The most memory that Python objects made by ``task`` held at one time (tracemalloc)."""
    gc.collect()
    tracemalloc.start()
    try:
        task()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def verify(readers: Mapping[str, Reader], answer: Answer) -> None:
    """Each reader finds the text itself, not only its length; this warms up its connections as well."""
    for name, reader in readers.items():
        if "".join(reader(answer)) != text_of(answer):
            raise AssertionError(f"{name} did not read the text of {answer.name}")


def paired(tasks: Mapping[str, Task], rounds: int) -> Samples:
    """The samples of each task; in each round all take their turn, in another order: nobody always follows the same."""
    samples: Samples = {name: [] for name in tasks}
    for number in range(rounds):
        for name in random.Random(number).sample(list(tasks), len(tasks)):
            samples[name].append(tasks[name]())
    return samples


def median(samples: Iterable[float]) -> float:
    return statistics.median(samples)


def ratio(samples: Samples, name: str, other: str) -> float:
    """The median of the ratios within each round: what slows the machine down for a while slows both."""
    return median(mine / theirs for mine, theirs in zip(samples[name], samples[other]))


def table(title: str, unit: str, samples: Samples, scale: float = 1.0) -> Table:
    """The medians, times ``scale``, and the ratios to the first of ``samples``."""
    first = next(iter(samples))
    rows = [Row(name, median(values) * scale, ratio(samples, name, first)) for name, values in samples.items()]
    return Table(title, unit, rows)
