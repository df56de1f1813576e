"""Each deadline holds on a real socket, against silence and against a server that drips, and is named in the error."""

from __future__ import annotations

import socket
import threading

import pytest

from gemini_sync import DeadlineExceeded, Retry, ServerError, StreamInterrupted, Timeouts
from gemini_sync.network.exchange import Exchange
from tests.adapter_kit import Rig
from tests.wire.raw_server import SECONDS, RawServer, black_hole
from tests.wire.support import FRAMINGS, NEVER, ONCE, ask, drain, event, watchdog

SHORT = 0.1


def limits(**short):
    """Deadlines that never pass, except those given."""
    return Timeouts(**{"connect": NEVER, "first_token": NEVER, "idle": NEVER, **short})


def deadline_of(error):
    cause = error.__cause__ if isinstance(error, StreamInterrupted) else error
    assert type(cause) is DeadlineExceeded, repr(error)
    assert f"The {cause.deadline} deadline passed" in str(error)
    return cause.deadline


# --- connect


def test_connect__full_backlog_is_tried_again(route):
    with black_hole() as url:
        _, error = drain(ask(url, route, timeouts=limits(connect=SHORT), retry=Retry(2, backoff_base=0)))
    assert deadline_of(error) == "connect"
    assert [deadline_of(attempt.error) for attempt in error.attempts] == ["connect", "connect"]
    assert error.seconds == SHORT


def test_connect__includes_the_tls_handshake(tls):
    with RawServer(lambda peer: peer.wait_gone()) as silent:
        url = silent.url.replace("http:", "https:")
        _, error = drain(ask(url, timeouts=limits(connect=SHORT), retry=ONCE))
    assert (deadline_of(error), len(silent.peers)) == ("connect", 1)


def drip(head, data=b"x"):
    """A script that reads a request, sends ``head``, and then ``data`` again and again until the client has gone."""

    def script(peer):
        peer.read_request()
        peer.send(head)
        while True:
            peer.send(data)
            peer.pause(0.02)

    return script


def test_connect__includes_the_answer_of_a_proxy(monkeypatch):
    with RawServer(drip(b"HTTP/1.1 200 OK\r\nX-Drip: ")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        _, error = drain(ask("https://127.0.0.1:9", timeouts=limits(connect=SHORT), retry=ONCE))
    assert (deadline_of(error), len(proxy.peers)) == ("connect", 1)


def test_connect__addresses_share_the_deadline(emulator, monkeypatch):
    resolve = socket.getaddrinfo
    with black_hole() as url:
        dead = resolve("127.0.0.1", url.rpartition(":")[2], type=socket.SOCK_STREAM)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **named: dead + resolve(*args, **named))
        texts, error = drain(ask(emulator, timeouts=limits(connect=2 * SHORT), retry=ONCE))
    assert (bool(texts), error) == (True, None)


def test_total__holds_while_connecting(route):
    with black_hole() as url:
        reply = ask(url, route, timeouts=limits(total=SHORT))
        with watchdog(reply.cancel):
            _, error = drain(reply)
    assert (deadline_of(error), len(error.attempts)) == ("total", 1)


# --- first_token


@pytest.mark.parametrize(
    ("context", "fault", "arguments"),
    [
        ("plain", "stall", {}),
        ("tls", "stall", {}),
        ("plain", "drip_headers", {"interval": 0.02}),
        ("tls", "drip_headers", {"interval": 0.02}),
        ("plain", "stall", {"after": 0}),
        ("tls", "drip", {"interval": 0.02}),
        ("plain", "drip", {"interval": 0.02, "data": b": ping\n\n"}),
        ("tls", "drip", {"interval": 0.02, "data": b"data:\n\n"}),
    ],
    indirect=["context"],
)
def test_first_token__passes_and_the_route_is_not_tried_again(server, fault, arguments):
    server.api_key.fail(fault, times=None, **arguments)
    with watchdog(server.stop):
        _, error = drain(ask(server, timeouts=limits(first_token=SHORT)))
    assert (deadline_of(error), len(server.api_key.requests), len(error.attempts)) == ("first_token", 1, 1)
    assert server.wait_closed()


def test_first_token__holds_while_the_request_is_sent(context):
    with RawServer(lambda peer: peer.pause(SECONDS), tls=context) as deaf:  # it does not read, so buffers fill up
        _, error = drain(ask(deaf.url, timeouts=limits(first_token=SHORT), system_instruction="x" * 2**24))
    assert (deadline_of(error), len(deaf.peers)) == ("first_token", 1)


def test_first_token__holds_while_the_request_is_sent_bit_by_bit(context):
    def script(peer):
        while peer.socket.recv(65536):
            peer.pause(0.02)

    with RawServer(script, tls=context) as slow:
        reply = ask(slow.url, timeouts=limits(first_token=SHORT), system_instruction="x" * 2**25)
        with watchdog(reply.cancel):
            _, error = drain(reply)
    assert (deadline_of(error), len(slow.peers)) == ("first_token", 1)


@pytest.mark.parametrize("fault", ["stall", "drip_headers"])
def test_first_token__flips_and_the_other_route_has_its_own(emulator, tmp_path, fault):
    emulator.oauth.fail(fault, times=None)
    with Rig(emulator, tmp_path) as rig:
        reply = rig.adapter(timeouts=limits(first_token=0.3)).generate("Why?")
    assert (reply.route, [attempt.route for attempt in reply.attempts]) == ("api_key", ["oauth", "api_key"])
    assert (len(emulator.oauth.requests), len(emulator.api_key.requests)) == (1, 1)
    assert [deadline_of(flip.error) for flip in rig.flips] == ["first_token"]


# --- idle


@pytest.mark.parametrize(
    ("context", "framing", "fault", "arguments"),
    [
        ("plain", "chunked", "stall", {}),
        ("tls", "chunked", "stall", {}),
        ("plain", "length", "stall", {}),
        ("tls", "close", "stall", {}),
        ("plain", "close", "drip", {"interval": 0.02}),
        ("tls", "chunked", "drip", {"interval": 0.02}),
        ("plain", "chunked", "drip", {"interval": 0.02, "data": b": ping\n\n"}),
        ("tls", "close", "drip", {"interval": 0.02, "data": b"data:\n\n"}),
    ],
    indirect=["context"],
)
def test_idle__passes_between_chunks(server, framing, fault, arguments):
    server.oauth.answer(text="one two three four five", framing=framing)
    server.oauth.fail(fault, after=2, **arguments)
    with watchdog(server.stop):
        texts, error = drain(ask(server, "oauth", timeouts=limits(idle=SHORT)))
    assert (texts[0], type(error)) == ("one", StreamInterrupted)
    assert (deadline_of(error), error.partial.text, len(server.oauth.requests)) == ("idle", "".join(texts), 1)
    assert server.wait_closed()


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("framing", FRAMINGS)
def test_idle__starts_again_with_each_chunk(emulator, tmp_path, framing):
    clock, received, words = Clock(), threading.Semaphore(0), [f"{number} " for number in range(8)]

    def pass_time(index):
        if index:
            received.acquire(timeout=SECONDS)
        clock.now += 60.0

    pieces = [event(word) for word in words[:-1]] + [event(words[-1], "STOP")]
    emulator.api_key.answer(body=b"".join(pieces), framing=framing, pace=pass_time)
    came = []
    with Rig(emulator, tmp_path) as rig:
        for text in rig.adapter(oauth_creds_path=None, timeouts=limits(idle=100.0), clock=clock).stream("Why?"):
            came.append(text)
            received.release()
    assert came == words


# --- total


def test_total__ends_a_stream_that_goes_on(server, route):
    script = getattr(server, route)
    script.fail("drip", after=1, interval=0.01, data=event("and on "))
    with watchdog(server.stop):
        texts, error = drain(ask(server, route, timeouts=limits(total=SHORT)))
    assert type(error) is (StreamInterrupted if texts else DeadlineExceeded)
    assert deadline_of(error) == "total"
    assert len(script.requests) <= 1  # none if a busy machine took that long to connect
    assert server.wait_closed()


@pytest.mark.parametrize("fault", ["stall", "drip_headers"])
def test_total__surfaces_before_the_first_chunk(emulator, tmp_path, fault):
    emulator.oauth.fail(fault, times=None)
    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter(project=emulator.project, timeouts=limits(total=SHORT))
        _, error = drain(adapter.stream("Why?"))
        assert not adapter.fallback_active
    assert (deadline_of(error), rig.flips) == ("total", [])
    assert len(emulator.oauth.requests) <= 1
    assert not emulator.api_key.requests


def test_total__does_not_wait_for_an_attempt_after_its_end(emulator):
    emulator.api_key.fail(503, times=None)
    _, error = drain(ask(emulator, timeouts=limits(total=60.0), retry=Retry(backoff_base=NEVER, backoff_cap=NEVER)))
    assert type(error) is ServerError
    assert len(emulator.api_key.requests) == 1


# --- error bodies

ERROR_HEAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 60000\r\n\r\n"


def test_error_body__that_drips_is_given_up(context, monkeypatch):
    monkeypatch.setattr(Exchange.answer, "__defaults__", (2 * SHORT,))
    with RawServer(drip(ERROR_HEAD, b"busy "), tls=context) as server:
        _, error = drain(ask(server.url, timeouts=limits(), retry=Retry(2, backoff_base=0)))
    assert type(error) is ServerError
    assert (error.code, len(error.attempts), len(server.peers)) == (503, 2, 2)
    assert "busy busy" in str(error)


def test_error_body__that_drips_is_limited_by_total(monkeypatch):
    with RawServer(drip(ERROR_HEAD)) as server:
        _, error = drain(ask(server.url, timeouts=limits(total=SHORT)))
    assert (deadline_of(error), len(server.peers)) == ("total", 1)
