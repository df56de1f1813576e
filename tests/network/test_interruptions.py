"""Errors of a signal handler, told from the errors of the code that it interrupts."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from gemini_sync.interruptions import (
    drop_frames,
    interruption_in,
    is_interruption,
    is_of_libraries,
    raise_interruption,
)


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


def lookup_in(name: str) -> Callable[[], object]:
    """A function of the module ``name`` that raises a LookupError with a cause."""
    code = """
def fail():
    try:
        raise KeyError
    except KeyError as exc:
        raise LookupError from exc
"""
    module: dict[str, Any] = {"__name__": name}
    exec(compile(code, name, "exec"), module)
    return module["fail"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("module", "is_kept"), [("gemini_sync.x", False), ("urllib3.x", False), ("mine", True)])
def test_drop_frames__of_an_error_and_its_causes(module: str, is_kept: bool) -> None:
    error = caught(lookup_in(module))
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # without the frame of caught()
    drop_frames(error)
    assert error.__cause__ is not None
    assert [each.__traceback__ is not None for each in (error, error.__cause__)] == [is_kept, is_kept]


def test_drop_frames__of_an_error_that_is_its_own_context() -> None:
    error, other = KeyError(), ValueError()
    error.__context__, other.__context__ = other, error
    drop_frames(error)
    assert is_of_libraries(error, wholly=True)  # it was never raised
