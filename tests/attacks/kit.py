"""What the attacks share: their arguments, worker processes that may hang, and the report of what they found."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import selectors
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import IO, Any, NamedTuple, Optional

_PLACES_SHOWN = 60
_STACK_CHARACTERS = 2_500  # a message of a worker stays below 4096 bytes, so that those of its threads do not mix
_KIND_CHARACTERS = 300
_SETUP_SECONDS = 60.0  # the machine may be busy
_OURS = ("GEMINI_", "GOOGLE_", "CODE_ASSIST_", "CLOUDSDK_")


class Finding(NamedTuple):
    """Something that must not happen."""

    kind: str
    place: str
    job: str
    stack: str


class Report:
    """What the workers told: how often each thing happened, and the findings."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.findings: list[Finding] = []

    def show(self, name: str, seconds: float) -> int:
        """Print everything; returns the exit status, 1 if there is a finding."""
        kinds = Counter(finding.kind for finding in self.findings)
        for kind, times in kinds.most_common():
            places: dict[str, list[str]] = {}
            for finding in self.findings:
                if finding.kind == kind:
                    places.setdefault(finding.place, []).append(finding.job)
            print(f"\nFINDING, {times} times: {kind}")
            for place, jobs in sorted(places.items(), key=lambda item: -len(item[1]))[:_PLACES_SHOWN]:
                print(f"  {len(jobs)} at {place or 'no place'} (--only {jobs[0]})")
            print(next(finding.stack for finding in self.findings if finding.kind == kind))
        counted = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        print(f"\n{name}: {counted} in {seconds:.0f} s; {len(self.findings)} findings of {len(kinds)} kinds")
        return 1 if self.findings else 0


class Teller:
    """Takes what a worker has to say to the process that started it; without a pipe it is dropped."""

    def __init__(self, pipe: Optional[int] = None, log: Optional[IO[bytes]] = None) -> None:
        self._pipe, self._log, self.job, self.place = pipe, log, "", ""

    def _say(self, **message: Any) -> None:
        if self._pipe is not None:
            os.write(self._pipe, json.dumps(message).encode() + b"\n")

    def begin(self, job: str) -> None:
        self.job, self.place = job, ""
        self._say(job=job)

    def at(self, place: str) -> None:
        """The place that the job has come to; what is found from here on is found there."""
        self.place = place
        self._say(at=place)

    def doing(self, what: str) -> None:
        """What the job does now; if it hangs, it hangs in that."""
        self._say(doing=what)

    def count(self, what: str, number: int = 1) -> None:
        self._say(count=what, number=number)

    def take_stacks(self) -> str:
        """The stacks that an alarm has shown in a child of the worker."""
        if self._log is None:
            return ""
        self._log.seek(0)
        stacks = self._log.read().decode(errors="replace")
        self._log.truncate(0)
        self._log.seek(0)
        return stacks

    def found(self, kind: str, stack: str = "", place: Optional[str] = None) -> None:
        shown = self.place if place is None else place
        self._say(found=[kind[:_KIND_CHARACTERS], shown, self.job, stack[-_STACK_CHARACTERS:]])


#: Does one job in a worker process, and tells what it found.
Work = Callable[[str, Teller], None]
#: Prepares a worker process, once for many jobs.
Bench = Callable[[], AbstractContextManager[Work]]


class _Worker:
    """A forked process that does ``jobs`` until ``ends``. If one of them hangs, it shows its stacks and exits."""

    def __init__(self, jobs: Sequence[str], bench: Bench, hang_seconds: float, ends: float) -> None:
        self._left = deque(jobs)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the worker)
        self._unread, self._job, self._place, self._doing = b"", "?", "", "the beginning"
        self.pipe, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            status = 2
            try:
                os.close(self.pipe)
                self._work(Teller(writing, self._log), jobs, bench, hang_seconds, ends)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)

    def _work(self, tell: Teller, jobs: Sequence[str], bench: Bench, hang_seconds: float, ends: float) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # An alarm shows the stacks and then ends the process, whatever its threads wait for. The watchdog of
        # faulthandler would be a thread, which cannot be started again after a fork.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, file=self._log, chain=True)
        signal.setitimer(signal.ITIMER_REAL, _SETUP_SECONDS)
        with bench() as work:
            for job in jobs:
                if time.monotonic() > ends:
                    break
                signal.setitimer(signal.ITIMER_REAL, hang_seconds)
                tell.begin(job)
                try:
                    work(job, tell)
                except Exception as exc:
                    tell.found(f"unexpected {type(exc).__name__}", traceback.format_exc())
            signal.setitimer(signal.ITIMER_REAL, _SETUP_SECONDS)

    def read(self, report: Report) -> bool:
        """Take over what the worker said since the last time; False once it has ended."""
        data = os.read(self.pipe, 65536)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "job" in message:
                while self._left and self._left.popleft() != message["job"]:
                    continue
                self._job, self._place, self._doing = message["job"], "", "the job"
            elif "at" in message:
                self._place = message["at"]
            elif "doing" in message:
                self._doing = message["doing"]
            elif "count" in message:
                report.counts[message["count"]] += message["number"]
            else:
                report.findings.append(Finding(*message["found"]))
        return bool(data)

    def end(self, report: Report) -> list[str]:
        """Wait for the end of the process; returns the jobs that it did not begin because another one hung."""
        os.close(self.pipe)
        _, status = os.waitpid(self._pid, 0)
        self._log.seek(0)
        log = self._log.read().decode(errors="replace")
        self._log.close()
        if status == 0:
            return []
        hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        if hung:  # the emulator's threads wait for requests, which says nothing
            log = "\n\n".join(thread for thread in log.split("\n\n") if "/emulator/" not in thread)
        kind = f"{self._doing} hangs" if hung else f"a worker ended with status {status}"
        report.findings.append(Finding(kind, self._place, self._job, log))
        return list(self._left)


def run_jobs(
    jobs: Sequence[str],
    bench: Bench,
    *,
    seconds: float = 600.0,
    hang_seconds: float = 10.0,
    processes: int = 2,
    chunk: int = 200,
) -> Report:
    """Do ``jobs`` in forked processes, and begin none after ``seconds``."""
    report, waiting, ends = Report(), deque(jobs), time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        while True:
            while waiting and time.monotonic() < ends and len(selector.get_map()) < processes:
                taken = [waiting.popleft() for _ in range(min(chunk, len(waiting)))]
                worker = _Worker(taken, bench, hang_seconds, ends)
                selector.register(worker.pipe, selectors.EVENT_READ, worker)
            if not selector.get_map():
                return report
            for key, _ in selector.select():
                if not key.data.read(report):
                    selector.unregister(key.fd)
                    waiting.extendleft(reversed(key.data.end(report)))


def arguments(description: Optional[str], *, count: int, seconds: float = 600.0) -> argparse.ArgumentParser:
    """The arguments that all attacks take."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=count, help="how many to do (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="chooses which ones (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=seconds, help="begin none after that (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default: %(default)s)")
    parser.add_argument("--only", metavar="JOB", help="do this one alone, as a finding names it")
    return parser


def chosen(jobs: Iterator[str], given: argparse.Namespace) -> list[str]:
    """The jobs to do: as many as wanted in the order of the seed, or the one that is named."""
    if given.only:
        return [given.only]
    found = list(jobs)
    random.Random(given.seed).shuffle(found)
    return found[: given.count]


def clean_environment(home: str) -> None:
    """Take the variables that the package reads out of the environment, and make ``home`` the home directory."""
    for name in list(os.environ):
        if name.startswith(_OURS) or name.upper().endswith(("_PROXY", "_CA_BUNDLE")):
            del os.environ[name]
    os.environ["HOME"] = home


def descriptors() -> int:
    """How many descriptors this process has open; 0 if the system does not tell."""
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0


def finish(status: int) -> None:
    sys.stdout.flush()
    sys.exit(status)
