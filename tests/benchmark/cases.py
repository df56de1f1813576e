"""Knows the cases: which answer is read by whom, and what the figures must hold; knows not how they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from tests.benchmark import readers as names
from tests.benchmark.measure import Samples, consume, cpu_seconds, median, paired, ratio
from tests.benchmark.payload import Answer, event_bytes, text_of
from tests.benchmark.readers import Reader, Readers
from tests.benchmark.report import Result, Row, Table, Target

_MICRO = 1e6


@dataclass(frozen=True)
class Bench:
    """What a case needs: the readers of the server, and how many rounds to take."""

    readers: Readers
    rounds: int


def per_event(reader: Reader, answer: Answer) -> Callable[[], float]:
    """A task: read ``answer`` and give the CPU time of one event, in microseconds."""

    def once() -> float:
        found = 0

        def read() -> None:
            nonlocal found
            found = consume(reader(answer))

        seconds = cpu_seconds(read)
        if found != answer.length:
            raise AssertionError(f"{reader} found {found} characters of {answer.name}, not {answer.length}")
        return seconds / answer.events * _MICRO

    return once


def verify(readers: dict[str, Reader], answer: Answer) -> None:
    """Each reader finds the text itself, not only its length; also the warm-up of everyone's connections."""
    for name, reader in readers.items():
        if "".join(reader(answer)) != text_of(answer):
            raise AssertionError(f"{name} did not read the text of {answer.name}")


def table(title: str, unit: str, samples: Samples) -> Table:
    first = next(iter(samples))
    return Table(title, unit, [Row(name, median(samples[name]), ratio(samples, name, first)) for name in samples])


def _events(bench: Bench, answer: Answer, *wanted: str) -> Samples:
    readers = bench.readers.named(*wanted)
    verify(readers, answer)
    return paired({name: per_event(reader, answer) for name, reader in readers.items()}, bench.rounds)


def small(bench: Bench) -> Result:
    """CPU per event, 2000 of 50 characters and 300 of 4 kB, all sent at once."""
    result = Result()
    for answer, genai_limit, loop_limit in ((Answer("text", 2000, 50), 1 / 15, 1.25), (Answer("text", 300, 4096), 1 / 7.5, 1.5)):
        samples = _events(bench, answer)
        title = f"{answer.events} events of {answer.size} characters ({event_bytes(answer)} bytes)"
        result.tables.append(table(title, "us per event", samples))
        for other, limit in ((names.GENAI, genai_limit), (names.HTTP_CLIENT, loop_limit)):
            figure = ratio(samples, names.OURS, other)
            result.targets.append(Target(f"{answer.size} characters: CPU per event to {other}", figure, limit))
        for lane, limit in ((names.CHUNKS, 1.25), (names.OAUTH, 1.25), (names.PLAIN, 1.1)):
            figure = ratio(samples, lane, names.OURS)
            result.targets.append(Target(f"{answer.size} characters: {lane} to the text reader", figure, limit))
    return result


CASES: dict[str, Callable[[Bench], Result]] = {"small": small}
