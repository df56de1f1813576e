"""Knows the command line of the benchmark: ``python -m tests.benchmark``; exits with 1 where a target fails."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

from tests.benchmark import report, server
from tests.benchmark.cases import CASES, Bench
from tests.benchmark.readers import reading

_ROUNDS, _QUICK_ROUNDS = 21, 7
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description="What reading a stream costs.")
    parser.add_argument("--only", action="append", choices=list(CASES), help="this case alone; may come again")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: noisier")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures")
    parser.add_argument("--svg", type=Path, metavar="PATH", help="write a plot of them")
    arguments = parser.parse_args()
    for name in _PROXIES:  # all is loopback
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    with server.running() as url, reading(url) as readers:
        gc.freeze()  # what importing all of these libraries left is nobody's cost
        bench = Bench(readers, _QUICK_ROUNDS if arguments.quick else _ROUNDS)
        results = [CASES[name](bench) for name in arguments.only or CASES]
    report.show(results)
    if arguments.json is not None:
        report.write_json(arguments.json, results)
    return 0 if all(target.holds for result in results for target in result.targets) else 1


if __name__ == "__main__":
    sys.exit(main())
