"""The list of all cases."""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmark.cassettes import cassettes
from tests.benchmark.connections import calls, threads, tls
from tests.benchmark.imports import imports
from tests.benchmark.large import growth, large
from tests.benchmark.measure import Bench
from tests.benchmark.results import Result
from tests.benchmark.streams import endless, paced, small

CASES: dict[str, Callable[[Bench], Result]] = {
    case.__name__: case for case in (small, paced, large, growth, calls, tls, threads, endless, imports, cassettes)
}
