"""Each deadline holds through every transport, against a peer that drips, so no layer of TLS gets a whole record."""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import threading
import weakref

import pytest

from gemini_sync import DeadlineExceeded, Endpoints, StreamInterrupted, stream_gemini_api_key
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import Emulator
from tests.wire.raw_server import SECONDS, RawServer, forward_proxy
from tests.wire.support import NEVER, ONCE, drain, event, watchdog
from tests.wire.test_deadlines import Clock, deadline_of, drip, limits
from tests.wire.test_socks import socks_proxy

SHORT = 0.2
LARGE = "x" * 16_000  # one record of TLS, which would take minutes to drip


@pytest.fixture
def proxied(request, tls, monkeypatch):
    """Names a proxy in the environment, or none; the test runs through each."""
    with contextlib.ExitStack() as stack:
        if request.param == "socks":
            proxy = stack.enter_context(socks_proxy())
            monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http:", "socks5h:"))
        elif request.param != "direct":
            proxy = stack.enter_context(forward_proxy(tls if request.param == "tls proxy" else None))
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        yield request.param


through_each = pytest.mark.parametrize("proxied", ["direct", "plain proxy", "tls proxy", "socks"], indirect=True)


@contextlib.contextmanager
def dripping(server, slow):
    """The URL of a relay to ``server``. While ``slow`` is set, the client gets single bytes."""

    def script(peer):
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), SECONDS) as origin:
            other = {peer.socket: origin, origin: peer.socket}
            while True:
                for source in select.select(list(other), [], [], SECONDS)[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    size = 1 if source is origin and slow.is_set() else len(data)
                    for start in range(0, len(data), size):
                        other[source].sendall(data[start : start + size])
                        if size == 1:
                            peer.pause(0.02)

    with RawServer(script) as relay:
        yield relay.url.replace("http:", "https:")


@pytest.fixture
def server(tls):
    with Emulator(ssl_context=tls) as running:
        yield running


def ask(server, url, timeouts):
    """A reply of ``server`` by way of ``url``."""
    return stream_gemini_api_key("Why?", server.key, endpoints=Endpoints(gemini=url), retry=ONCE, timeouts=timeouts)


@through_each
def test_connect__includes_a_handshake_that_drips(server, proxied):
    slow = threading.Event()
    slow.set()
    with dripping(server, slow) as url:
        reply = ask(server, url, timeouts=limits(connect=SHORT))
        with watchdog(reply.cancel):
            _, error = drain(reply)
    assert (deadline_of(error), server.requests) == ("connect", [])


@through_each
def test_first_token__holds_against_a_record_that_drips(server, proxied):
    slow = threading.Event()
    server.api_key.answer(text=LARGE, pace=lambda index: slow.set())
    with dripping(server, slow) as url:
        reply = ask(server, url, timeouts=limits(first_token=SHORT))
        with watchdog(reply.cancel):
            _, error = drain(reply)
    assert (deadline_of(error), len(error.attempts)) == ("first_token", 1)


@through_each
def test_idle__holds_against_a_record_that_drips(server, proxied):
    slow = threading.Event()
    pieces = [event("one"), event(LARGE)]
    server.api_key.answer(body=b"".join(pieces), pieces=pieces, pace=lambda index: index and slow.wait(SECONDS))
    with dripping(server, slow) as url:
        reply = ask(server, url, timeouts=limits(idle=SHORT))
        with watchdog(reply.cancel):
            texts = [next(reply)]
            slow.set()
            _, error = drain(reply)
    assert (type(error), deadline_of(error), texts) == (StreamInterrupted, "idle", ["one"])


@through_each
def test_cancel__in_a_handshake_that_drips(server, proxied):
    slow = threading.Event()
    slow.set()
    with dripping(server, slow) as url:
        reply = ask(server, url, timeouts=limits())
        threading.Timer(0.1, reply.cancel).start()
        with watchdog(server.stop):
            _, error = drain(reply)
    assert (error.cancelled, server.requests) == (True, [])


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain proxy", "tls proxy"])
@pytest.mark.parametrize("answer", ["drips", "comes late"])
def test_connect__includes_the_answer_of_a_proxy_and_what_follows(tls, monkeypatch, encrypted, answer):
    clock = Clock()

    def come_late(peer):
        peer.read_request()
        clock.now += 2 * NEVER
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        peer.wait_gone()  # so that the TLS handshake with the server has no answer

    script = come_late if answer == "comes late" else drip(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    with RawServer(script, tls=tls if encrypted else None) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        call = Call(
            limits(connect=NEVER if answer == "comes late" else SHORT),
            **({"clock": clock} if answer == "comes late" else {}),
        ).start()
        with watchdog(call.cancel), pytest.raises(DeadlineExceeded) as caught:
            Transport().send(call, "POST", "https://127.0.0.1:9", {}, b"{}")
    assert (deadline_of(caught.value), len(proxy.peers)) == ("connect", 1)


def test_pooled_connection__in_a_tls_proxy_keeps_the_deadlines_of_its_present_call(server, tls, monkeypatch):
    slow = threading.Event()
    transport = Transport()
    with forward_proxy(tls) as proxy, dripping(server, slow) as url:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        first = Call(limits()).start()
        assert transport.send(first, "GET", url, {}).answer().status == 404
        gone = weakref.ref(first)
        del first
        gc.collect()
        assert gone() is None  # the idle connection does not keep it
        slow.set()
        second = Call(limits(first_token=SHORT)).start()
        with watchdog(second.cancel), pytest.raises(DeadlineExceeded) as caught:
            transport.send(second, "GET", url, {})
        assert (deadline_of(caught.value), len(proxy.requests)) == ("first_token", 1)
    transport.close()
