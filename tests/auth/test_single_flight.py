"""Tests of single flight: one leader, a shared outcome, and no outcome if the leader is interrupted."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from gemini_sync.auth import single_flight as flight_module
from gemini_sync.auth.single_flight import SingleFlight
from gemini_sync.config import Timeouts
from gemini_sync.errors import DeadlineExceeded, RefreshError, StreamInterrupted, TransportError, ends_the_call
from gemini_sync.network import cancelling
from gemini_sync.network.cancelling import Call
from tests.adapter_kit import in_thread
from tests.auth.credentials_kit import Watched, await_all, together
from tests.lock_kit import OneAtATime

_THREADS = 8


class _Work:
    """The first run goes on when all other threads wait. Each run has the next outcome."""

    def __init__(self, *outcomes: Any) -> None:
        self._outcomes = list(outcomes)
        self.waiting = threading.Semaphore(0)
        self.runs = 0

    def __call__(self) -> str:
        self.runs += 1
        if self.runs == 1:
            await_all(self.waiting, _THREADS - 1)
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return str(outcome)


def _run_all(work: _Work) -> list[Any]:
    flight: SingleFlight[str] = SingleFlight()
    return together(_THREADS, lambda: flight.run(Watched(work.waiting), work))


def test_run__success_is_shared() -> None:
    work = _Work("done", "again")
    assert _run_all(work) == ["done"] * _THREADS
    assert work.runs == 1


def test_run__failure_reaches_each_waiter_as_a_copy() -> None:
    error = RefreshError("refused", reason="invalid_grant")
    error.__cause__ = TransportError("why")
    work = _Work(error)
    outcomes = _run_all(work)
    assert work.runs == 1
    assert len(set(map(id, outcomes))) == _THREADS
    copies = [outcome for outcome in outcomes if outcome is not error]
    assert all(type(copy) is RefreshError and copy.reason == "invalid_grant" for copy in copies)
    assert all(type(copy.__cause__) is TransportError and str(copy.__cause__) == "why" for copy in copies)


@pytest.mark.parametrize(
    "interruption",
    [
        KeyboardInterrupt(),
        StreamInterrupted("The call was cancelled.", cancelled=True),
        DeadlineExceeded("passed", deadline="total", seconds=1),
        ZeroDivisionError(),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_run__interrupted_leader_hands_over(interruption: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "_SLICE_SECONDS", 3600)  # the waiters are woken and do not just look again
    work = _Work(interruption, "done")
    outcomes = _run_all(work)
    assert outcomes.count(interruption) == 1
    assert outcomes.count("done") == _THREADS - 1


def test_run__waiter_is_cancelled_alone() -> None:
    flight: SingleFlight[str] = SingleFlight()
    waiting, release = threading.Semaphore(0), threading.Event()
    leader = threading.Thread(
        target=flight.run, args=(Call(), lambda: waiting.release() or str(release.wait(10))), daemon=True
    )
    leader.start()
    assert waiting.acquire(timeout=10)
    call = Watched(waiting)
    canceller = threading.Thread(target=lambda: (waiting.acquire(timeout=10), call.cancel()), daemon=True)
    canceller.start()
    with pytest.raises(StreamInterrupted) as caught:
        flight.run(call, lambda: "mine")
    assert caught.value.cancelled
    release.set()
    leader.join(10)
    canceller.join(10)
    assert flight.run(Call(), lambda: "mine") == "mine"


def test_run__keys_do_not_wait_for_each_other() -> None:
    flight: SingleFlight[str] = SingleFlight()
    assert flight.run(Call(), lambda: flight.run(Call(), lambda: "inner", key="b"), key="a") == "inner"


def test_run_if_free__taken() -> None:
    flight: SingleFlight[str] = SingleFlight()
    outcomes: list[Any] = []
    flight.run(Call(), lambda: outcomes.append(flight.run_if_free(lambda: "mine")) or "done")
    assert outcomes == [None]
    assert flight.run_if_free(lambda: "mine") == "mine"


def test_run_if_free__failure_is_not_shared() -> None:
    flight: SingleFlight[str] = SingleFlight()
    waiting = threading.Semaphore(0)
    outcomes: list[str] = []
    waiter = threading.Thread(target=lambda: outcomes.append(flight.run(Watched(waiting), lambda: "own")), daemon=True)

    def fail() -> str:
        waiter.start()
        await_all(waiting, 1)
        raise RefreshError("not now")

    with pytest.raises(RefreshError):
        flight.run_if_free(fail)
    waiter.join(10)
    assert outcomes == ["own"]


def test_after_fork__attempts_of_the_parent_are_gone() -> None:
    flight: SingleFlight[str] = SingleFlight()

    def leading() -> str:
        flight.after_fork()  # as in a child that was forked while a thread of the parent leads
        return flight.run(Call(), lambda: "of the child")

    assert flight.run(Call(), leading) == "of the child"


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (StreamInterrupted("cancelled", cancelled=True), True),
        (DeadlineExceeded("", deadline="total", seconds=1), True),
        (DeadlineExceeded("", deadline="connect", seconds=1), False),
        (TransportError(""), False),
        (KeyboardInterrupt(), False),
    ],
    ids=repr,
)
def test_ends_the_call(error: BaseException, ends: bool) -> None:
    assert ends_the_call(error) is ends


def test_run__total_deadline_of_a_waiter() -> None:
    flight: SingleFlight[str] = SingleFlight()

    def wait() -> str:
        with pytest.raises(DeadlineExceeded) as caught:
            flight.run(Call(Timeouts(total=0.001)).start(), lambda: "mine")
        return caught.value.deadline

    assert flight.run(Call(), lambda: in_thread(wait)()) == "total"  # type: ignore[no-any-return]


def test_run__inside_its_own_attempt() -> None:
    flight: SingleFlight[str] = SingleFlight()
    assert flight.run(Call(), lambda: "outer, " + flight.run(Call(), lambda: "nested")) == "outer, nested"
    assert flight.run(Call(), lambda: "again") == "again"


class _Key(str):
    """A key that can be referred to weakly."""


@pytest.mark.parametrize("failure", [None, RefreshError, KeyboardInterrupt])
def test_run__nothing_of_it_stays(failure: Any) -> None:
    """Not even its key, and with that no outcome."""

    def work() -> str:
        if failure is not None:
            raise failure
        return "done"

    flight, key = SingleFlight[str](), _Key("of one login")
    with contextlib.suppress(RefreshError, KeyboardInterrupt):
        flight.run(Call(), work, key)
    gone = weakref.ref(key)
    del key
    gc.collect()
    assert gone() is None


# -- an interrupt, which may come at any line


class InterruptedAt:
    """A trace function that raises at one event in the module; calls, lines and returns are counted from 1."""

    def __init__(self, number: int) -> None:
        self.left = number
        self._lines: dict[Any, int] = {}

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != flight_module.__file__:
            return None
        before, line = self._lines.get(frame.f_code, 0), frame.f_lineno
        self._lines[frame.f_code] = line
        if event == "line" and line < before:
            # This is a ``with`` whose block has ended. No signal arrives before its lock is released.
            return self
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self


class _Interrupted:
    """An attempt whose leader is interrupted at the event ``number``. Another thread waits, if it gets so far."""

    def __init__(self, number: int, outcome: Any) -> None:
        self.flight: SingleFlight[str] = SingleFlight()
        self._outcome, self._waiting = outcome, threading.Semaphore(0)
        self.came: list[Any] = []
        self.waiter = threading.Thread(target=self._wait, daemon=True)
        tracer, before = InterruptedAt(number), sys.gettrace()
        sys.settrace(tracer)
        with contextlib.suppress(KeyboardInterrupt, RefreshError):  # the outcome of the leader itself does not matter
            try:
                self.flight.run(Call(), self._attempt)
            finally:
                sys.settrace(before)
        self.came_to_pass = tracer.left <= 0

    def _attempt(self) -> str:
        self.waiter.start()
        await_all(self._waiting, 1)
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return str(self._outcome)

    def _wait(self) -> None:
        try:
            self.came.append(self.flight.run(Watched(self._waiting), lambda: "own"))
        except RefreshError as exc:
            self.came.append(str(exc))


@pytest.mark.parametrize("outcome", ["shared", RefreshError("shared")], ids=["success", "failure"])
@pytest.mark.parametrize("in_which", [lambda work: work, in_thread], ids=["same thread", "another thread"])
def test_run__leader_is_interrupted_anywhere__blocks_no_thread(outcome: Any, in_which: Any) -> None:
    # In a thread of its own, because an exception raised by a trace function can stay as the one being handled.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_interrupt_everywhere, outcome, in_which).result()


def _interrupt_everywhere(outcome: Any, in_which: Any) -> None:
    for number in range(1, 100):
        case = _Interrupted(number, outcome)
        if case.waiter.ident is not None:
            case.waiter.join(10)
            assert case.came in (["own"], ["shared"]), f"interrupted at {number}"
        call, flight = Call(Timeouts(total=10)).start(), case.flight
        # What the leader left behind must not be taken for the outcome of this attempt.
        assert in_which(partial(flight.run, call, lambda: "next"))() == "next", f"interrupted at {number}"
        if not case.came_to_pass:
            break
    assert 20 < number < 99


# -- two threads at the same point


@pytest.mark.parametrize("name", ["get", "pop"])
def test_run__no_thread_gets_in_between(name: str) -> None:
    """Neither between the look and the start, which would make two leaders, nor between the last look and the end."""

    def stop(flights: Any, *arguments: Any) -> Any:
        found = getattr(dict, name)(flights, *arguments)
        point.stop()
        return found

    flight: SingleFlight[str] = SingleFlight()
    point = OneAtATime(lambda: flight.run(Call(), lambda: "second"))
    flight._lock, flight._attempts = point.lock, type("Flights", (dict,), {name: stop})()
    assert flight.run(Call(), lambda: "first") == "first"
    assert point.second() in ("first", "second")
    assert not point.shared
