"""A call within a call: each keeps its own deadlines and its own connection."""

from __future__ import annotations

import logging

import requests

from gemini_sync import (
    DeadlineExceeded,
    Timeouts,
)
from gemini_sync.network.cancelling import Call
from gemini_sync.network.connection import current
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import Emulator, default_text
from tests.wire.support import ask, drain, watchdog

TEXT = default_text("Why?")


# --- a call within a call


class Caller(logging.Handler):
    """A log handler that makes a call of its own at its first record."""

    def __init__(self, call):
        super().__init__(logging.DEBUG)
        self.call, self.came = call, []

    def emit(self, record):
        if self.call is not None:
            call, self.call = self.call, None
            self.came.append("".join(call()))


def test_nested_call__leaves_the_outer_one_its_deadlines(emulator, caplog):
    """A log handler may call while a call is being sent. Only a connection of ours notices a header that drips."""
    emulator.api_key.fail("drip_headers", interval=0.02)
    log = logging.getLogger("urllib3.connectionpool")
    with Emulator() as other, caplog.at_level(logging.DEBUG, log.name):
        handler = Caller(lambda: ask(other))
        log.addHandler(handler)
        try:
            with watchdog(emulator.stop):
                _, error = drain(ask(emulator, timeouts=Timeouts(connect=20, first_token=0.1)))
        finally:
            log.removeHandler(handler)
    assert handler.came == [TEXT]
    assert (type(error), error.deadline, current.get()) == (DeadlineExceeded, "first_token", None)


def test_nested_call__by_a_session_of_the_caller(emulator):
    seen = []

    class Session(requests.Session):
        def send(self, request, **options):
            outer = current.get()
            if not seen:
                seen.append(outer)
                inner = Call().start()
                with transport.send(inner, "POST", emulator.url + "/inner", {}, b"{}") as exchange:
                    exchange.answer()
                assert current.get() is outer
                assert inner is not outer
            return super().send(request, **options)

    transport, call = Transport(Session), Call().start()
    with transport.send(call, "POST", emulator.url + "/outer", {}, b"{}") as exchange:
        assert exchange.answer().status == 404
    assert (seen, current.get()) == ([call], None)
    transport.close()
