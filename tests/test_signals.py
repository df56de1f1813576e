"""Holds what a signal handler, or the collection of garbage, may do to a call at any line of it: nothing blocks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gemini_sync import ConfigError, GeminiDualAdapter, GeminiSyncError, StreamInterrupted, call, router, sticky
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import Rig

LINES_OF = {module.__file__ for module in (call, router, sticky)}
BOUND_SECONDS = 10.0


@pytest.fixture
def rig(emulator: Emulator, tmp_path: Path) -> Iterator[Rig]:
    with Rig(emulator, tmp_path) as rig:
        yield rig


class AtLine:
    """A trace function that runs ``handler`` before the line with that number, counting those of the modules above."""

    def __init__(self, number: int, handler: Callable[[], object]) -> None:
        self.left, self._handler = number, handler

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename in LINES_OF else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self._handler()
        return self._line


def outcome(adapter: GeminiDualAdapter, number: int, handler: Callable[[], object]) -> Any:
    """What a call gave whose line ``number`` was interrupted by ``handler``; None where it has no such line."""
    found: list[Any] = []

    def run() -> None:
        tracer = AtLine(number, handler)
        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            found.append(adapter.generate("Hi").text)
        except GeminiSyncError as exc:
            found.append(exc)
        finally:
            sys.settrace(before)
        if tracer.left > 0:
            found[:] = [None]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(BOUND_SECONDS)
    assert not thread.is_alive(), f"blocked at line {number}"
    return found[0]


def test_close__at_any_line_of_a_call_blocks_nothing(rig: Rig) -> None:
    for number in range(1, 1000):
        adapter = rig.adapter()
        came = outcome(adapter, number, adapter.close)
        adapter.close()
        if came is None:
            break
        closed = isinstance(came, ConfigError) or (isinstance(came, StreamInterrupted) and came.cancelled)
        assert closed or came == default_text("Hi")
    assert number > 50
    assert rig.emulator.wait_closed()
