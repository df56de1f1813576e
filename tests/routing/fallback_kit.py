"""What the tests of the fallback state share: a clock, states to begin with, threads that start together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from gemini_sync.routing.fallback import FallbackState
from gemini_sync.routing.snapshot import Choice


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def new_state(**options: Any) -> tuple[FallbackState, Clock]:
    clock = Clock()
    return FallbackState(clock=clock, wall=lambda: 1000 + clock.now, **options), clock


def probing(sticky_for: float = 10) -> tuple[FallbackState, Clock, Choice]:
    """A state that fell back and cooled down, its clock, and the choice of the call that probes."""
    state, clock = new_state()
    assert state.fall_back(state.choose("m"), "401", cool_down=sticky_for)
    clock.now += sticky_for
    return state, clock, state.choose("m")


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What ``work`` returns in each of ``count`` threads that begin at the same time."""
    barrier, results = threading.Barrier(count), [None] * count

    def run(number: int) -> None:
        barrier.wait(30)
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return results
