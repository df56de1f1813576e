"""The server of the emulator: reading requests, connections, threads, stopping and TLS."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import sys
import threading
import urllib.parse

import pytest
import trustme

from gemini_sync.testing.emulator import Emulator
from tests.testing.support import MODEL, TIMEOUT, ask, connect, dial, raw_request, start, text_of


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"nonsense\r\n\r\n", "request line"),
        (b"GET / HTTP/2\r\n\r\n", "request line"),
        (b"POST /token HTTP/1.1\r\nContent-Length: x\r\n\r\n", "Content-Length"),
        (b"POST /token HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "Content-Length"),
        (b"x" * (2**16 + 1), "too long"),
    ],
)
def test_http__bad_request_closes(emulator, head, message):
    with dial(emulator) as client:
        client.sendall(head)
        with client.makefile("rb") as reader:
            answer = reader.read()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert message.encode() in answer
    assert not emulator.requests


@pytest.mark.parametrize("part", [b"", b"POST /tok", b"POST /token HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"])
def test_http__client_leaves_in_mid_request(emulator, part):
    with dial(emulator) as client:
        client.sendall(part)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert emulator.wait_closed()
    assert not emulator.requests


def test_http__pipelined_and_split_requests(emulator):
    first = raw_request(MODEL + ":countTokens")
    last = raw_request(MODEL + ":countTokens", headers=b"Connection: close\r\n")
    with dial(emulator) as client:
        client.sendall(first + last[:-5])
        assert emulator.api_key.wait_for(1)
        client.sendall(last[-5:])
        with client.makefile("rb") as reader:
            assert reader.read().count(b'"totalTokens": 1') == 2
    assert emulator.connections_total == 1


def test_many_connections_at_once(emulator):
    together = threading.Barrier(50)
    emulator.api_key.before = lambda: together.wait(TIMEOUT)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(emulator).status)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert answers == [200] * 50


def test_start__again_and_on_a_taken_port(emulator):
    with pytest.raises(RuntimeError, match="runs already"):
        emulator.start()
    port = int(emulator.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        Emulator(port=port).start()
    emulator.stop()
    assert ask(emulator.start()).status == 200


def test_stop__leaves_nothing():
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    threads = threading.active_count()
    emulator = Emulator().start()
    emulator.api_key.fail("stall", after=1)
    with contextlib.closing(connect(emulator)) as idle, contextlib.closing(connect(emulator)) as stalled:
        idle.connect()
        start(stalled)
        answer = stalled.getresponse()
        assert answer.read1(10)
        emulator.stop()
        emulator.stop()
        assert emulator.connections_open == 0
        assert threading.active_count() == threads
        with pytest.raises(ConnectionRefusedError):
            dial(emulator)
        answer.close()
    if before:
        assert set(os.listdir("/proc/self/fd")) <= before


def test_stop__from_a_hook(emulator):
    emulator.api_key.before = emulator.stop
    with contextlib.closing(connect(emulator)) as client:
        start(client)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            client.getresponse()
    assert emulator.wait_closed()


# --- TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def secure(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Emulator(ssl_context=context) as running:
        yield running


def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_tls__serves(secure, authority):
    assert secure.url.startswith("https://")
    address = urllib.parse.urlsplit(secure.url)
    client = http.client.HTTPSConnection(address.netloc, timeout=TIMEOUT, context=trusting(authority))
    with contextlib.closing(client):
        start(client)
        assert text_of(client.getresponse().read()).startswith("You asked")


@pytest.mark.parametrize("proper", [True, False])
def test_tls__close_notify_or_not(secure, authority, proper):
    secure.api_key.answer(text="words", framing="close")
    if not proper:
        secure.api_key.fail("cut", after=1)
    with trusting(authority).wrap_socket(
        dial(secure), server_hostname="127.0.0.1", suppress_ragged_eofs=False
    ) as client:
        client.sendall(raw_request())
        received = b""
        detected = not proper and sys.version_info >= (3, 10)  # Python 3.9 raises no error without close_notify
        with pytest.raises(ssl.SSLEOFError) if detected else contextlib.nullcontext():
            while data := client.recv(65536):
                received += data
    assert b"words" in received


def test_tls__handshake_fails(secure):
    with pytest.raises(ssl.SSLCertVerificationError), dial(secure) as raw:
        ssl.create_default_context().wrap_socket(raw, server_hostname="127.0.0.1")
    assert secure.wait_closed()
    assert secure.connections_total == 1


def test_tls__client_gone_before_the_handshake():
    class Broken:
        def wrap_socket(self, sock, **_options):
            sock.close()
            raise OSError("gone")

    with Emulator(ssl_context=Broken()) as emulator:
        with dial(emulator) as client:
            assert client.recv(1) == b""
        assert emulator.wait_closed()
