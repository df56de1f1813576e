"""The emulator's sockets, threads and memory: recording, scripting order, hooks, stopping, TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import sys
import threading
import urllib.parse

import pytest
import trustme

from gemini_sync.testing.emulator import Emulator

STREAM = "/v1beta/models/m:streamGenerateContent?alt=sse"
BODY = json.dumps({"contents": [{"parts": [{"text": "Why?"}]}]}).encode()
TIMEOUT = 10


def connect(emulator):
    return http.client.HTTPConnection(urllib.parse.urlsplit(emulator.url).netloc, timeout=TIMEOUT)


def dial(emulator):
    address = urllib.parse.urlsplit(emulator.url)
    return socket.create_connection((address.hostname, address.port), TIMEOUT)


def start(client, path=STREAM, **headers):
    client.request("POST", path, BODY, {"x-goog-api-key": "emulator-api-key", **headers})


def ask(emulator, path=STREAM):
    with contextlib.closing(connect(emulator)) as client:
        start(client, path)
        answer = client.getresponse()
        return answer.status, answer.read()


def text_of(content):
    chunks = [json.loads(line[5:]) for line in content.splitlines() if line]
    return "".join(part["text"] for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"])


# --- recording and scripting


def test_recorded__what_came(emulator):
    with contextlib.closing(connect(emulator)) as client:
        for mark in ("first", "second"):
            start(client, STREAM + "&x=", **{"X-Mark": mark})
            client.getresponse().read()
    first, second = emulator.api_key.requests
    assert emulator.requests == [first, second]
    assert (first.method, first.path, first.query) == ("POST", STREAM.partition("?")[0], {"alt": "sse", "x": ""})
    assert (first.headers["x-mark"], second.headers["X-MARK"]) == ("first", "second")
    assert first.json == json.loads(first.body)
    assert (first.route, first.model, first.connection, second.connection) == ("api_key", "m", 1, 1)
    assert first.at <= second.at
    assert emulator.wait_closed()
    assert (emulator.connections_open, emulator.connections_total) == (0, 1)
    emulator.clear()
    assert emulator.requests == emulator.api_key.requests == []


def test_script__in_order_then_the_standing_answer(emulator):
    route = emulator.api_key
    route.answer(text="standing")
    route.answer(text="twice", times=2)
    route.fail(503)
    route.answer(text="for n", model="n", times=1)
    assert [text_of(ask(emulator)[1]) for _ in range(2)] == ["twice", "twice"]
    assert ask(emulator)[0] == 503
    assert text_of(ask(emulator)[1]) == "standing"
    assert text_of(ask(emulator, STREAM.replace("m:", "n:"))[1]) == "for n"
    route.fail(500, times=None)
    assert [ask(emulator)[0] for _ in range(2)] == [500, 500]
    route.answer(text="mended")
    assert text_of(ask(emulator)[1]) == "mended"
    route.reset()
    assert text_of(ask(emulator)[1]).startswith("You asked")


def test_script__answers_keep_for_requests_they_suit(emulator):
    emulator.api_key.answer(text="kept", times=1)
    count = STREAM.replace("streamGenerateContent", "countTokens")
    emulator.key = "changed"
    assert ask(emulator)[0] == 400
    emulator.key = "emulator-api-key"
    assert json.loads(ask(emulator, count)[1]) == {"totalTokens": 1}
    assert text_of(ask(emulator)[1]) == "kept"
    emulator.api_key.answer(json={"totalTokens": 7}, times=1)
    assert json.loads(ask(emulator, count)[1]) == {"totalTokens": 7}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"text": "a", "body": b"b"}, ValueError),
        ({"framing": "none"}, ValueError),
        ({"times": 0}, ValueError),
        ({"colour": "red"}, TypeError),
    ],
)
def test_answer__wrong_arguments(emulator, arguments, error):
    with pytest.raises(error):
        emulator.api_key.answer(**arguments)
    assert text_of(ask(emulator)[1]).startswith("You asked")


def test_answer__words_suit_no_other_route(emulator):
    with pytest.raises(ValueError, match="quota answers with body"):
        emulator.quota.answer(text="x")


def test_hooks__run_before_the_answer(emulator):
    gate, order = threading.Event(), []
    emulator.api_key.before = lambda: order.append(len(emulator.api_key.requests))
    emulator.api_key.answer(text="x", times=1, before=lambda: order.append(gate.wait(TIMEOUT)))
    with contextlib.closing(connect(emulator)) as client:
        start(client)
        assert emulator.api_key.wait_for(1)
        gate.set()
        assert client.getresponse().read()
    assert order == [1, True]
    assert not emulator.api_key.wait_for(2, timeout=0)


def test_hook__its_error_is_reported(emulator, monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", lambda found: reported.append(found.exc_value))

    def hook():
        raise TimeoutError("mine")

    emulator.api_key.before = hook
    with contextlib.closing(connect(emulator)) as client:
        start(client)
        with pytest.raises(http.client.RemoteDisconnected):
            client.getresponse()
    emulator.stop()
    assert [str(error.__cause__) for error in reported] == ["mine"]


def test_pace__gates_each_event(emulator):
    turns, indexes = threading.Semaphore(0), []

    def pace(index):
        indexes.append(index)
        assert turns.acquire(timeout=TIMEOUT)

    emulator.api_key.answer(body=b"data: 1\r\n\r\ndata: 2\r\n\r\ndata: 3\n\n: end", pace=pace)
    with contextlib.closing(connect(emulator)) as client:
        start(client)
        answer = client.getresponse()
        for index, event in enumerate([b"data: 1\r\n\r\n", b"data: 2\r\n\r\n", b"data: 3\n\n", b": end"]):
            turns.release()
            assert answer.read1(65536) == event
            assert len(indexes) in (index + 1, index + 2)  # never further than the next turn
        assert answer.read() == b""
    assert indexes == [0, 1, 2, 3]


def test_pace__seconds(emulator):
    emulator.api_key.answer(text="one two three", pace=0.001)
    assert text_of(ask(emulator)[1]) == "one two three"


# --- sockets


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
    request = b"POST %b HTTP/1.1\r\nx-goog-api-key: emulator-api-key\r\nContent-Length: %d\r\n%b\r\n%b"
    path = STREAM.replace("streamGenerateContent", "countTokens").encode()
    first = request % (path, len(BODY), b"", BODY)
    last = request % (path, len(BODY), b"Connection: close\r\n", BODY)
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
    threads = [threading.Thread(target=lambda: answers.append(ask(emulator)[0])) for _ in range(50)]
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
    assert ask(emulator.start())[0] == 200


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
    request = b"POST %b HTTP/1.1\r\nx-goog-api-key: emulator-api-key\r\nContent-Length: %d\r\n\r\n%b"
    with trusting(authority).wrap_socket(
        dial(secure), server_hostname="127.0.0.1", suppress_ragged_eofs=False
    ) as client:
        client.sendall(request % (STREAM.encode(), len(BODY), BODY))
        received = b""
        told = not proper and sys.version_info >= (3, 10)  # Python 3.9 takes both for an end
        with pytest.raises(ssl.SSLEOFError) if told else contextlib.nullcontext():
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
