"""How the cases measure: CPU time and memory, readers that take turns, medians of paired rounds."""

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
    """The input of a case.

    Attributes:
        readers: the readers of the server that speaks plain HTTP.
        tls_url: the server that speaks TLS.
        bundle: the path of the CA bundle that verifies it.
        rounds: how many turns each reader gets; cases with long turns take fewer.
    """

    readers: Readers
    tls_url: str
    bundle: str
    rounds: int


def consume(pieces: Iterable[Sized]) -> int:
    """Read all pieces and keep none; returns their total length."""
    total = 0
    for piece in pieces:
        total += len(piece)
    return total


def cpu_seconds(task: Callable[[], object]) -> float:
    """The CPU time of this process, with all its threads, while ``task`` runs."""
    gc.collect()
    started = time.process_time()
    task()
    return time.process_time() - started


def read_cpu(reader: Reader, answer: Answer, times: int = 1) -> float:
    """The CPU time in seconds of reading ``answer``; raises AssertionError if part of it is missing."""
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
    """The peak memory of the Python objects that ``task`` makes, by tracemalloc."""
    gc.collect()
    tracemalloc.start()
    try:
        task()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def verify(readers: Mapping[str, Reader], answer: Answer) -> None:
    """Check that each reader finds the exact text; this also opens its connections."""
    for name, reader in readers.items():
        if "".join(reader(answer)) != text_of(answer):
            raise AssertionError(f"{name} did not read the text of {answer.name}")


def paired(tasks: Mapping[str, Task], rounds: int) -> Samples:
    """The samples of each task; each round runs all tasks in another order, so that none always follows the same."""
    samples: Samples = {name: [] for name in tasks}
    for number in range(rounds):
        for name in random.Random(number).sample(list(tasks), len(tasks)):
            samples[name].append(tasks[name]())
    return samples


def median(samples: Iterable[float]) -> float:
    return statistics.median(samples)


def ratio(samples: Samples, name: str, other: str) -> float:
    """The median of the ratios in each round; if the machine is slow for a while, it is slow for both."""
    return median(one / two for one, two in zip(samples[name], samples[other]))


def table(title: str, unit: str, samples: Samples, scale: float = 1.0) -> Table:
    """The medians, multiplied by ``scale``, and the ratios to the first of ``samples``."""
    first = next(iter(samples))
    rows = [Row(name, median(values) * scale, ratio(samples, name, first)) for name, values in samples.items()]
    return Table(title, unit, rows)
