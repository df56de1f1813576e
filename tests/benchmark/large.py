"""The cases of one large event: its CPU and memory, and how they grow with its size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tests.benchmark import measure
from tests.benchmark import readers as names
from tests.benchmark.measure import MEBI, MILLI, Bench, Samples, consume, median, paired, ratio, table
from tests.benchmark.payload import Answer, event_bytes
from tests.benchmark.results import Result, Row, Table

_SIZES = (8, 16, 32)
_GROWTH_SIZES = (5, 10, 20, 40)
# The target is for the delivery of an event. google-genai also decodes the base64, always and in Rust. In the standard
# library that takes as long as the delivery, so the limit for data is higher.
_GENAI_LIMITS = {"text": 0.5, "data": 0.75}
_GROWTH_LIMIT = 10  # for four times the size, because 32 MiB need new pages of memory each time and 8 MiB do not
_MEMORY_LIMITS = {8: 4.0, 32: 3.5}
_MOST_ROUNDS = 7


def _ours_data(bench: Bench, answer: Answer) -> Iterator[bytes]:
    for chunk in bench.readers.ours_chunks(answer):
        for blob in chunk.inline_data:
            yield blob.data


def _genai_data(bench: Bench, answer: Answer) -> Iterator[bytes]:
    for chunk in bench.readers.google_genai_chunks(answer):
        for part in chunk.candidates[0].content.parts:
            yield part.inline_data.data


def _readers(bench: Bench, kind: str) -> dict[str, Callable[[Answer], Iterator[Any]]]:
    # iter_lines of requests and the reader of sseclient are quadratic. They need half a minute for 8 MB.
    if kind == "data":  # all readers decode it, because google-genai always does
        return {names.OURS: partial(_ours_data, bench), names.GENAI: partial(_genai_data, bench)}
    return bench.readers.named(names.OURS, names.GENAI, names.HTTP_CLIENT, names.FLOOR)


def _measure(bench: Bench, kind: str, sizes: tuple[int, ...], *wanted: str) -> dict[int, Samples]:
    """CPU seconds of each reader by size in MiB; all sizes and readers take turns."""
    readers = _readers(bench, kind)
    answers = {size: Answer(kind, 1, size * MEBI) for size in sizes}
    tasks = {
        f"{size} {name}": partial(measure.read_cpu, readers[name], answer)
        for size, answer in answers.items()
        for name in wanted or readers
    }
    for task in tasks.values():
        task()
    samples = paired(tasks, min(bench.rounds, _MOST_ROUNDS))
    return {size: {name: samples[f"{size} {name}"] for name in wanted or readers} for size in sizes}


def _growth(samples: dict[int, Samples], small: int, large: int) -> float:
    return median(more / less for more, less in zip(samples[large][names.OURS], samples[small][names.OURS]))


def large(bench: Bench) -> Result:
    """One event of 8, 16 and 32 MiB, as text and as inline data that is decoded."""
    result = Result()
    for kind in ("text", "data"):
        samples = _measure(bench, kind, _SIZES)
        for size, of_size in samples.items():
            result.tables.append(table(f"one event of {size} MiB, {kind}", "ms", of_size, MILLI))
        for size, limit in _MEMORY_LIMITS.items():
            answer = Answer(kind, 1, size * MEBI)
            figure = ratio(samples[size], names.OURS, names.GENAI)
            what = f"CPU of one event of {size} MiB {kind}, gemini_sync / google-genai"
            result.expect(what, figure, _GENAI_LIMITS[kind])
            peaks = {name: _peak(reader, answer) for name, reader in _readers(bench, kind).items()}
            rows = [Row(name, peak, peak / peaks[names.OURS]) for name, peak in peaks.items()]
            title = f"one event of {size} MiB, {kind}: peak memory"
            result.tables.append(Table(title, "x the event, tracemalloc", rows))
            result.expect(f"peak memory of one event of {size} MiB {kind} / its size", peaks[names.OURS], limit)
        result.expect(f"CPU of one event of {kind}, 32 MiB / 8 MiB", _growth(samples, 8, 32), _GROWTH_LIMIT)
    return result


def _peak(reader: Callable[[Answer], Iterator[Any]], answer: Answer) -> float:
    return measure.peak_bytes(lambda: consume(reader(answer))) / event_bytes(answer)


def growth(bench: Bench) -> Result:
    """One event of inline data of 5, 10, 20 and 40 MiB, which should cost the same per byte."""
    samples = _measure(bench, "data", _GROWTH_SIZES, names.OURS)
    per_mebi = {f"{size} MiB": [seconds / size for seconds in of_size[names.OURS]] for size, of_size in samples.items()}
    result = Result([table("one event of inline data, decoded: growth", "ms per MiB", per_mebi, MILLI)])
    figure = ratio(per_mebi, "40 MiB", "5 MiB")
    result.expect("CPU per byte of inline data, event of 40 MiB / of 5 MiB", figure, _GROWTH_LIMIT / 4)
    return result
