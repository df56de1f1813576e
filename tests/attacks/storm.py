"""Many threads call, cancel, drop, close, fork and reset on one adapter, while the servers fail at random.

Run as ``python -m tests.attacks.storm``. A job is ``storm:NUMBER``: one round with an adapter of its own and a thousand
calls. All rounds run in one process, so that what leaks adds up.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import queue
import random
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

from gemini_sync import ConfigError, GeminiDualAdapter, GeminiSyncError, Reply, Retry, Timeouts
from gemini_sync.routing.events import FallbackEvent
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import Rig
from tests.attacks.kit import Teller, Work, arguments, clean_environment, finish, run_jobs
from tests.attacks.leaks import Leaks

THREADS, CALLS = 32, 32  # in a round, and for each thread in it
_ROUND_SECONDS = 90.0
_CHILD_SECONDS = 30
_MODELS = ("model-a", "model-b")

#: A fault, its arguments, and how often it comes.
_FAULTS: list[tuple[Any, dict[str, Any], int]] = [
    *((code, {}, 2) for code in (400, 401, 403, 404, 429, 500, 503)),
    (429, {"retry_delay": "60s"}, 2),
    ("reset", {}, 3),
    ("reset", {"after": 2}, 3),
    ("cut", {"after": 2}, 3),
    ("cut", {"at": 100}, 3),
    ("truncate", {"after": 2}, 3),
    ("stall", {}, 1),
    ("stall", {"after": 2}, 1),
    ("half_headers", {}, 2),
    ("drip_headers", {}, 1),
    ("drip", {"after": 1}, 1),
    ("pings", {}, 2),
    ("empty", {}, 2),
    ("error_event", {"after": 2, "code": 503}, 3),
    ("error_event", {"after": 1, "code": 403}, 1),
    ("error_json", {"after": 1, "code": 429}, 3),
    ("garbage_event", {"after": 2}, 3),
    ("html", {}, 2),
    ("endless_error", {}, 1),
    ("gzip", {}, 3),
    ("gzip", {"truncate": True}, 3),
    ("close_idle_then_reset", {}, 4),
]
_WEIGHTS = [weight for _, _, weight in _FAULTS]
_ROUTES, _ROUTE_WEIGHTS = ("oauth", "api_key", "token", "load_code_assist"), (12, 6, 1, 1)


class _Round:
    """One round: its adapter, its threads, and what they found."""

    def __init__(self, job: str, rig: Rig, tell: Teller, calls: int) -> None:
        self._job, self._rig, self._tell, self._calls_each = job, rig, tell, calls
        rng = random.Random(job)
        self._resets = rng.choice((0.0, 0.01, 0.03, 0.1))  # how often; a failure from before a reset flips nothing
        self._reset_count = 0
        self._closes_early = rng.random() < 0.3
        self.events: list[FallbackEvent] = []
        self._others: queue.SimpleQueue[Optional[tuple[Reply, str, float]]] = queue.SimpleQueue()
        self.adapter = GeminiDualAdapter(
            **rig.settings(
                on_fallback=self.events.append,
                sticky_for=rng.choice((None, 0.05)),
                timeouts=Timeouts(connect=5, first_token=1, idle=1, total=4),
                retry=Retry(backoff_base=0.001, backoff_cap=0.01),
            )
        )

    def run(self) -> None:
        helpers = [threading.Thread(target=self._help, daemon=True) for _ in range(2)]
        callers = [threading.Thread(target=self._calls, args=(number,), daemon=True) for number in range(THREADS)]
        for thread in (*helpers, *callers):
            thread.start()
        for thread in callers:
            thread.join()  # if one hangs, the worker shows all stacks and exits
        for _ in helpers:
            self._others.put(None)
        for thread in helpers:
            thread.join()
        self._check_flips()
        self.adapter.close()

    def _help(self) -> None:
        """Cancel and close the replies of other threads."""
        while (given := self._others.get()) is not None:
            reply, how, seconds = given
            time.sleep(seconds)
            getattr(reply, how)()
            del reply, given

    def _calls(self, number: int) -> None:
        rng = random.Random(f"{self._job}:{number}")
        for index in range(self._calls_each):
            prompt = f"{self._job} {number} {index}"
            if self._closes_early and number == 0 and index == self._calls_each - 1:
                self.adapter.close()  # while other threads call
            if rng.random() < 0.35:
                kind, arguments, _ = rng.choices(_FAULTS, _WEIGHTS)[0]
                route = getattr(self._rig.emulator, rng.choices(_ROUTES, _ROUTE_WEIGHTS)[0])
                route.fail(kind, **arguments)
            act = rng.choices(
                (self._read, self._read_chunks, self._ended_by_another, self._drop, self._count, self._fork),
                (12, 2, 4, 3, 1, 0.6),
            )[0]
            try:
                act(rng, prompt)
            except ConfigError:
                if not self._closes_early:
                    raise
                return
            except Exception as exc:
                self._tell.found(f"a call raised {type(exc).__name__}", traceback.format_exc(), act.__name__)
            self._tell.count("calls")
            if rng.random() < self._resets:
                self._reset_count += 1
                self.adapter.reset(force=True)
            if rng.random() < 0.01:  # another program logs in
                other = self._rig.path.with_name(f"{number}.json")
                os.replace(
                    self._rig.emulator.write_credentials(other, expires_in=rng.choice((-10, 3600))), self._rig.path
                )

    # -- ways to call

    def _stream(self, rng: random.Random, prompt: str) -> Reply:
        return self.adapter.stream(prompt, model=rng.choice(_MODELS))

    def _read(self, rng: random.Random, prompt: str) -> None:
        reply, texts = self._stream(rng, prompt), []
        error = self._drain(reply, texts.append)
        self._check_text(prompt, "".join(texts), reply, error)

    def _read_chunks(self, rng: random.Random, prompt: str) -> None:
        reply = self._stream(rng, prompt)
        error = self._drain(reply.chunks(), lambda chunk: None)
        self._check_text(prompt, reply.text, reply, error)

    def _ended_by_another(self, rng: random.Random, prompt: str) -> None:
        reply, texts = self._stream(rng, prompt), []
        self._others.put((reply, rng.choice(("cancel", "close")), rng.choice((0.0, 0.001, 0.01))))
        error = self._drain(reply, texts.append)
        self._check_text(prompt, "".join(texts), reply, error)

    def _drop(self, rng: random.Random, prompt: str) -> None:
        """Stop after a few pieces, and close or cancel or just forget the reply."""
        reply, texts = self._stream(rng, prompt), []
        with contextlib.suppress(GeminiSyncError):
            for _ in range(rng.randint(0, 3)):
                texts.append(next(reply, ""))
        if "".join(texts) != reply.text or not default_text(prompt).startswith(reply.text):
            self._tell.found("a reply that was dropped has a wrong text", repr(reply.text), "drop")
        getattr(reply, rng.choice(("close", "cancel", "__repr__")))()

    def _count(self, rng: random.Random, prompt: str) -> None:
        with contextlib.suppress(GeminiSyncError):
            if self.adapter.count_tokens(prompt) < 1:
                self._tell.found("a wrong count of tokens", "", "count")

    def _fork(self, rng: random.Random, prompt: str) -> None:
        """A child process makes a call and exits. It shares no lock, connection or flip with this process."""
        child = os.fork()
        if child == 0:
            status = 9
            try:
                signal.alarm(_CHILD_SECONDS)  # it shows the stacks, as in the worker
                self._read(rng, prompt)
                status = 0
            except ConfigError:
                status = 0 if self._closes_early else 9
            except BaseException:
                self._tell.found("a forked child failed", traceback.format_exc(), "fork")
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        self._tell.count("forks")
        if status:
            self._tell.found(f"a forked child ended with status {status}", self._tell.take_stacks(), "fork")

    # -- checks

    @staticmethod
    def _drain(iterator: Iterator[Any], take: Callable[[Any], object]) -> Optional[GeminiSyncError]:
        try:
            for item in iterator:
                take(item)
        except GeminiSyncError as exc:
            return exc
        return None

    def _check_text(self, prompt: str, text: str, reply: Reply, error: Optional[GeminiSyncError]) -> None:
        expected = default_text(prompt)
        if isinstance(error, ConfigError):
            raise error
        if error is None and text != expected:
            self._tell.found("an answer that ended well is not whole", repr(text), "text")
        if not expected.startswith(text) or reply.text != text:
            self._tell.found("an answer has a wrong text", f"{text!r}, reply.text {reply.text!r}", "text")
        partial = getattr(error, "partial", None)
        if partial is not None and partial.text != text:
            self._tell.found("the partial of an error has another text", repr(partial.text), "text")
        self._tell.count("answers whole" if error is None else "answers with an error")

    def _check_flips(self) -> None:
        status = self.adapter.route_status()
        of_all = [event for event in self.events if event.model is None]
        back = sum(event.to_route == "oauth" for event in of_all)
        surplus = len(of_all) - 2 * back - status.fallback_active  # flips that a reset took back
        if not 0 <= surplus <= self._reset_count:
            self._tell.found("the flips that were told are not those that were made", f"{of_all}\n{status}", "flips")
        models = [event.model for event in self.events if event.model is not None]
        if not self._reset_count and sorted(models) != sorted(status.models):
            self._tell.found("the flips of models are not those that were told", f"{models}\n{status}", "flips")
        self._tell.count("flips told", len(self.events))


@contextlib.contextmanager
def bench(calls: int = CALLS) -> Iterator[Work]:
    """The worker process: an emulator that all rounds use."""
    logging.disable()
    warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        clean_environment(folder)
        emulator = stack.enter_context(Emulator())
        rig = stack.enter_context(Rig(emulator, Path(folder)))
        with rig.adapter() as adapter:  # what is opened only once
            adapter.generate("First")
        emulator.wait_closed()
        leaks, told = Leaks(emulator), None

        def work(job: str, tell: Teller) -> None:
            nonlocal told
            told = tell
            for route in _ROUTES:
                getattr(emulator, route).reset()
            emulator.write_credentials(rig.path)
            tell.at(job)
            _Round(job, rig, tell, calls).run()
            leaks.look(tell)

        yield work
        if told is not None:
            leaks.compare(told)


def main() -> int:
    parser = arguments(__doc__, count=10_000)
    given, started = parser.parse_args(), time.monotonic()
    calls = min(CALLS, -(-given.count // THREADS))
    rounds = -(-given.count // (THREADS * calls))
    jobs = [given.only] if given.only else [f"storm:{given.seed * 1000 + number}" for number in range(rounds)]
    report = run_jobs(
        jobs,
        functools.partial(bench, calls),
        seconds=given.seconds,
        processes=1,
        chunk=len(jobs),
        hang_seconds=_ROUND_SECONDS,
    )
    return report.show("storm", time.monotonic() - started)


if __name__ == "__main__":
    finish(main())
