"""A signal handler or the garbage collector may run at any line of a call, and use the adapter without blocking."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from gemini_sync import ConfigError, GeminiDualAdapter, GeminiSyncError, StreamInterrupted
from gemini_sync.auth import single_flight
from gemini_sync.network import cancelling, deadlines
from gemini_sync.routing import fallback, router
from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Rig

LINES_OF = {module.__file__ for module in (cancelling, deadlines, single_flight, router, fallback)}
BOUND_SECONDS = 10.0


class AtLine:
    """A trace function that counts the lines of ``files`` and runs ``handler`` before the line with that number."""

    def __init__(self, number: int, handler: Callable[[], object], files: Collection[Any] = LINES_OF) -> None:
        self.left, self._handler, self._files = number, handler, files

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename in self._files else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self._handler()
        return self._line


def outcome(adapter: GeminiDualAdapter, number: int, handler: Callable[[], object]) -> Any:
    """The text or the error of a call in which ``handler`` runs before line ``number``; None if it has fewer lines."""
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

    in_time(run)
    return found[0]


def in_time(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(BOUND_SECONDS)
    assert not thread.is_alive(), "blocked"


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


def test_status_and_reset__at_any_line_of_a_call_that_falls_back_block_nothing(rig: Rig) -> None:
    rig.emulator.oauth.fail(403, times=None)
    for number in range(1, 1000):
        adapter = rig.adapter()
        seen = []

        def handler(adapter: GeminiDualAdapter = adapter, seen: list[Any] = seen) -> None:
            seen.append(adapter.route_status())
            adapter.reset()
            seen.append(adapter.route_status())

        came = outcome(adapter, number, handler)
        adapter.close()
        if came is None:
            break
        assert came == default_text("Hi")
        before, after = seen
        assert before.fallback_active is (before.preferred == "api_key")
        assert (after.preferred, after.reason, after.failures) == ("oauth", "reset()", ())
    assert number > 50


@pytest.mark.parametrize("wait", [lambda c: c.sleep(3600), lambda c: c.wait_for(Future())], ids=["sleep", "wait_for"])
def test_cancel__at_any_line_of_a_wait_ends_it(
    wait: Callable[[cancelling.Call], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "_SLICE_SECONDS", 0.01)

    def run(tracer: AtLine, waiting: cancelling.Call) -> None:
        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            with pytest.raises(StreamInterrupted):
                wait(waiting)
        finally:
            sys.settrace(before)

    for number in range(1, 40):
        waiting = cancelling.Call().start()
        tracer = AtLine(number, waiting.cancel, {threading.__file__})
        in_time(partial(run, tracer, waiting))
        assert tracer.left <= 0
