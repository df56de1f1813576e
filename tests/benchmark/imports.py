"""The case of importing: CPU and memory of fresh interpreters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.benchmark.measure import MILLI, Bench, median, paired, ratio, table
from tests.benchmark.results import Result, Row, Table

_ROOT = Path(__file__).resolve().parents[2]
_BASE = "import requests, sseclient, tenacity"
_OURS = "import gemini_sync"
_GENAI = "from google import genai"
_ROUNDS_FACTOR = 2  # more rounds, because a process can import only once and so single samples vary
# VmHWM, because ru_maxrss of a child includes the memory of its parent.
_CHILD = """
import json, sys, time
started = time.process_time()
{statement}
seconds = time.process_time() - started
status = {{}}
if sys.platform == "linux":
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([seconds, int(status.get("VmHWM", "0 kB").split()[0]) / 1024, "gemini_sync.cli" in sys.modules]))
"""


def _import(statement: str, cache: str) -> tuple[float, float, bool]:
    """CPU seconds, peak resident MiB, and True if the command line is imported, too; ``cache`` holds the bytecode."""
    command = [sys.executable, "-c", _CHILD.format(statement=statement)]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
    output = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    seconds, memory, command_line = json.loads(output)
    return seconds, memory, command_line


def imports(bench: Bench) -> Result:
    """Importing gemini_sync, the libraries that it uses, and google-genai."""
    seen: dict[str, list[tuple[float, float, bool]]] = {statement: [] for statement in (_BASE, _OURS, _GENAI)}

    def seconds(statement: str) -> float:
        seen[statement].append(_import(statement, cache))
        return seen[statement][-1][0]

    with tempfile.TemporaryDirectory() as cache:
        for statement in seen:  # fills the cache
            _import(statement, cache)
        samples = paired({statement: partial(seconds, statement) for statement in seen}, bench.rounds * _ROUNDS_FACTOR)
    memory = {statement: median(peak for _, peak, _ in found) for statement, found in seen.items()}
    result = Result([table("import", "ms", samples, MILLI)])
    if memory[_BASE]:  # only Linux tells it
        rows = [Row(statement, peak, peak / memory[_BASE]) for statement, peak in memory.items()]
        result.tables.append(Table("import: memory", "MiB, peak resident set", rows))
    result.expect(f"CPU of {_OURS} / {_BASE}", ratio(samples, _OURS, _BASE), 1.25)
    result.expect("imports of gemini_sync that also import its command line", sum(cli for *_, cli in seen[_OURS]), 0)
    return result
