"""The deadlines of a call, by a clock of its own."""

from __future__ import annotations

import itertools
import math
import socket

import pytest

from gemini_sync.config import Timeouts
from gemini_sync.errors import DeadlineExceeded
from gemini_sync.network.cancelling import Call
from tests.network.call_kit import Clock, call_with


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
