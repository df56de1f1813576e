"""Raises KeyboardInterrupt at each point of calls that flip where a signal can land, and looks at what is left behind.

Run as ``python -m tests.attacks.interrupts``. A job is ``SCENE:NUMBER``: the call of that scene, on real sockets,
with an interrupt at its point of that number. A trace function raises it there, as a signal handler would. The points
are those bytecode boundaries at which this Python looks for signals. With ``--everywhere`` they are all boundaries;
then even ``with lock`` may leave a lock taken, which no signal can do.
Python itself drops what is raised in a finalizer, so these interrupts are counted apart.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import gc
import io
import sys
import tempfile
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

from gemini_sync import GeminiDualAdapter, Reply
from gemini_sync.routing.events import notify_stderr
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import Rig
from tests.attacks.kit import Teller, Work, arguments, chosen, clean_environment, finish, run_jobs

_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_NOT_FOLLOWED = (type, types.ModuleType, types.FrameType, types.CodeType, threading.Thread, Emulator)
_ERRORS = {"KeyboardInterrupt": KeyboardInterrupt, "TimeoutError": TimeoutError}

# -- where an interrupt is raised


class Injector:
    """A trace function that counts points, and raises ``error`` at the one with the number ``at``.

    Args:
        everywhere: True if each bytecode boundary is a point.
    """

    def __init__(self, at: int, error: BaseException, tell: Callable[[str], None], everywhere: bool = False) -> None:
        self._at, self._tell, self._everywhere = at, tell, everywhere
        self._error: Optional[BaseException] = error
        self.points = 0
        self.stack: Optional[str] = None
        self.in_finalizer = False

    def run(self, work: Callable[[], object]) -> Optional[BaseException]:
        """What ``work`` raised, or None."""
        sys.settrace(self._call)
        try:
            work()
        except BaseException as exc:
            return exc
        finally:
            sys.settrace(None)
        return None

    def _call(self, frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename == __file__:
            return None
        frame.f_trace = self._opcode  # Python 3.13 takes notice of the next line only if this is set
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._opcode

    def _opcode(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "opcode" and (self._everywhere or frame.f_lasti in _signal_points(frame.f_code)):
            self.points += 1
            if self.points == self._at:
                sys.settrace(None)
                self.stack = _stack(frame)
                self.in_finalizer = _is_in_finalizer(frame)
                self._tell(_place(frame))
                error, self._error = self._error, None  # its traceback would keep the frames of the call
                raise error
        return self._opcode


def _stack(frame: Any) -> str:
    """The calls that led to ``frame`` from this module, one a line."""
    lines = []
    while frame is not None and frame.f_code.co_filename != __file__:
        lines.append(
            f"    {'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{frame.f_lineno} {frame.f_code.co_name}"
        )
        frame = frame.f_back
    return "\n".join(reversed(lines))


def _is_in_finalizer(frame: Any) -> bool:
    """True if ``io.IOBase.__del__`` has led to ``frame``: it ignores errors of ``close()`` and does not even tell."""
    while frame is not None and frame.f_back is not None:
        name, caller = frame.f_code.co_name, frame.f_back
        if name in ("close", "closed", "flush") and name not in caller.f_code.co_names:
            return True
        frame = caller
    return False


def _place(frame: Any) -> str:
    """The line of ``frame``, and our own function that it was called from."""
    code, ours = frame.f_code, frame
    while ours is not None and "gemini_sync" not in ours.f_code.co_filename:
        ours = ours.f_back
    place = f"{'/'.join(Path(code.co_filename).parts[-2:])}:{frame.f_lineno} {code.co_name}"
    if ours is not None and ours is not frame:
        place += f", from {Path(ours.f_code.co_filename).name}:{ours.f_lineno} {ours.f_code.co_name}"
    return place


_points_of: dict[int, tuple[frozenset[int], types.CodeType]] = {}  # by the id of the code, whose hash is slow


def _signal_points(code: types.CodeType) -> frozenset[int]:
    """The offsets in ``code`` before which this Python looks for signals."""
    known = _points_of.get(id(code))
    if known is None:
        known = _points_of[id(code)] = frozenset(_find_points(code)), code
    return known[0]


def _find_points(code: types.CodeType) -> Iterator[int]:
    instructions = list(dis.get_instructions(code))
    for before, after in zip([None, *instructions], instructions):
        if sys.version_info < (3, 11):  # it looks at more places than these, but not between a call and its end
            if before is None or before.opname.startswith(("CALL_", "JUMP_ABSOLUTE", "POP_JUMP", "YIELD_")):
                yield after.offset
        elif before is not None and before.opname in ("RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX"):
            yield after.offset
        if after.opname == "JUMP_BACKWARD":
            yield after.argval


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


def locks_of(*roots: Any) -> Iterator[tuple[str, Any]]:
    """Every lock that can be reached from ``roots`` through attributes, containers, methods and closures."""
    seen, todo = {id(root) for root in roots}, deque((type(root).__name__, root) for root in roots)
    while todo:
        path, current = todo.popleft()
        if isinstance(current, _LOCKS):
            yield path, current
            continue
        if isinstance(current, types.FunctionType):
            found: list[Any] = [*(current.__closure__ or ()), *(current.__defaults__ or ())]
        else:
            found = gc.get_referents(current)
        for value in found:
            if id(value) not in seen and not isinstance(value, _NOT_FOLLOWED):
                seen.add(id(value))
                name = type(value).__name__
                todo.append((path if name in ("dict", "cell", "tuple", "method") else f"{path} > {name}", value))


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
    report = run_jobs(jobs, prepare, seconds=given.seconds, processes=given.processes, hang_seconds=5)
    report.counts["points in all"] = len(every)
    return report.show("interrupts", time.monotonic() - started)


if __name__ == "__main__":
    finish(main())
