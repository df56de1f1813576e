"""Ctrl-C arrives at once, wherever a call waits; it is never retried, and the adapter is usable afterwards."""

from __future__ import annotations

import signal
import threading

import pytest

from gemini_sync.network.cancelling import Call
from tests.adapter_kit import Rig
from tests.wire.raw_server import SECONDS
from tests.wire.support import FRAMINGS, PATIENT, ask, on_signal, tell_when_entered, telling, watchdog


@pytest.fixture
def interrupt():
    """Presses Ctrl-C."""

    def raise_interrupt():
        raise KeyboardInterrupt

    with on_signal(signal.SIGINT, raise_interrupt) as press:
        yield press


def test_ctrl_c__while_waiting_for_headers(server, route, interrupt):
    script = getattr(server, route)
    script.fail("stall", before=interrupt)
    reply = ask(server, route, **PATIENT)
    with watchdog(reply.cancel), pytest.raises(KeyboardInterrupt):
        list(reply)
    assert server.wait_closed()
    assert len(script.requests) == 1
    assert list(ask(server, route))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_ctrl_c__in_the_body(server, framing, interrupt):
    got_text = threading.Event()

    def wait_and_interrupt(index):
        if index and got_text.wait(SECONDS):
            interrupt()

    server.api_key.answer(text="one two", framing=framing, pace=wait_and_interrupt)
    server.api_key.fail("stall", after=1)
    with ask(server, **PATIENT) as reply, watchdog(reply.cancel), pytest.raises(KeyboardInterrupt):
        list(telling(reply, got_text))
    assert server.wait_closed()
    assert (len(server.api_key.requests), reply.text) == (1, "one")
    server.api_key.reset()
    assert list(ask(server))


def test_ctrl_c__in_the_sleep_between_retries(emulator, tmp_path, monkeypatch, interrupt):
    asleep = tell_when_entered(monkeypatch, Call, "sleep")
    emulator.oauth.fail(503)

    def interrupt_sleeper():
        assert asleep.wait(SECONDS)
        interrupt()

    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter(sleep=None, **PATIENT)
        helper = threading.Thread(target=interrupt_sleeper)
        helper.start()
        with watchdog(adapter.close), pytest.raises(KeyboardInterrupt):
            adapter.generate("Why?")
        helper.join()
        assert len(emulator.oauth.requests) == 1
        assert adapter.generate("Why?").route == "oauth"
    assert (rig.flips, emulator.api_key.requests) == ([], [])
