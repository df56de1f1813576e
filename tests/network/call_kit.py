"""A call with a clock that a test moves, and a thing that calls can wait for."""

from __future__ import annotations

import threading
from typing import Any

from gemini_sync.config import Timeouts
from gemini_sync.network.cancelling import Call
from gemini_sync.waiting import wake


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


class Thing:
    """Something to wait for, which is done after ``end()``. ``asked`` is set once a call has looked whether it is."""

    def __init__(self, *, done: bool = False) -> None:
        self.waiters: list[Any] = []
        self.asked = threading.Event()
        self._done = done

    def done(self) -> bool:
        done = self._done
        self.asked.set()
        return done

    def end(self) -> None:
        self._done = True
        wake(self.waiters)
