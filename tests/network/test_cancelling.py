"""The cancelling of a call ends every wait; and what else ends one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Optional

import pytest

from gemini_sync.config import Timeouts
from gemini_sync.errors import DeadlineExceeded, StreamInterrupted
from gemini_sync.network.cancelling import Call
from tests.network.call_kit import Clock, call_with

_FOREVER = 3600.0
_BOUND = 30.0


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
