"""Connections: bodies in any framing and in any pieces, socket timeouts, addresses, and what is sent."""

from __future__ import annotations

import http.client
import random
import socket
import threading

import pytest
import requests
from requests.adapters import HTTPAdapter

from gemini_sync import TransportError
from gemini_sync.config import Timeouts
from gemini_sync.network.cancelling import Call
from gemini_sync.network.receiving import RECEIVE_BYTES, DeadlineResponse, _DeadlineReader
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Rig
from tests.wire.raw_server import EVENT_STREAM, RawServer
from tests.wire.support import ONCE, ask, drain, event

TEXT = default_text("Why?")


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.settimeout(20.0)
    yield ours, theirs
    ours.close()
    theirs.close()


# --- bodies


def response_on(sock):
    response = DeadlineResponse(sock, method="POST")
    response.keep_deadlines(sock, Call(Timeouts(total=20)).start())
    response.begin()
    return response


def read_all(response):
    pieces = []
    while True:
        piece = response.read1(RECEIVE_BYTES)
        if not piece:
            return pieces
        pieces.append(piece)


def chunked(pieces, rng):
    """The body in HTTP chunks, in all forms of RFC 9112: case, leading zeros, extensions, trailers."""
    for piece in pieces:
        size = rng.choice(["%x", "%X", "0%x", "%x;name=value", "%x "]) % len(piece)
        yield size.encode() + b"\r\n" + piece + b"\r\n"
    yield rng.choice([b"0\r\n\r\n", b"000\r\n\r\n", b"0\r\nX-Trailer: x\r\n\r\n", b"0;last\r\n\r\n"])


def cut_up(data, rng):
    """The same bytes in random pieces."""
    while data:
        size = rng.choice([1, 2, 3, 7, 50, 1000, 100_000])
        yield data[:size]
        data = data[size:]


@pytest.mark.parametrize("seed", range(60))
def test_read1__chunked_body_in_any_pieces(pair, seed):
    rng = random.Random(seed)
    sizes = [rng.choice([1, 2, 15, 16, 17, 400, 9000, 300_000]) for _ in range(rng.randrange(1, 30))]
    # A body may look like framing and must not be read as framing.
    pieces = [(b"\r\n5\r\nabcde" * size)[:size] for size in sizes]
    sent = b"".join(chunked(pieces, rng))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    def send():
        for part in cut_up(head + sent, rng):
            pair[1].sendall(part)

    sender = threading.Thread(target=send)
    sender.start()
    response = response_on(pair[0])
    assert b"".join(read_all(response)) == b"".join(pieces)
    assert response.isclosed()
    sender.join()


@pytest.mark.parametrize("cut", range(40))
def test_read1__chunked_body_that_is_cut_off(pair, cut):
    body = b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"
    pair[1].sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body[:cut])
    pair[1].close()
    response, came = response_on(pair[0]), b""
    try:
        while True:
            piece = response.read1(RECEIVE_BYTES)
            came += piece
            if not piece:
                break
    except http.client.IncompleteRead:
        assert cut < len(body)
    else:
        assert cut >= len(body) - 4
    assert b"onetwothree".startswith(came)
    assert len(came) >= sum(cut >= end for end in (6, 14, 24)) * 3


@pytest.mark.parametrize("interim", [(100,), (103,), (102, 103, 103), (100, 103)])
def test_status__interim_answers_are_skipped(pair, interim):
    """RFC 9110 section 15.2."""
    hints = b"".join(b"HTTP/1.1 %d Wait\r\nLink: </x>; rel=preload\r\n\r\n" % status for status in interim)
    pair[1].sendall(hints + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    response = response_on(pair[0])
    assert (response.status, response.getheader("Link"), read_all(response)) == (200, None, [b"ok"])


def test_status__switching_protocols_is_final(pair):
    pair[1].sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert response_on(pair[0]).status == 101


def test_read1__gives_all_chunks_that_have_arrived(pair):
    pieces = [event(f"piece {n}") for n in range(50)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    pair[1].sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert read_all(response_on(pair[0])) == [b"".join(pieces)]


@pytest.mark.parametrize("size", [1, 7, RECEIVE_BYTES - 1])
def test_read1__gives_no_more_than_was_asked_for(pair, size):
    pair[1].sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3\r\none\r\n" * 9 + b"0\r\n\r\n")
    response, came = response_on(pair[0]), []
    while piece := response.read1(size):
        came.append(piece)
    assert b"".join(came) == b"one" * 9
    assert max(map(len, came)) <= size


# --- timeouts


def test_reader__sets_the_time_that_is_left_as_the_timeout(pair):
    now = [0.0]
    call = Call(Timeouts(idle=30.0), clock=lambda: now[0]).start()
    reader = _DeadlineReader(pair[0].makefile("rb", buffering=0), pair[0], call)

    def read_one():
        pair[1].send(b"x")
        assert reader.read(1) == b"x"
        return pair[0].gettimeout()

    assert read_one() is None
    call.enter("first_token", 10.0)
    assert read_one() == 10.0
    now[0] += 4.0
    assert read_one() == 6.0
    call.got_chunk = True
    assert read_one() == 30.0
    now[0] += 30.0
    pair[1].send(b"x")
    with pytest.raises(socket.timeout):
        reader.read(1)
    reader.close()


def test_cancel__by_a_signal_handler_while_the_socket_is_attached():
    call = Call().start()
    with call._changed:  # a signal handler may run in the thread that holds this lock
        call.cancel()
    assert call.cancelled


# --- addresses


def resolve_to(monkeypatch, *addresses):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **named: list(found))


def refused_address():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return gone.getsockname()


def test_addresses__are_tried_in_turn(emulator, monkeypatch):
    good = ("127.0.0.1", int(emulator.url.rpartition(":")[2]))
    resolve_to(monkeypatch, refused_address(), refused_address(), good)
    assert "".join(ask(emulator, retry=ONCE)) == TEXT


def test_addresses__none_answers(monkeypatch):
    resolve_to(monkeypatch, refused_address(), refused_address())
    _, error = drain(ask("http://localhost:9", retry=ONCE))
    assert type(error) is TransportError
    assert "localhost:9 failed: ConnectionRefusedError" in str(error)


def test_addresses__host_has_none(monkeypatch):
    def fail(*args, **named):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    _, error = drain(ask("https://nowhere.invalid", retry=ONCE))
    assert type(error) is TransportError
    assert "nowhere.invalid" in str(error)
    assert "Name or service not known" in str(error)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
def test_addresses__impossible_host_name(host):
    _, error = drain(ask(f"https://{host}", retry=ONCE))
    assert type(error).__name__ in ("TransportError", "ProtocolError")
    assert host in str(error)


def test_addresses__local_one_of_the_callers_adapter(emulator, tmp_path):
    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args, **named):
            super().init_poolmanager(*args, **named, source_address=("127.0.0.2", 0))

    def session():
        made = requests.Session()
        made.mount("http://", Adapter())
        return made

    def script(peer):
        sources.append(peer.socket.getpeername()[0])
        peer.read_request()
        peer.send(EVENT_STREAM + b"\r\n" + event("here", "STOP"))

    sources = []
    with RawServer(script) as server, Rig(emulator, tmp_path) as rig:
        endpoints = type(rig.settings()["endpoints"])(gemini=server.url)
        adapter = rig.adapter(oauth_creds_path=None, endpoints=endpoints, session_factory=session)
        assert adapter.generate("Why?").text == "here"
    assert sources == ["127.0.0.2"]


# --- what is sent


@pytest.mark.parametrize("size", [0, 1, RECEIVE_BYTES, RECEIVE_BYTES + 1, 5_000_000])
def test_body__arrives_whole(emulator, size):
    transport = Transport()
    for _ in range(2):  # on a new connection and on one that was used
        with transport.send(Call().start(), "POST", emulator.url + "/any", {}, b"x" * size) as exchange:
            assert exchange.answer().status == 404
    transport.close()
    assert [len(request.body) for request in emulator.requests] == [size, size]
    assert emulator.connections_total == 1


class SeenCall(Call):
    """A call that keeps the sockets it was given."""

    def __init__(self):
        super().__init__()
        self.sockets = []

    def attach(self, sock):
        self.sockets.append(sock)
        super().attach(sock)


IN_LINE = (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


@pytest.mark.parametrize(
    ("options", "set_ones"),
    [("default", [True, False]), ([IN_LINE], [False, True]), ([], [False, False]), (None, [False, False])],
    ids=["default", "others", "empty", "None"],
)
def test_socket_options__are_those_of_the_adapter(emulator, options, set_ones):
    """By default no small packet waits for another."""

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args, **named):
            super().init_poolmanager(*args, **named, socket_options=options)

    def session():
        made = requests.Session()
        made.mount("http://", Adapter())
        return made

    call, transport = SeenCall().start(), Transport(None if options == "default" else session)
    with transport.send(call, "POST", emulator.url + "/any", {}, b"x") as exchange:
        names = [(socket.IPPROTO_TCP, socket.TCP_NODELAY), IN_LINE[:2]]
        assert [bool(call.sockets[0].getsockopt(*name)) for name in names] == set_ones
        assert exchange.answer().status == 404
    transport.close()
