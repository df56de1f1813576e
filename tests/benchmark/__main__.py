"""The command line of the benchmark, ``python -m tests.benchmark``."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import certifi
import trustme

from tests.benchmark import plot, report, server
from tests.benchmark.cases import CASES
from tests.benchmark.measure import Bench
from tests.benchmark.readers import reading

_ROUNDS, _QUICK_ROUNDS = 21, 7
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@contextlib.contextmanager
def _bench(rounds: int) -> Iterator[Bench]:
    """Both servers, running, and the readers that use them."""
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as folder:
        certificate, bundle = Path(folder, "server.pem"), Path(folder, "bundle.pem")
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        bundle.write_bytes(Path(certifi.where()).read_bytes() + b"\n" + authority.cert_pem.bytes())
        with server.running() as url, server.running(certificate) as tls_url, reading(url) as readers:
            yield Bench(readers, tls_url, str(bundle), rounds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description="What reading a stream costs.")
    parser.add_argument(
        "--only", action="append", choices=list(CASES), help="run this case; may be given more than once"
    )
    parser.add_argument("--quick", action="store_true", help="take fewer rounds, which is faster and less exact")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures to this file")
    parser.add_argument("--svg", type=Path, metavar="PATH", help="write a plot of the figures to this file")
    arguments = parser.parse_args()
    for name in _PROXIES:  # all servers are on loopback
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    results = []
    with _bench(_QUICK_ROUNDS if arguments.quick else _ROUNDS) as bench:
        gc.freeze()  # no case pays for the objects of the imported libraries
        for name in arguments.only or CASES:
            print(f"{name} …", file=sys.stderr, flush=True)
            results.append(CASES[name](bench))
    report.show(results)
    if arguments.json is not None:
        report.write_json(arguments.json, results)
    if arguments.svg is not None:
        plot.write_svg(arguments.svg, results)
    return 0 if all(target.holds for result in results for target in result.targets) else 1


if __name__ == "__main__":
    sys.exit(main())
