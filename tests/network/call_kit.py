"""A call with a clock that a test moves."""

from __future__ import annotations

from typing import Any

from gemini_sync.config import Timeouts
from gemini_sync.network.cancelling import Call


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
