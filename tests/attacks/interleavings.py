"""Runs threads in thousands of orders over the routing state, the token, and the search for the project.

Run as ``python -m tests.attacks.interleavings``. A job is ``STORY:NUMBER``: the number seeds what the threads do and
in which order their lines run, so the same job comes out the same way each time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import gemini_sync
from tests.attacks.kit import Teller, Work, arguments, chosen, finish, run_jobs
from tests.attacks.scheduler import THREADS, Scheduler
from tests.attacks.stories_of_routes import probes, routes
from tests.attacks.stories_of_tokens import mixture, refreshes, relogin, revocation, rotation

STORIES = {story.__name__: story for story in (routes, probes, refreshes, rotation, mixture, relogin, revocation)}
_PACKAGE = os.path.dirname(gemini_sync.__file__)
_FOLDERS = tuple(os.path.join(_PACKAGE, name) + os.sep for name in ("routing", "auth", "services"))
_FILES = tuple(os.path.join(_PACKAGE, name) for name in ("retrying.py", os.path.join("network", "cancelling.py")))


def traced(file: str) -> bool:
    """True if the lines of ``file`` are points at which another thread may go on."""
    return file.startswith(_FOLDERS) or file in _FILES


def _shown(error: Optional[BaseException]) -> str:
    """The traceback of ``error``; without one, the lines of the package that are running."""
    if error is not None:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return "".join(line for line in traceback.format_stack() if _PACKAGE in line)


@contextlib.contextmanager
def bench() -> Iterator[Work]:
    """A worker process: a scheduler and a folder for credentials files."""
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        scheduler = Scheduler(THREADS, traced)

        def work(job: str, tell: Teller) -> None:
            name = job.partition(":")[0]
            rng = random.Random(job)

            def found(kind: str, error: Optional[BaseException] = None) -> None:
                tell.found(kind, _shown(error), name)

            tell.at(name)
            with scheduler.locks():
                works, watch, check = STORIES[name](rng, scheduler, found, Path(folder))
                outcomes = scheduler.run(rng, works, watch)
                deadlock = scheduler.deadlock
                if deadlock is None:
                    check(outcomes)
                    scheduler.run(rng, works[:1])  # alone, it waits for no other thread
            tell.count("schedules")
            tell.count(f"of {name}")
            if deadlock is not None:
                tell.found("deadlock", deadlock, name)
            elif scheduler.deadlock is not None:
                tell.found("a lock is taken at the end", scheduler.deadlock, name)

        yield work


def main() -> int:
    parser = arguments(__doc__, count=10_000)
    parser.add_argument("--stories", nargs="+", choices=STORIES, default=list(STORIES), help="default: all")
    given, started = parser.parse_args(), time.monotonic()
    share = -(-given.count // len(given.stories))
    first = given.seed * 1_000_000
    jobs = chosen((f"{story}:{first + number}" for story in given.stories for number in range(share)), given)
    report = run_jobs(jobs, bench, seconds=given.seconds, processes=given.processes, chunk=500)
    return report.show("interleavings", time.monotonic() - started)


if __name__ == "__main__":
    finish(main())
