"""Signal handlers of each kind may raise in a call; timeouts of the socket itself are still deadlines."""

from __future__ import annotations

import functools
import signal
import threading

import pytest

from gemini_sync import DeadlineExceeded, Timeouts
from tests.wire.support import PATIENT, ask, on_signal, watchdog

# --- kinds of handlers


class Handler:
    """A handler that is an object, and one that is its method, which drops its arguments before it raises."""

    def __init__(self, fire):
        self.fire = fire

    def __call__(self, *arguments):
        self.method(*arguments)

    def method(self, number, frame):
        del number, frame
        self.fire()


def fire_it(fire, number, frame):
    fire()


HANDLERS = {
    "partial": lambda fire: functools.partial(fire_it, fire),
    "object": Handler,
    "any arguments": lambda fire: lambda *arguments: Handler(fire).method(*arguments),
    "named arguments": lambda fire: lambda number, frame: fire(),
}


@pytest.mark.parametrize("kind", HANDLERS)
def test_alarm__of_any_kind_of_handler(emulator, kind):
    error, receiver, fired = TimeoutError("mine"), threading.get_ident(), threading.Event()

    def fire():
        if not fired.is_set():
            fired.set()
            raise error

    def send():
        # Repeated, because a signal that comes just before a thread blocks does not wake it.
        for _ in range(200):
            signal.pthread_kill(receiver, signal.SIGALRM)
            if fired.wait(0.05):
                break

    emulator.api_key.fail("stall", before=send)
    reply = ask(emulator, **PATIENT)
    before = signal.signal(signal.SIGALRM, HANDLERS[kind](fire))
    try:
        with watchdog(reply.cancel), pytest.raises(TimeoutError) as caught:
            list(reply)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert caught.value is error


def test_timeouts__of_the_socket_itself_are_still_deadlines(emulator):
    emulator.api_key.fail("stall", times=None)
    with on_signal(signal.SIGALRM, lambda: None) as harmless:
        emulator.api_key.fail("stall", before=harmless)
        with pytest.raises(DeadlineExceeded, match="first_token"):
            list(ask(emulator, timeouts=Timeouts(first_token=0.2)))
