"""Knows the cases of one large event: its CPU beside the peers', its memory, and that both grow with its size only."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.benchmark import readers as names
from tests.benchmark.measure import MILLI, Bench, Samples, consume, median, paired, peak_bytes, ratio, read_cpu, table
from tests.benchmark.payload import Answer, event_bytes
from tests.benchmark.readers import Reader
from tests.benchmark.results import Result, Row, Table

_MEBI = 2**20
_SIZES = (8, 16, 32)
_GROWTH_SIZES = (5, 10, 20, 40)
_GENAI_LIMIT = 0.55
_GROWTH_LIMIT = 6.5 / 4  # of the cost of a byte: four times the size may cost 6.5 times as much (caches)
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


def _readers(bench: Bench, kind: str) -> dict[str, Any]:
    # requests' iter_lines and sseclient's own reader are quadratic: 8 MB take them a minute.
    if kind == "data":
        return {names.OURS: partial(_ours_data, bench), names.GENAI: partial(_genai_data, bench)}
    return bench.readers.named(names.OURS, names.GENAI, names.HTTP_CLIENT, names.FLOOR)
