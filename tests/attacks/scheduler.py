"""Threads that run one at a time; a seeded generator of random numbers chooses at each line which one goes on."""

from __future__ import annotations

import _thread
import contextlib
import functools
import random
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional
from unittest import mock

THREADS = 4  # of most schedules
#: Takes what was found, and the error that shows it, if there is one.
Found = Callable[..., None]
#: What the threads of a schedule do, what is called before each line, and what is called with their outcomes.
Story = tuple[list[Callable[[], Any]], Callable[[], object], Callable[[list[Any]], object]]

_new_lock = _thread.allocate_lock
_CHANCES = (0.02, 0.1, 0.3, 0.7)  # of a switch at a line
_BY_OPCODE = 0.2  # the share of schedules that switch between two bytecodes as well
_MOST_TIMEOUTS = 300  # of waits in a row, while no thread can run; then it counts as a deadlock


class Stopped(BaseException):
    """Ends the threads of a schedule that has come to a deadlock."""


class _Task:
    """One of the threads. It runs while it has the baton."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.baton = _new_lock()
        self.baton.acquire()
        self.work: Callable[[], Any] = lambda: None
        self.live = False
        self.ready: Optional[Callable[[], bool]] = None  # what it waits for
        self.timed = self.timed_out = False
        self.outcome: Any = None
        self.ident = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.ident = threading.get_ident()
        while True:
            self.baton.acquire()
            sys.settrace(self._scheduler.trace)
            try:
                self.outcome = self.work()
            except BaseException as exc:
                self.outcome = exc
            finally:
                sys.settrace(None)
            self._scheduler.leave(self)


class Scheduler:
    """Runs one schedule after another, each with up to ``threads`` threads.

    Locks that are made inside ``locks()`` belong to the scheduler, so a thread that waits for one lets others run.
    A wait with a timeout ends without the lock if no other thread can run.

    Args:
        traced: tells from the name of a file if its lines are points at which another thread may go on.

    Attributes:
        deadlock: the stacks of all threads, if the last schedule came to a deadlock.
    """

    def __init__(self, threads: int, traced: Callable[[str], bool]) -> None:
        self._traced, self._known = traced, {}  # type: ignore[var-annotated]
        self._rng = random.Random()
        self._chance, self._by_opcode = 0.0, False
        self._watch: Callable[[], object] = lambda: None
        self._stopping, self._timeouts = False, 0
        self._over = _new_lock()
        self._over.acquire()
        self.deadlock: Optional[str] = None
        self._tasks = [_Task(self) for _ in range(threads)]

    def run(
        self, rng: random.Random, works: Sequence[Callable[[], Any]], watch: Callable[[], object] = lambda: None
    ) -> list[Any]:
        """What each of ``works`` returned or raised. ``watch`` is called at each line, before others may run."""
        self._rng, self._chance, self._watch = rng, rng.choice(_CHANCES), watch
        self._by_opcode = rng.random() < _BY_OPCODE  # two decisions in one line are rare
        self._stopping, self._timeouts, self.deadlock = False, 0, None
        tasks = self._tasks[: len(works)]
        for task, work in zip(tasks, works):
            task.work, task.live, task.ready = work, True, None
        self._next().baton.release()
        self._over.acquire()
        return [task.outcome for task in tasks]

    @contextlib.contextmanager
    def locks(self) -> Iterator[None]:
        """Make the locks of the objects that are made in this block."""
        plain, reentrant = functools.partial(Lock, self), functools.partial(Lock, self, reentrant=True)
        of_threading = mock.patch.multiple(threading, Lock=plain, RLock=reentrant, _allocate_lock=plain)
        with of_threading, mock.patch.multiple(_thread, allocate_lock=plain, RLock=reentrant):
            yield

    # -- for the threads

    def current(self) -> Optional[_Task]:
        ident = threading.get_ident()
        return next((task for task in self._tasks if task.ident == ident and task.live), None)

    def number(self) -> int:
        """The number of the thread that runs, or -1 outside of a schedule."""
        task = self.current()
        return -1 if task is None else self._tasks.index(task)

    def trace(self, frame: Any, event: str, argument: Any) -> Any:
        file = frame.f_code.co_filename
        if file not in self._known:
            self._known[file] = self._traced(file)
        if not self._known[file]:
            return None
        frame.f_trace = self._line  # Python 3.13 takes notice of the next line only if this is set
        frame.f_trace_opcodes = self._by_opcode
        return self._line

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        self._watch()
        if event == ("opcode" if self._by_opcode else "line") and self._rng.random() < self._chance:
            self.pause()
        return self._line

    def pause(self) -> None:
        """Let another thread go on, or this one."""
        task = self.current()
        if task is not None:
            self._hand_over(task)

    def wait_a_while(self) -> None:
        """Let other threads go on for a number of lines, often for none and sometimes for many."""
        for _ in range(self._rng.choice((0, 3, 10, 30, 100))):
            self.pause()

    def wait(self, ready: Callable[[], bool], timed: bool) -> bool:
        """Let others run until ``ready``; False if the wait has timed out."""
        task = self.current()
        if task is None or self._stopping:
            raise Stopped("this would wait for ever")
        task.ready, task.timed, task.timed_out = ready, timed, False
        try:
            self._hand_over(task)
        finally:
            task.ready = None
        return not task.timed_out

    def leave(self, task: _Task) -> None:
        """The work of ``task`` is done."""
        self._watch()
        task.live = False
        if any(other.live for other in self._tasks):
            self._next().baton.release()
        else:
            self._over.release()

    def _hand_over(self, task: _Task) -> None:
        chosen = self._next()
        if chosen is not task:
            chosen.baton.release()
            task.baton.acquire()
        if self._stopping:
            raise Stopped("a deadlock")

    def _next(self) -> _Task:
        live = [task for task in self._tasks if task.live]
        able = [task for task in live if task.ready is None or task.ready()]
        if able:
            self._timeouts = 0 if any(task.ready is None for task in able) else self._timeouts
            return self._rng.choice(able)
        timed = [task for task in live if task.timed]
        if timed and not self._stopping and self._timeouts < _MOST_TIMEOUTS:
            self._timeouts += 1
            chosen = self._rng.choice(timed)
            chosen.timed_out = True
            return chosen
        if not self._stopping:
            self._stopping, frames = True, sys._current_frames()
            stacks = ("".join(traceback.format_stack(frames.get(task.ident), limit=12)) for task in live)
            self.deadlock = "\n".join(stacks)
        return live[0]


class Lock:
    """A lock of the scheduler."""

    def __init__(self, scheduler: Scheduler, reentrant: bool = False) -> None:
        self._scheduler, self._reentrant = scheduler, reentrant
        self._owner: Optional[int] = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = threading.get_ident()
        self._scheduler.pause()
        while self._owner is not None and not (self._reentrant and self._owner == me):
            if not blocking or not self._scheduler.wait(lambda: self._owner is None, timed=timeout >= 0):
                return False
        self._owner, self._depth = me, self._depth + 1
        return True

    def release(self) -> None:
        if self._owner is None or (self._reentrant and self._owner != threading.get_ident()):
            raise RuntimeError("release of a lock that is not taken")
        self._depth -= 1
        if not self._depth:
            self._owner = None

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    # -- for threading.Condition

    def _is_owned(self) -> bool:
        return self._owner == threading.get_ident()

    def _release_save(self) -> int:
        depth, self._depth, self._owner = self._depth, 0, None
        return depth

    def _acquire_restore(self, depth: int) -> None:
        self.acquire()
        self._depth = depth
