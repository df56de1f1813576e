"""Shows the figures: tables with ratios, a line for each target, and JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.benchmark.results import Result

_LIBRARIES = ("requests", "urllib3", "sseclient-py", "tenacity", "google-genai")


def machine() -> str:
    """The processor, and the number of cores that this process may use."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = " ".join(names[0].split()) if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def versions() -> dict[str, str]:
    return {"Python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def environment() -> str:
    return f"{machine()}; " + ", ".join(f"{name} {number}" for name, number in versions().items())


def show(results: Iterable[Result]) -> None:
    """Print the tables and the targets."""
    write = sys.stdout.write
    results = list(results)
    write(f"{environment()}\nClient CPU unless the unit says otherwise; medians; the ratio is to the first row.\n\n")
    for table in (table for result in results for table in result.tables):
        write(f"{table.title} [{table.unit}]\n")
        for row in table.rows:
            ratio = "" if row.ratio is None else f"{row.ratio:8.2f} x"
            write(f"  {row.name:<42}{row.value:>12.2f}{ratio}\n")
    write("\n")
    for target in (target for result in results for target in result.targets):
        write(
            f"{'PASS' if target.holds else 'FAIL'}  {target.what}: {target.figure:.3g} (at most {target.limit:.3g})\n"
        )


def write_json(path: Path, results: Iterable[Result]) -> None:
    results = list(results)
    document: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "tables": [asdict(table) for result in results for table in result.tables],
        "targets": [{**asdict(target), "holds": target.holds} for result in results for target in result.targets],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
