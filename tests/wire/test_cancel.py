"""Cancelling and closing end a call at once, wherever it waits, and what comes after works."""

from __future__ import annotations

import signal
import socket
import threading

import pytest

from gemini_sync import StreamInterrupted
from gemini_sync.network.cancelling import Call
from tests.adapter_kit import Rig
from tests.wire.raw_server import SECONDS, RawServer, black_hole
from tests.wire.support import FRAMINGS, PATIENT, ask, drain, event, on_signal, tell_when_entered, telling


class Reader(threading.Thread):
    """Drains a reply in a thread of its own; ``got_text`` is set with the first piece."""

    def __init__(self, reply):
        super().__init__(daemon=True)
        self.reply, self.got_text, self.outcome = reply, threading.Event(), None
        self.start()

    def run(self):
        self.outcome = drain(telling(self.reply, self.got_text))

    def finish(self):
        """The texts and the error; fails if the reader is still blocked."""
        self.join(SECONDS)
        assert not self.is_alive(), "the reader was not woken"
        return self.outcome


def assert_cancelled(error, partial=""):
    assert type(error) is StreamInterrupted
    assert (error.cancelled, error.partial.text) == (True, partial)
    assert [attempt.outcome for attempt in error.attempts][-1:] == ["cancelled"]


# --- where a call may wait


def test_cancel__before_the_first_next(emulator, route):
    reply = ask(emulator, route)
    reply.cancel()
    texts, error = drain(reply)
    assert_cancelled(error)
    assert (texts, emulator.requests) == ([], [])


def test_cancel__while_connecting(monkeypatch):
    entered = tell_when_entered(monkeypatch, socket.socket, "connect")
    with black_hole() as url:
        reader = Reader(ask(url, **PATIENT))
        assert entered.wait(SECONDS)
        reader.reply.cancel()
        assert_cancelled(reader.finish()[1])


@pytest.mark.parametrize("waits_for", ["handshake", "proxy"])
def test_cancel__while_the_connection_is_set_up(tls, monkeypatch, waits_for):
    asked = threading.Event()

    def script(peer):
        assert peer.socket.recv(65536)
        asked.set()
        peer.wait_gone()

    with RawServer(script) as silent:
        url = silent.url.replace("http:", "https:")
        if waits_for == "proxy":
            monkeypatch.setenv("HTTPS_PROXY", silent.url)
            url = "https://127.0.0.1:9"
        reader = Reader(ask(url, **PATIENT))
        assert asked.wait(SECONDS)
        reader.reply.cancel()
        assert_cancelled(reader.finish()[1])
    assert len(silent.peers) == 1


def test_cancel__while_the_request_is_sent(context):
    connected = threading.Event()

    def script(peer):
        connected.set()
        peer.pause(SECONDS)

    with RawServer(script, tls=context) as deaf:  # it does not read, so buffers fill up
        reader = Reader(ask(deaf.url, system_instruction="x" * 2**24, **PATIENT))
        assert connected.wait(SECONDS)
        reader.reply.cancel()
        assert_cancelled(reader.finish()[1])


def test_cancel__while_waiting_for_headers(server, route):
    script = getattr(server, route)
    script.fail("stall")
    reader = Reader(ask(server, route, **PATIENT))
    assert script.wait_for(1)
    reader.reply.cancel()
    assert_cancelled(reader.finish()[1])
    assert server.wait_closed()
    assert len(script.requests) == 1
    assert list(ask(server, route))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_cancel__in_the_body(server, route, framing):
    script = getattr(server, route)
    script.answer(body=event("one") * 2, framing=framing, wrap=route == "oauth")
    script.fail("stall", after=1)
    reader = Reader(ask(server, route, **PATIENT))
    assert reader.got_text.wait(SECONDS)
    reader.reply.cancel()
    texts, error = reader.finish()
    assert texts == ["one"]
    assert_cancelled(error, "one")
    assert server.wait_closed()
    assert len(script.requests) == 1


def test_cancel__in_an_error_body(server):
    sent = threading.Event()

    def script(peer):
        peer.read_request()
        peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nbusy")
        sent.set()
        peer.wait_gone()

    with RawServer(script) as raw:
        reader = Reader(ask(raw.url, **PATIENT))
        assert sent.wait(SECONDS)
        reader.reply.cancel()
        assert_cancelled(reader.finish()[1])


def test_cancel__in_the_sleep_between_retries(emulator, route, monkeypatch):
    asleep = tell_when_entered(monkeypatch, Call, "sleep")
    script = getattr(emulator, route)
    script.fail(503, times=None)
    reader = Reader(ask(emulator, route, **PATIENT))
    assert asleep.wait(SECONDS)
    reader.reply.cancel()
    error = reader.finish()[1]
    assert type(error) is StreamInterrupted
    assert (error.cancelled, len(script.requests)) == (True, 1)


def test_cancel__never_flips(emulator, tmp_path):
    emulator.oauth.fail("stall")
    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter(**PATIENT)
        reader = Reader(adapter.stream("Why?"))
        assert emulator.oauth.wait_for(1)
        reader.reply.cancel()
        assert_cancelled(reader.finish()[1])
        assert not adapter.fallback_active
        assert adapter.generate("Why?").route == "oauth"
    assert (rig.flips, emulator.api_key.requests) == ([], [])


# --- who cancels, and when


def test_cancel__by_the_reader_itself_ends_at_the_next_piece(emulator):
    emulator.api_key.answer(body=event("one") + event(" two", "STOP"), pieces=[event("one") + event(" two", "STOP")])
    reply = ask(emulator, **PATIENT)
    assert next(reply) == "one"
    reply.cancel()
    with pytest.raises(StreamInterrupted) as caught:
        next(reply)
    assert_cancelled(caught.value, "one")


def test_cancel__by_a_signal_handler(emulator):
    reply = ask(emulator, **PATIENT)
    with on_signal(signal.SIGUSR1, reply.cancel) as send:
        emulator.api_key.fail("stall", before=send)
        _, error = drain(reply)
    assert_cancelled(error)


def test_cancel__after_the_end_does_not_touch_the_next_call(emulator):
    over = ask(emulator)
    text = "".join(over)
    received = threading.Semaphore(0)
    emulator.api_key.answer(text="one two three four", pace=lambda index: index and received.acquire(timeout=SECONDS))
    texts = []
    for piece in ask(emulator):  # on the connection of the first call
        texts.append(piece)
        over.cancel()
        received.release()
    assert ("".join(texts), over.text) == ("one two three four", text)
    assert emulator.connections_total == 1


def test_cancel__at_any_moment(server):
    for _ in range(60):
        reply = ask(server)
        cancels = threading.Thread(target=reply.cancel)
        server.api_key.before = cancels.start
        texts, error = drain(reply)
        cancels.join()
        server.api_key.before = None
        if error is not None:
            assert_cancelled(error, "".join(texts))
        assert list(ask(server))


def test_close__from_another_thread_cancels(emulator):
    emulator.api_key.fail("stall", after=1)
    reader = Reader(ask(emulator, **PATIENT))
    assert reader.got_text.wait(SECONDS)
    reader.reply.close()
    assert reader.finish()[1].cancelled


def test_close__of_the_adapter_cancels_its_calls(emulator, tmp_path):
    emulator.oauth.fail("stall", after=1, times=2)
    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter(**PATIENT)
        readers = [Reader(adapter.stream("Why?")) for _ in range(2)]
        assert all(reader.got_text.wait(SECONDS) for reader in readers)
        adapter.close()
        assert [reader.finish()[1].cancelled for reader in readers] == [True, True]
    assert rig.flips == []
    assert emulator.wait_closed()
