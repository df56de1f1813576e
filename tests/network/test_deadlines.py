"""One call: its deadlines, by a clock of its own, and its cancellation, which ends every wait."""

from __future__ import annotations

import itertools
import math
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Optional

import pytest

from gemini_sync.config import Timeouts
from gemini_sync.errors import DeadlineExceeded, StreamInterrupted
from gemini_sync.network.deadlines import Call

_FOREVER = 3600.0
_BOUND = 30.0


class Clock:
    """A clock that stands still until a test moves it; sleeping moves it at once."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def call_with(**timeouts: Any) -> tuple[Call, Clock]:
    clock = Clock()
    return Call(Timeouts(**timeouts), clock=clock, sleep=clock.sleep).start(), clock


class Waiter:
    """A thread that runs ``work``; ``end`` returns the error, ``result`` is what it returned."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.error: Optional[BaseException] = None
        self.result: Any = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        assert self._started.wait(_BOUND)

    def _run(self, work: Callable[[], Any]) -> None:
        self._started.set()
        try:
            self.result = work()
        except BaseException as exc:
            self.error = exc

    def end(self) -> Optional[BaseException]:
        self._thread.join(_BOUND)
        assert not self._thread.is_alive()
        return self.error


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.settimeout(_BOUND)
        yield ours, theirs


# -- deadlines


def test_no_deadline__before_the_start_and_without_any() -> None:
    clock = Clock()
    assert Call().timeouts == Timeouts()
    call = Call(Timeouts(total=5), clock=clock)
    clock.now += 100
    call.check()
    assert call.remaining() is None
    call, clock = call_with(total=None)
    clock.now += 1e9
    call.check()
    assert call.remaining() is None


@pytest.mark.parametrize(
    ("phase", "what"),
    [("connect", "no connection was made"), ("first_token", "no first chunk came"), ("idle", "no further chunk came")],
)
def test_deadline__is_named_in_its_error(phase: str, what: str) -> None:
    call, clock = call_with(total=None)
    call.enter(phase, 2.5)
    assert call.remaining() == 2.5
    clock.now += 2.4
    call.check()
    assert call.remaining() == pytest.approx(0.1)
    clock.now += 0.1
    assert call.remaining() == 0
    with pytest.raises(DeadlineExceeded) as caught:
        call.check()
    assert (caught.value.deadline, caught.value.seconds) == (phase, 2.5)
    assert str(caught.value) == (
        f"The {phase} deadline passed: {what} within 2.5 s. Raise Timeouts.{phase} if that is too short."
    )
    clock.now += 100
    assert call.remaining() == 0


def test_total__holds_beneath_the_others() -> None:
    call, clock = call_with(total=10)
    clock.now += 7
    call.enter("idle", 60)
    assert call.remaining() == 3
    call.enter("idle", 2)
    assert call.remaining() == 2
    call.enter("connect", None)
    assert call.remaining() == 3
    clock.now += 3
    with pytest.raises(
        DeadlineExceeded, match="The total deadline passed: the call was not done within 10 s"
    ) as caught:
        call.check()
    assert (caught.value.deadline, caught.value.seconds) == ("total", 10)


def test_socket_timeout__after_a_chunk_is_the_same_number_each_time() -> None:
    call = Call(Timeouts(idle=0.1), clock=itertools.count(0.7, 0.9).__next__).start()
    for _ in range(3):
        call.got_chunk = True
        assert call.socket_timeout() == 0.1


def test_check_total__names_the_total_deadline() -> None:
    call, clock = call_with(idle=5, total=10)
    call.enter("idle", 5)
    clock.now += 6
    call.check_total()
    clock.now += 4
    with pytest.raises(DeadlineExceeded) as caught:
        call.check_total()
    assert (caught.value.deadline, caught.value.seconds) == ("total", 10)


def test_socket_timeout__is_the_nearer_of_idle_and_total() -> None:
    call, clock = call_with(idle=5, total=10)
    for passed, chunk_came, timeout in [(3, True, 5), (1, False, 4), (3, True, 3), (2, False, 1)]:
        clock.now += passed
        call.got_chunk = chunk_came
        assert call.socket_timeout() == timeout
    clock.now += 1
    with pytest.raises(socket.timeout):  # 0 would mean not to wait at all
        call.socket_timeout()


def test_total__wins_if_both_end_at_once() -> None:
    call, _ = call_with(total=10)
    call.enter("idle", 10)
    assert call.deadline_error().deadline == "total"


def test_total__stays_the_same_if_the_timeouts_change() -> None:
    call, clock = call_with(total=10)
    call.timeouts = Timeouts(first_token=30, idle=None)
    call.enter("first_token", 30)
    clock.now += 10
    with pytest.raises(DeadlineExceeded, match="within 10 s"):
        call.check()


def test_total__starts_with_the_call() -> None:
    clock = Clock()
    call = Call(Timeouts(total=10), clock=clock)
    clock.now += 1000
    assert call.start() is call
    assert call.remaining() == 10


def test_enter__new_phase_ends_the_one_before() -> None:
    call, clock = call_with(total=None)
    call.enter("first_token", 5)
    clock.now += 4
    call.enter("idle", 5)
    clock.now += 4
    call.check()
    call.enter("idle", None)
    clock.now += 1e6
    call.check()


def test_infinite_deadlines__are_none() -> None:
    call, clock = call_with(total=math.inf)
    call.enter("connect", math.inf)
    clock.now += 1e9
    call.check()
    assert call.remaining() is None


def test_begin_read__starts_a_new_idle_deadline_after_a_chunk() -> None:
    call, clock = call_with(idle=5, total=None)
    call.enter("first_token", 10)
    clock.now += 9
    call.begin_read()
    assert call.remaining() == 1  # bytes alone change nothing
    call.got_chunk = True
    call.begin_read()
    assert call.remaining() == 5
    clock.now += 4
    call.begin_read()
    assert call.remaining() == 1
    assert not call.got_chunk


# -- sleeping


def test_sleep__takes_its_time() -> None:
    call, clock = call_with(total=None)
    call.enter("idle", 1)  # limits a stream, not a wait
    call.sleep(7)
    assert clock.slept == [7]


def test_sleep__at_most_until_the_total_deadline() -> None:
    call, clock = call_with(total=10)
    call.sleep(4)
    with pytest.raises(DeadlineExceeded, match="total"):
        call.sleep(20)
    assert clock.slept == [4, 6]
    with pytest.raises(DeadlineExceeded, match="total"):
        call.sleep(1)
    assert clock.slept == [4, 6]


def test_sleep__cancelled_before_it() -> None:
    call, clock = call_with(total=None)
    call.cancel()
    with pytest.raises(StreamInterrupted):
        call.sleep(5)
    assert clock.slept == []


def test_sleep__cancelled_in_it() -> None:
    call = Call().start()
    waiter = Waiter(lambda: call.sleep(_FOREVER))
    call.cancel()
    error = waiter.end()
    assert isinstance(error, StreamInterrupted)
    assert error.cancelled


# -- waiting for others


def test_wait_for__future_that_is_done() -> None:
    call, _ = call_with(total=None)
    answered, failed, cancelled = Future[int](), Future[int](), Future[int]()
    answered.set_result(1)
    failed.set_exception(KeyError())
    cancelled.cancel()
    for future in (answered, failed, cancelled):
        call.wait_for(future)


@pytest.mark.parametrize(
    "end", [lambda f: f.set_result(1), lambda f: f.set_exception(KeyError()), lambda f: f.cancel()]
)
def test_wait_for__future_that_ends_meanwhile(end: Callable[[Future[int]], Any]) -> None:
    call, future = Call().start(), Future[int]()
    waiter = Waiter(lambda: call.wait_for(future))
    end(future)
    assert waiter.end() is None


def test_wait_for__cancelled() -> None:
    call, future = Call().start(), Future[int]()
    waiter = Waiter(lambda: call.wait_for(future))
    call.cancel()
    error = waiter.end()
    assert isinstance(error, StreamInterrupted)
    assert error.cancelled
    future.set_result(1)  # no thread waits any more, and nothing breaks


def test_wait_for__at_most_until_the_total_deadline() -> None:
    clock = Clock()

    def ticking() -> float:
        clock.now += 0.001  # each look at it takes a while
        return clock.now

    call = Call(Timeouts(total=0.01), clock=ticking).start()
    with pytest.raises(DeadlineExceeded, match="total"):
        call.wait_for(Future())


def test_waits__end_by_a_clock_that_stands_still() -> None:
    """Each wait has one source of time, and it is not that clock."""
    call = Call(Timeouts(total=0.05), clock=lambda: 1000.0).start()
    assert Waiter(lambda: call.sleep(0.05)).end() is None
    error = Waiter(lambda: call.wait_for(Future())).end()
    assert isinstance(error, DeadlineExceeded)
    assert (error.deadline, error.seconds) == ("total", 0.05)


@pytest.mark.parametrize("slept", [True, False])
def test_waits__cancelled_by_a_clock_that_stands_still(slept: bool) -> None:
    call = Call(clock=lambda: 1000.0).start()
    waiter = Waiter(lambda: call.sleep(_FOREVER) if slept else call.wait_for(Future()))
    call.cancel()
    assert isinstance(waiter.end(), StreamInterrupted)


@pytest.mark.parametrize("done_before", [True, False])
def test_wait_for__does_not_shorten_later_waits(done_before: bool) -> None:
    call, future, waited = Call().start(), Future[int](), threading.Event()
    if done_before:
        future.set_result(1)

    def work() -> None:
        call.wait_for(future)
        waited.set()
        call.sleep(_FOREVER)

    waiter = Waiter(work)
    if not done_before:
        future.set_result(1)
    assert waited.wait(_BOUND)
    # A sleep that ends by itself gives no error.
    call.cancel()
    assert isinstance(waiter.end(), StreamInterrupted)


# -- the socket


def test_cancel__wakes_a_blocked_read(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    call = Call().start()
    call.attach(ours)
    assert call.socket is not None
    waiter = Waiter(lambda: ours.recv(1))
    call.cancel()
    assert waiter.end() is None
    assert waiter.result == b""
    assert theirs.recv(1) == b""
    with pytest.raises(StreamInterrupted) as caught:
        call.check()
    assert caught.value.cancelled
    call.cancel()


def test_cancel__leaves_a_detached_socket_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    call = Call().start()
    call.attach(ours)
    call.detach()
    assert not (call.socket is not None)
    call.cancel()
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"


def test_attach__after_a_cancel(pair: tuple[socket.socket, socket.socket]) -> None:
    call = Call().start()
    call.cancel()
    with pytest.raises(StreamInterrupted) as caught:
        call.attach(pair[0])
    assert caught.value.cancelled


def test_cancel__of_a_socket_that_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    call = Call().start()
    call.attach(pair[0])
    pair[0].close()
    call.cancel()
    assert call.cancelled


def test_cancel__wins_over_a_deadline() -> None:
    call, clock = call_with(total=1)
    clock.now += 5
    call.cancel()
    with pytest.raises(StreamInterrupted):
        call.check()
