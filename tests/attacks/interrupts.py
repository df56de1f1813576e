"""Raises KeyboardInterrupt at each point of calls that flip where a signal can land, and looks at what is left behind.

Run as ``python -m tests.attacks.interrupts``. A job is ``SCENE:NUMBER``: the call of that scene, on real sockets,
with an interrupt at its point of that number. A trace function raises it there, as a signal handler would. The points
are those bytecode boundaries at which this Python looks for signals. With ``--everywhere`` they are all boundaries;
then even ``with lock`` may leave a lock taken, which no signal can do.
Python itself drops what is raised in a finalizer, so these interrupts are counted apart.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gemini_sync import GeminiDualAdapter, Reply
from gemini_sync.routing.events import notify_stderr
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import Rig
from tests.attacks.injector import Injector, locks_of
from tests.attacks.kit import Teller, Work, arguments, chosen, clean_environment, finish, run_jobs

_ERRORS = {"KeyboardInterrupt": KeyboardInterrupt, "TimeoutError": TimeoutError}

# -- the calls


class Scenes:
    """The calls that are interrupted. Each method prepares one, and returns its adapter and the call."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._emulator = rig, rig.emulator
        self.kept: list[Reply] = []

    def _adapter(self, **changes: Any) -> GeminiDualAdapter:
        self.kept.clear()
        self._emulator.oauth.reset()
        settings = self._rig.settings(on_fallback=notify_stderr, project="a-project")
        return GeminiDualAdapter(**{**settings, **changes})

    def _ask(self, adapter: GeminiDualAdapter) -> None:
        self.kept.append(adapter.stream("Interrupted"))
        for _ in self.kept[0]:
            continue

    def flip(self) -> tuple[GeminiDualAdapter, Callable[[], object]]:
        """OAuth fails, the flip is said, the API key answers."""
        adapter = self._adapter()
        self._emulator.oauth.fail(403, times=None)
        return adapter, lambda: self._ask(adapter)

    def back(self) -> tuple[GeminiDualAdapter, Callable[[], object]]:
        """A probe finds that OAuth works again."""
        adapter = self._adapter(sticky_for=1e-6)
        self._emulator.oauth.fail(403, times=1)
        adapter.generate("First")
        return adapter, lambda: self._ask(adapter)

    def again(self) -> tuple[GeminiDualAdapter, Callable[[], object]]:
        """A reset, and then another flip."""
        adapter = self._adapter()
        self._emulator.oauth.fail(403, times=None)
        adapter.generate("First")

        def call() -> None:
            adapter.reset()
            self._ask(adapter)

        return adapter, call

    def login(self) -> tuple[GeminiDualAdapter, Callable[[], object]]:
        """The token is refreshed and saved, the project is asked for, OAuth answers."""
        self._emulator.write_credentials(self._rig.path, expires_in=-10)
        adapter = self._adapter(project=None)
        return adapter, lambda: self._ask(adapter)

    def close(self) -> tuple[GeminiDualAdapter, Callable[[], object]]:
        """A reply that is half read is closed, and then the adapter."""
        adapter = self._adapter()
        self.kept.append(adapter.stream("Interrupted"))
        next(self.kept[0])
        return adapter, self.kept[0].close


SCENES = ("flip", "back", "again", "login", "close")


# -- what is looked at afterwards


class _Attack:
    """Interrupts one call and looks at what is left behind."""

    def __init__(
        self, scenes: Scenes, rig: Rig, error: str, everywhere: bool, lines: io.StringIO, dropped: list[Any]
    ) -> None:
        self._scenes, self._rig, self._error, self._everywhere = scenes, rig, error, everywhere
        self._lines, self._dropped = lines, dropped

    def __call__(self, job: str, tell: Teller) -> None:
        scene, number = job.split(":")
        adapter, call = getattr(self._scenes, scene)()
        before = adapter.route_status()
        self._lines.seek(0)
        self._lines.truncate(0)
        self._dropped.clear()
        error = _ERRORS[self._error]("interrupted by the attack")
        injector = Injector(int(number), error, tell.at, self._everywhere)
        tell.doing("the interrupted call")
        caught = injector.run(call)
        if not int(number):
            tell.count(scene, injector.points)
        elif injector.stack is None:
            tell.count("calls that ended before")
        else:
            tell.count("interrupts")
            if injector.in_finalizer or self._dropped:
                tell.count("of them in a finalizer")
            elif caught is None:
                tell.found("the interrupt was swallowed", injector.stack)
            elif type(caught) is not type(error):  # a codec makes a copy of it, which is as good
                tell.found(f"the interrupt became {type(caught).__name__}", injector.stack)
            self._check(adapter, before, injector.stack, tell)
        tell.doing("close() of the adapter, or gc.collect() after it,")
        del caught, error
        self._scenes.kept.clear()
        adapter.close()
        gc.collect()
        if not self._rig.emulator.wait_closed(5):
            tell.found("a connection is open after the adapter was closed", injector.stack or "")
        self._rig.emulator.clear()

    def _check(self, adapter: GeminiDualAdapter, before: Any, stack: str, tell: Teller) -> None:
        found = functools.partial(tell.found, stack=stack)
        self._check_flips(adapter, before, stack, tell)
        tell.doing("the next call of the same thread")
        self._check_use(adapter, found)
        failed: list[BaseException] = []

        def use() -> None:
            try:
                tell.doing("cancel() or close() in another thread")
                for reply in self._scenes.kept:
                    reply.cancel()
                    reply.close()
                tell.doing("gc.collect() in another thread")
                gc.collect()
                tell.doing("a call of another thread")
                self._check_use(adapter, found)
                for name, lock in locks_of(adapter, *self._scenes.kept):
                    if not lock.acquire(blocking=False):
                        found(f"a lock is taken: {name}")
                    else:
                        lock.release()
            except BaseException as exc:
                failed.append(exc)

        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        thread.join()  # if it hangs, the worker shows the stacks of both threads and exits
        for exc in failed:
            found(f"another thread got {type(exc).__name__}: {exc}")

    def _check_flips(self, adapter: GeminiDualAdapter, before: Any, stack: str, tell: Teller) -> None:
        now, said = adapter.route_status(), self._lines.getvalue().splitlines()
        made = int(now.since != before.since and now.reason != "reset()")
        way = "to the API key" if now.fallback_active else "back"
        if made and not said:
            tell.found(f"a flip {way} was made and not said", stack)
        elif made and len(set(said)) == 1 < len(said) and notify_stderr.__name__ in stack:
            tell.count("flips said twice, because the interrupt came while they were said")
        elif len(said) > made:
            tell.found(f"{made} flips {way} were made and {len(said)} said", stack)

    def _check_use(self, adapter: GeminiDualAdapter, found: Callable[[str], None]) -> None:
        try:
            text = adapter.generate("Afterwards").text
        except Exception as exc:
            found(f"the next call failed with {type(exc).__name__}: {exc}")
        else:
            if text != default_text("Afterwards"):
                found("the next call got another text")


# -- the tool


@contextlib.contextmanager
def bench(scenes: Sequence[str], error: str, everywhere: bool) -> Iterator[Work]:
    """A worker process: an emulator, and what is written to standard error and dropped by Python."""
    lines = io.StringIO()
    dropped: list[Any] = []
    sys.unraisablehook = lambda given: dropped.append(given.exc_value)
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator, Rig(emulator, Path(folder)) as rig:
        clean_environment(folder)
        attack = _Attack(Scenes(rig), rig, error, everywhere, lines, dropped)
        with contextlib.redirect_stderr(lines):
            for scene in scenes:  # what is done only once in a process is done before the first interrupt
                attack(f"{scene}:0", Teller())
            gc.collect()
            gc.freeze()
            yield attack


def main() -> int:
    parser = arguments(__doc__, count=30_000)
    parser.add_argument("--raises", choices=_ERRORS, default="KeyboardInterrupt", help="default: %(default)s")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=SCENES, help="default: all")
    parser.add_argument("--everywhere", action="store_true", help="at all bytecode boundaries")
    given, started = parser.parse_args(), time.monotonic()
    prepare = functools.partial(bench, given.scenes, given.raises, given.everywhere)
    sizes = run_jobs([f"{scene}:0" for scene in given.scenes], prepare).counts
    every = [f"{scene}:{number}" for scene in given.scenes for number in range(1, sizes[scene] + 1)]
    jobs = chosen(every, given)
    report = run_jobs(jobs, prepare, seconds=given.seconds, processes=given.processes, hang_seconds=10)
    report.counts["points in all"] = len(every)
    return report.show("interrupts", time.monotonic() - started)


if __name__ == "__main__":
    finish(main())
