"""Errors of a signal handler, told from the errors of the code that it interrupts."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from gemini_sync.interruptions import interruption_in, is_interruption, raise_interruption


def handler(number: int, frame: Any) -> None:
    raise TimeoutError("mine")


def caught(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def interrupted() -> None:
    handler(14, sys._getframe())


def wrapped() -> None:
    try:
        interrupted()
    except TimeoutError as exc:
        raise ConnectionError("a library", exc).with_traceback(exc.__traceback__)  # noqa: B904 (as urllib3 does)


def library() -> None:
    error = OSError("a library")
    error.socket_err = caught(interrupted)  # type: ignore[attr-defined]
    raise error


@pytest.mark.parametrize("work", [interrupted, wrapped, library])
def test_interruption__is_found_and_raised_as_itself(work: Callable[[], None]) -> None:
    error = caught(work)
    own = interruption_in(error)
    assert str(own) == "mine"
    assert own is not None
    assert is_interruption(own)
    again = caught(lambda: raise_interruption(error))
    assert (again is own, again.__cause__, again.__context__) == (True, None, None)


def call_a_function_of_the_callers() -> None:
    def function(frame: str, *rest: Any) -> None:
        raise TimeoutError("of a function")

    function("no frame", (1, 2))


def time_out() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.001)
        ours.recv(1)


@pytest.mark.parametrize("work", [call_a_function_of_the_callers, time_out])
def test_interruption__other_errors_are_none(work: Callable[[], None]) -> None:
    error = caught(work)
    assert interruption_in(error) is None
    raise_interruption(error)
