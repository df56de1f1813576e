"""The attacks under tests/attacks still run, and they find the faults that they are made for."""

from __future__ import annotations

import contextlib
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.attacks.injector import Injector, locks_of
from tests.attacks.kit import Teller, Work, run_jobs
from tests.attacks.scheduler import Scheduler
from tests.support import run_python

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


# -- the tools, for a moment


def test_storm__runs() -> None:
    done = run_python("-m", "tests.attacks.storm", "--count", "64")
    assert (done.returncode, " 64 calls, " in done.stdout) == (0, True), done.stdout + done.stderr


def test_interleavings__runs() -> None:
    done = run_python("-m", "tests.attacks.interleavings", "--count", "70")
    assert (done.returncode, " 70 schedules " in done.stdout) == (0, True), done.stdout + done.stderr


def test_interrupts__runs() -> None:
    done = run_python("-m", "tests.attacks.interrupts", "--count", "20", "--scenes", "back")
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"(\d+) interrupts", done.stdout)
    assert counted
    assert int(counted[1]) >= 15  # a call whose answer comes in fewer pieces has fewer points


# -- the kit


@contextlib.contextmanager
def bench() -> Iterator[Work]:
    def work(job: str, tell: Teller) -> None:
        tell.count("jobs")
        tell.at(f"place of {job}")
        if job == "hangs":
            threading.Event().wait()
        elif job == "fails":
            raise ValueError("it failed")
        elif job == "exits":
            os._exit(7)

    yield work


def test_run_jobs__reports_what_hangs_and_does_the_rest() -> None:
    report = run_jobs(["good", "hangs", "fails", "exits", "last"], bench, hang_seconds=0.3)
    assert report.counts == {"jobs": 5}
    found = {finding.job: (finding.kind, finding.place) for finding in report.findings}
    assert found["hangs"] == ("the job hangs", "place of hangs")
    assert found["fails"] == ("unexpected ValueError", "place of fails")
    assert found["exits"][0].startswith("a worker ended with status")
    assert len(found) == 3
    assert "in wait" in next(finding.stack for finding in report.findings if finding.job == "hangs")
    assert report.show("test", 1.0) == 1


def test_run_jobs__begins_none_after_its_time() -> None:
    report = run_jobs(["good"] * 3, bench, seconds=-1.0)
    assert (report.counts, report.show("test", 0.0)) == ({}, 0)


# -- interrupts


class Guarded:
    """Two ways to hold a lock. A signal can land between ``acquire`` and ``try``, but not inside the other one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def by_hand(self) -> None:
        self.lock.acquire()
        try:
            self.work()
        finally:
            self.lock.release()

    def by_with(self) -> None:
        with self.lock:
            self.work()

    def work(self) -> None:
        for _ in range(3):
            time.monotonic()


def leaves_a_lock(name: str) -> list[bool]:
    """For each point of a method of ``Guarded``, if an interrupt there leaves its lock taken."""
    left = []
    while True:
        # In another file, so that the method is traced.
        guarded, error = Guarded(), KeyboardInterrupt()
        injector = Injector(len(left) + 1, error, lambda place: None)
        caught = injector.run(getattr(guarded, name))
        if caught is None:
            return left
        assert caught is error
        ((_, lock),) = locks_of(guarded)
        thread = threading.Thread(target=lambda: left.append(not lock.acquire(blocking=False)))  # noqa: B023
        thread.start()
        thread.join()


def test_injector__finds_a_lock_that_an_interrupt_leaves_taken() -> None:
    assert any(leaves_a_lock("by_hand"))
    safe = leaves_a_lock("by_with")
    assert len(safe) >= 4
    assert not any(safe)


# -- interleavings


@pytest.fixture(scope="module")
def scheduler() -> Scheduler:
    return Scheduler(2, lambda file: file == __file__)


class Counting:
    def __init__(self) -> None:
        self.count = 0
        self.first, self.second = threading.Lock(), threading.Lock()

    def racing(self) -> None:
        before = self.count
        self.count = before + 1

    def locked(self) -> None:
        with self.first:
            self.racing()

    def forwards(self) -> None:
        with self.first, self.second:
            self.racing()

    def backwards(self) -> None:
        with self.second, self.first:
            self.racing()


def outcomes(scheduler: Scheduler, *names: str) -> list[Any]:
    """The count after each of 100 schedules of these methods, or "deadlock"."""
    found: list[Any] = []
    for seed in range(100):
        with scheduler.locks():
            counting = Counting()
            works: list[Callable[[], Any]] = [getattr(counting, name) for name in names]
            scheduler.run(random.Random(seed), works)
        found.append("deadlock" if scheduler.deadlock else counting.count)
    return found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("racing", "racing"), {1, 2}),
        (("locked", "locked"), {2}),
        (("forwards", "forwards"), {2}),
        (("forwards", "backwards"), {2, "deadlock"}),
    ],
)
def test_scheduler__finds_lost_updates_and_deadlocks(
    scheduler: Scheduler, names: tuple[str, str], expected: set[Any]
) -> None:
    found = outcomes(scheduler, *names)
    assert set(found) == expected
    assert outcomes(scheduler, *names) == found


def test_scheduler__knows_conditions_and_waits_with_a_timeout(scheduler: Scheduler) -> None:
    for seed in range(50):
        with scheduler.locks():
            condition, told = threading.Condition(), []

            def tell(condition: threading.Condition = condition, told: list[int] = told) -> None:
                with condition:
                    told.append(1)
                    condition.notify()

            def hear(condition: threading.Condition = condition, told: list[int] = told) -> bool:
                with condition:
                    return condition.wait_for(lambda: told) == [1] and not condition.wait(0.1)

            assert scheduler.run(random.Random(seed), [tell, hear]) == [None, True]
        assert scheduler.deadlock is None
