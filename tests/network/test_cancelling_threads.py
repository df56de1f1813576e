"""Tests of a call that two threads use at once."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from gemini_sync.network import cancelling
from gemini_sync.network.cancelling import Call
from tests.adapter_kit import in_thread
from tests.lock_kit import OneAtATime


def test_detach__waits_while_cancel_shuts_the_socket_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the descriptor could be closed, and be another socket's by the time it is shut down."""
    shut_down = cancelling._shut_down

    def stop(sock: socket.socket) -> None:
        point.stop()
        shut_down(sock)

    call = Call().start()
    point = OneAtATime(call.detach)
    call._changed = threading.Condition(point.lock)  # type: ignore[arg-type]
    monkeypatch.setattr(cancelling, "_shut_down", stop)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call.attach(ours)
        call.cancel()
        point.second()
    assert (point.shared, (call.socket is not None)) == (False, False)


class _Asked(Future[Any]):
    """Tells when it was asked if it is done, which a waiter does with its lock held."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = threading.Event()

    def done(self) -> bool:
        done = super().done()
        self.waited_for.set()
        return done


@pytest.mark.parametrize("end", [lambda future: future.set_result(1), lambda future: future.cancel()])
def test_wait_for__is_told_of_the_end_at_once(end: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only when it next looks."""
    monkeypatch.setattr(cancelling, "_SLICE_SECONDS", 3600.0)
    call, future = Call().start(), _Asked()
    waiter = in_thread(lambda: call.wait_for(future))
    assert future.waited_for.wait(20)
    end(future)
    waiter()
