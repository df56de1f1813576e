"""Tests of a call that two threads use at once."""

from __future__ import annotations

import socket

import pytest

from gemini_sync import waiting
from gemini_sync.network import cancelling
from gemini_sync.network.cancelling import Call
from tests.adapter_kit import in_thread
from tests.lock_kit import OneAtATime
from tests.network.call_kit import Thing


def test_detach__waits_while_cancel_shuts_the_socket_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the descriptor could be closed, and be another socket's by the time it is shut down."""
    shut_down = cancelling._shut_down

    def stop(sock: socket.socket) -> None:
        point.stop()
        shut_down(sock)

    call = Call().start()
    point = OneAtATime(call.detach)
    call._lock = point.lock  # type: ignore[assignment]
    monkeypatch.setattr(cancelling, "_shut_down", stop)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call.attach(ours)
        call.cancel()
        point.second()
    assert (point.shared, (call.socket is not None)) == (False, False)


def test_wait_for__is_told_of_the_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only when it next looks."""
    monkeypatch.setattr(waiting, "_SLICE_SECONDS", 3600.0)
    call, thing = Call().start(), Thing()
    waiter = in_thread(lambda: call.wait_for(thing))
    assert thing.asked.wait(20)
    thing.end()
    waiter()


def test_wait_for__leaves_no_waiter_behind() -> None:
    call, thing = Call().start(), Thing(done=True)
    call.wait_for(thing)
    assert (thing.waiters, call._waiters) == ([], [])
