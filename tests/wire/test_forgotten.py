"""A connection that the network has forgotten costs one fresh try and no flip; the kernel notices that it is gone."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import itertools
import json
import socket
import struct
import threading

import pytest
import requests

from gemini_sync import DeadlineExceeded, Endpoints, StreamInterrupted, Timeouts, TransportError
from gemini_sync.network import keepalive
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from tests.adapter_kit import Rig, in_thread
from tests.wire.raw_server import EVENT_STREAM, SECONDS, RawServer, forward_proxy
from tests.wire.support import PATIENT, ask, chunk, drain, event, telling, watchdog

linux = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT") or not hasattr(socket, "TCP_KEEPIDLE"),
    reason="this system has no TCP_USER_TIMEOUT, and no socket filter that loses packets",
)
_SO_ATTACH_FILTER = 26
_RETURN_0 = struct.pack("HBBI", 6, 0, 0, 0)  # the filter program of one instruction: drop the packet
ANSWER = EVENT_STREAM + b"Transfer-Encoding: chunked\r\n\r\n"


def forget(sock):
    """From now on the network loses each packet to ``sock``, so that nothing is acknowledged or refused."""
    program = ctypes.create_string_buffer(_RETURN_0)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


@pytest.fixture
def in_a_second(monkeypatch):
    """The kernel gives up after a second or two instead of after a minute."""
    monkeypatch.setattr(keepalive, "PROBE_AFTER_SECONDS", 1)
    monkeypatch.setattr(keepalive, "PROBE_EVERY_SECONDS", 1)
    monkeypatch.setattr(keepalive, "PROBES", 1)
    monkeypatch.setattr(keepalive, "UNACKNOWLEDGED_MILLISECONDS", 300)


PROJECT = json.dumps({"cloudaicompanionProject": "p", "currentTier": {"id": "free-tier"}}).encode()


def wrapped(text, finish):
    """An answer of Code Assist, as one HTTP chunk."""
    data = b"data: " + json.dumps({"response": chunk(text, finish)}).encode() + b"\r\n\r\n"
    return ANSWER + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


def code_assist(peers, forget_when):
    """A script: the first connection answers one stream and is then forgotten, before or after another request."""

    def script(peer):
        peers.append(peer)
        is_first, streams = len(peers) == 1, 0
        while request := peer.read_request():
            if b":loadCodeAssist" in request:
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PROJECT), PROJECT))
                continue
            streams += 1
            if is_first and streams == 2:
                break
            peer.send(wrapped("one", "STOP"))
            if is_first and forget_when == "idle":
                break
        if request:
            forget(peer.socket)
            peer.pause(SECONDS)

    return script


def reused_connection__buys_a_fresh_try_and_no_flip(context, folder, emulator, forget_when):
    peers = []
    with RawServer(code_assist(peers, forget_when), tls=context) as server, Rig(emulator, folder) as rig:
        endpoints = Endpoints(**{**emulator.urls, "code_assist": server.url})
        adapter = rig.adapter(endpoints=endpoints, timeouts=PATIENT["timeouts"])
        with watchdog(adapter.close):
            replies = [adapter.generate("Why?") for _ in range(2)]
        assert [reply.text for reply in replies] == ["one", "one"]
        assert [[attempt.route for attempt in reply.attempts] for reply in replies] == [["oauth"], ["oauth"]]
        assert (len(peers), rig.flips, rig.slept) == (2, [], [])


@linux
def test_reused_connection__first_token_that_passed_still_flips(tmp_path, emulator):
    peers = []
    with RawServer(code_assist(peers, "idle")) as server, Rig(emulator, tmp_path) as rig:
        endpoints = Endpoints(**{**emulator.urls, "code_assist": server.url})
        adapter = rig.adapter(endpoints=endpoints)
        assert adapter.generate("Why?").route == "oauth"
        assert adapter.generate("Why?", timeouts=Timeouts(first_token=0.3)).route == "api_key"
    assert [(type(flip.error), flip.error.deadline) for flip in rig.flips] == [(DeadlineExceeded, "first_token")]


def new_connection__that_is_forgotten_is_tried_again():
    """No deadline passed, and urllib3 calls it a timeout of a read all the same."""

    def script(peer):
        request = peer.read_request()
        if len(raw.peers) == 1:
            forget(peer.socket)
            peer.pause(SECONDS)
        elif request:
            peer.send(ANSWER + b"%x\r\n%s\r\n0\r\n\r\n" % (len(event("one", "STOP")), event("one", "STOP")))

    with RawServer(script) as raw:
        reply = ask(raw.url, timeouts=PATIENT["timeouts"])
        with watchdog(reply.cancel):
            assert list(reply) == ["one"]
    assert [(type(attempt.error), attempt.outcome) for attempt in reply.attempts] == [
        (TransportError, "failed"),
        (type(None), "answered"),
    ]


def body__of_a_connection_that_is_forgotten_is_interrupted():
    def script(peer):
        peer.read_request()
        peer.send(EVENT_STREAM + b"\r\n" + event("one"))
        received.wait(SECONDS)
        forget(peer.socket)
        peer.pause(SECONDS)

    received = threading.Event()
    with RawServer(script) as raw:
        reply = ask(raw.url, timeouts=PATIENT["timeouts"])
        with watchdog(reply.cancel):
            texts, error = drain(telling(reply, received))
    assert (texts, type(error), type(error.__cause__)) == (["one"], StreamInterrupted, TransportError)
    assert error.__cause__.__cause__.errno == errno.ETIMEDOUT


@linux
def test_connection__that_is_forgotten_at_any_moment(in_a_second, tls, tmp_path, emulator):
    """Each moment has a thread of its own, because the kernel needs up to two seconds to notice."""
    moments = [new_connection__that_is_forgotten_is_tried_again, body__of_a_connection_that_is_forgotten_is_interrupted]
    for number, (context, when) in enumerate(itertools.product([None, tls], ["idle", "waiting"])):
        arguments = (context, tmp_path / str(number), emulator, when)
        moments.append(functools.partial(reused_connection__buys_a_fresh_try_and_no_flip, *arguments))
    for result in [in_thread(moment) for moment in moments]:
        result()


# --- the options


def options_of(sock):
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    alive = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return [alive, *(sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names)]


@linux
@pytest.mark.parametrize("proxied", ["direct", "proxy"])
@pytest.mark.parametrize("factory", [None, requests.Session], ids=["ours", "of the caller"])
def test_options__are_set_on_every_connection(server, monkeypatch, factory, proxied):
    call, transport = Call().start(), Transport(factory)
    with contextlib.ExitStack() as stack:
        if proxied == "proxy":
            proxy = stack.enter_context(forward_proxy())
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        exchange = stack.enter_context(transport.send(call, "POST", server.url + "/any", {}, b"x"))
        assert options_of(call.socket) == [1, 30, 10, 3, 30_000]
        exchange.close()
    transport.close()


@linux
def test_options__of_a_session_of_the_caller_win(emulator):
    own = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000)

    def session():
        made = requests.Session()
        made.mount("http://", adapter)
        return made

    adapter = requests.adapters.HTTPAdapter()
    adapter.poolmanager.connection_pool_kw["socket_options"] = [own]
    call, transport = Call().start(), Transport(session)
    with transport.send(call, "POST", emulator.url + "/any", {}, b"x"):
        for change in (lambda sock: None, keepalive.expect_silence, keepalive.expect_acknowledgement):
            change(call.socket)
            assert options_of(call.socket)[-1] == 120_000
    transport.close()


@linux
def test_options__lost_probes_are_forgiven_once_the_request_has_arrived(monkeypatch):
    """Linux holds the probes to the limit of bytes that are not acknowledged, so one lost probe would be the end."""
    silent, seen = threading.Event(), []
    monkeypatch.setattr(keepalive, "SILENCE_SECONDS", 0.01)
    expect_silence = keepalive.expect_silence

    def told(sock):
        before = options_of(sock)[-1]
        expect_silence(sock)
        seen.append((before, options_of(sock)[-1]))
        silent.set()

    monkeypatch.setattr(keepalive, "expect_silence", told)

    def script(peer):
        while peer.read_request():
            silent.wait(SECONDS)
            silent.clear()
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")

    call, transport = Call().start(), Transport()
    with RawServer(script) as raw:
        for _ in range(2):
            answer = transport.fetch(call, "POST", raw.url, {}, b"x", seconds=SECONDS, what="It")
            assert answer.text == "OK"
        transport.close()
    assert (seen, len(raw.peers)) == ([(30_000, 60_000), (30_000, 60_000)], 1)


def test_options__of_a_system_that_has_none(emulator, monkeypatch):
    for name in ("_IDLE", "_INTERVAL", "_COUNT", "_USER_TIMEOUT"):
        monkeypatch.setattr(keepalive, name, None)
    assert list(ask(emulator))


def test_options__that_the_system_refuses(emulator, monkeypatch):
    for name in ("_IDLE", "_INTERVAL", "_COUNT", "_USER_TIMEOUT"):
        monkeypatch.setattr(keepalive, name, 9999)
    assert list(ask(emulator))
