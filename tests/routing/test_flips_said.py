"""A flip that is made is said, wherever an interrupt comes, and a callback is called once."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gemini_sync import redaction
from gemini_sync.routing import events, fallback, flips, router, snapshot
from gemini_sync.routing.events import FallbackEvent, notify_stderr
from tests.adapter_kit import BY_OAUTH, Table, forbidden, in_thread, not_found
from tests.auth.credentials_kit import together

FILES = {module.__file__ for module in (router, flips, fallback, snapshot, events, redaction)}
_LINES = sys.version_info >= (3, 12)  # which does not tell of every opcode, so lines count as well
STORIES = ["all", "one model", "back", "reminder"]
MANY = 20


class AtOpcode:
    """A trace function that runs ``action`` before the opcodes and lines with these numbers in the files above."""

    def __init__(self, *numbers: int, action: Callable[[], object]) -> None:
        self.count, self._numbers, self._action = 0, numbers, action

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = _LINES, True
        return self._opcode

    def _opcode(self, frame: Any, event: str, argument: Any) -> Any:
        if event in ("opcode", "line"):
            self.count += 1
            if self.count in self._numbers:
                self._action()
        return self._opcode


def interrupt() -> None:
    raise KeyboardInterrupt


def prepared(story: str, **settings: Any) -> Table:
    """A table whose next call makes news."""
    now = [0.0]
    steps: list[Any] = {"one model": [not_found], "back": [forbidden, BY_OAUTH]}.get(story, [forbidden])
    sticky_for = 5 if story == "back" else None
    table = Table(*steps, clock=lambda: now[0], sticky_for=sticky_for, remind_every=10, **settings)
    if story in ("back", "reminder"):
        assert table.route() == "api_key"
        now[0] = 10.0 if story == "reminder" else 5.0
    return table


def interrupted(table: Table, *numbers: int) -> bool:
    """Make a call with interrupts at those opcodes; False if it has fewer."""
    tracer, before, reply = AtOpcode(*numbers, action=interrupt), sys.gettrace(), table.stream()
    sys.settrace(tracer)
    try:
        next(reply)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return tracer.count >= numbers[0]


def made(table: Table) -> int:
    """How many flips have been made."""
    status = table.router.status()
    return len(status.models) + (2 if status.reason == "a probe succeeded" else status.fallback_active)


@pytest.mark.parametrize("story", STORIES)
def test_callback__is_called_once_wherever_one_interrupt_comes(story: str) -> None:
    for number in range(1, 5000):
        table = prepared(story)
        reached = interrupted(table, number)
        reminders = sum(event.since is not None for event in table.events)
        assert len(table.events) - reminders == made(table), number
        table.route()
        table.route()
        assert len({id(event) for event in table.events}) == len(table.events)
        assert sum(event.since is not None for event in table.events) == (story == "reminder"), number
        if not reached:
            break
    assert 50 < number < 4999


@pytest.mark.parametrize("story", STORIES)
def test_default_line__is_out_wherever_one_interrupt_comes(story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 5000):
        shown = io.StringIO()
        monkeypatch.setattr(sys, "stderr", shown)
        table = prepared(story, on_fallback=notify_stderr)
        reached = interrupted(table, number)
        lines = [line for line in shown.getvalue().splitlines() if "still serves" not in line]
        assert len(set(lines)) == made(table), number
        assert len(lines) <= made(table) + 1, number  # twice, if the interrupt came when the line was out
        if not reached:
            break
    assert 50 < number < 4999


@pytest.mark.parametrize("apart", [1, 7, 40])
def test_callback__is_called_by_the_next_call_if_two_interrupts_come(apart: int) -> None:
    for number in range(1, 5000):
        table = prepared("all")
        reached = interrupted(table, number, number + apart)
        flipped = made(table)
        assert len(table.events) <= 1
        assert table.route() == "api_key"
        assert (len(table.events), flipped <= 1) == (1, True), number
        assert table.router._state.snapshot.unsaid == ()
        if not reached:
            break
    assert number > 50


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_callback__that_raises_an_interrupt_of_its_own_is_called_once(error: type[BaseException]) -> None:
    seen: list[FallbackEvent] = []

    def refuse(event: FallbackEvent) -> None:
        seen.append(event)
        raise error

    table = Table(forbidden, on_fallback=refuse)
    with pytest.raises(error):
        list(table.stream())
    assert table.router.fallback_active
    assert table.route() == "api_key"
    assert (len(seen), table.router._state.snapshot.unsaid) == (1, ())


def test_callback__of_a_thread_that_was_interrupted_is_called_once_by_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupted thread makes no further call. Others find what is unsaid, and one of them says it."""
    table = prepared("all")

    def call() -> None:
        with pytest.raises(KeyboardInterrupt):
            next(table.stream())

    with monkeypatch.context() as patch:
        patch.setattr(flips.Flips, "_say", lambda self: interrupt())
        in_thread(call)()
    assert (made(table), table.events) == (1, [])
    assert together(MANY, table.route) == ["api_key"] * MANY
    assert len(table.events) == 1


def test_reset__of_a_signal_handler_between_flip_and_message_silences_nothing() -> None:
    for number in range(1, 5000):
        table = prepared("all")
        flipped: list[bool] = []

        def handler(table: Table = table, flipped: list[bool] = flipped) -> None:
            flipped.append(table.router.fallback_active)
            table.router.reset()

        tracer, before = AtOpcode(number, action=handler), sys.gettrace()
        sys.settrace(tracer)
        try:
            assert next(table.stream())
        finally:
            sys.settrace(before)
        assert len(table.events) == (flipped == [True] or table.router.fallback_active), number
        if tracer.count < number:
            break
    assert number > 50


def test_message__is_said_once_if_another_thread_comes_while_it_is_said() -> None:
    entered, go_on = threading.Event(), threading.Event()
    seen: list[FallbackEvent] = []

    def slow(event: FallbackEvent) -> None:
        seen.append(event)
        entered.set()
        assert go_on.wait(20)

    table = Table(forbidden, on_fallback=slow)
    first = in_thread(table.route)
    assert entered.wait(20)
    assert together(MANY, table.route) == ["api_key"] * MANY
    go_on.set()
    assert first() == "api_key"
    assert (len(seen), table.router._state.snapshot.unsaid) == (1, ())
