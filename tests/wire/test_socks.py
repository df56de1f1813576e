"""Every deadline and cancel() hold through SOCKS proxies and other pools that urllib3 or a caller brings."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import threading

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from gemini_sync import DeadlineExceeded, StreamInterrupted, Timeouts, TransportError
from gemini_sync.network.cancelling import Call
from gemini_sync.network.sessions import adopt_session
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Rig
from tests.wire.raw_server import SECONDS, RawServer, black_hole
from tests.wire.support import NEVER, ONCE, PATIENT, ask, drain, event, on_signal, telling, watchdog

TEXT = default_text("Why?")
SHORT = 0.1


def exactly(peer, size):
    data = b""
    while len(data) < size:
        more = peer.socket.recv(size - len(data))
        if not more:
            raise ConnectionError("the client has gone")
        data += more
    return data


def address_in(peer):
    """The destination in a SOCKS5 request: an IPv4 address or a name."""
    kind = exactly(peer, 1)[0]
    host = exactly(peer, exactly(peer, 1)[0]).decode() if kind == 3 else socket.inet_ntoa(exactly(peer, 4))
    return host, struct.unpack(">H", exactly(peer, 2))[0]


@contextlib.contextmanager
def socks_proxy(before_answer=lambda peer: None, status=0):
    """A SOCKS5 proxy without logins (RFC 1928); ``requests`` holds the destinations."""

    def script(peer):
        version, methods = exactly(peer, 2)
        assert (version, 0 in exactly(peer, methods)) == (5, True)
        peer.send(b"\5\0")
        assert exactly(peer, 3) == b"\5\1\0"
        destination = address_in(peer)
        proxy.requests.append(destination)
        before_answer(peer)
        answer = b"\5" + bytes([status]) + b"\0\1\0\0\0\0\0\0"
        if status:
            peer.send(answer)
            return
        with socket.create_connection(destination, SECONDS) as origin:
            peer.send(answer)
            peer.pump(origin)

    with RawServer(script) as proxy:
        yield proxy


def use(monkeypatch, url, scheme="socks5h"):
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, url.replace("http:", f"{scheme}:"))


@pytest.fixture
def proxy(monkeypatch):
    with socks_proxy() as running:
        use(monkeypatch, running.url)
        yield running


def limits(**short):
    return Timeouts(**{"connect": NEVER, "first_token": NEVER, "idle": NEVER, **short})


def deadline_of(error):
    cause = error.__cause__ if isinstance(error, StreamInterrupted) else error
    assert type(cause) is DeadlineExceeded, repr(error)
    return cause.deadline


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_socks__serves_both_routes(server, route, monkeypatch, scheme):
    with socks_proxy() as proxy:
        use(monkeypatch, proxy.url, scheme)
        for _ in range(2):
            assert "".join(ask(server, route)) == TEXT
    assert proxy.requests[0] == ("127.0.0.1", int(server.url.rpartition(":")[2]))
    assert len(getattr(server, route).requests) == 2


@pytest.mark.parametrize("fault", ["stall", "drip_headers"])
def test_socks__first_token(server, proxy, fault):
    server.api_key.fail(fault, times=None, **({"interval": 0.02} if fault == "drip_headers" else {}))
    reply = ask(server, timeouts=limits(first_token=SHORT))
    with watchdog(server.stop):
        _, error = drain(reply)
    assert (deadline_of(error), len(server.api_key.requests)) == ("first_token", 1)


@pytest.mark.parametrize("fault", ["stall", "drip"])
def test_socks__idle(server, proxy, fault):
    server.api_key.answer(text="one two three four")
    server.api_key.fail(fault, after=1, **({"interval": 0.02, "data": b": ping\n\n"} if fault == "drip" else {}))
    with watchdog(server.stop):
        texts, error = drain(ask(server, timeouts=limits(idle=SHORT)))
    assert (texts[:1], deadline_of(error)) == (["one"], "idle")


def test_socks__total(server, proxy):
    server.api_key.fail("drip", after=1, interval=0.01, data=event("and on "))
    with watchdog(server.stop):
        _, error = drain(ask(server, timeouts=limits(total=2 * SHORT)))
    assert deadline_of(error) == "total"


def test_socks__connect_includes_a_proxy_that_drips(monkeypatch, emulator):
    def drip(peer):
        peer.send(b"\5\0\0\3\xff")  # a name of 255 bytes follows
        for _ in range(250):
            peer.send(b"x")
            peer.pause(0.05)

    with socks_proxy(drip) as proxy:
        use(monkeypatch, proxy.url)
        _, error = drain(ask(emulator, timeouts=limits(connect=SHORT), retry=ONCE))
    assert (deadline_of(error), emulator.requests) == ("connect", [])


def test_socks__connect_includes_a_proxy_that_is_not_reached(monkeypatch, emulator):
    with black_hole() as url:
        use(monkeypatch, url)
        _, error = drain(ask(emulator, timeouts=limits(connect=SHORT), retry=ONCE))
    assert deadline_of(error) == "connect"


def test_socks__proxy_refuses(monkeypatch, emulator):
    with socks_proxy(status=5) as proxy:
        use(monkeypatch, proxy.url)
        _, error = drain(ask(emulator, retry=ONCE))
    assert type(error) is TransportError
    assert "Connection refused" in str(error)


@pytest.mark.parametrize("where", ["negotiation", "headers", "body"])
def test_socks__cancel(server, monkeypatch, where):
    got_text = threading.Event()
    reached = threading.Event()
    server.api_key.answer(body=event("one") * 2)
    server.api_key.fail("stall", before=reached.set, **({"after": 1} if where == "body" else {}))

    def silent(peer):
        if where == "negotiation":
            reached.set()
            peer.wait_gone()

    def cancel():
        assert (got_text if where == "body" else reached).wait(SECONDS)
        reply.cancel()

    with socks_proxy(silent) as proxy:
        use(monkeypatch, proxy.url)
        reply = ask(server, **PATIENT)
        thread = threading.Thread(target=cancel)
        thread.start()
        with watchdog(server.stop):
            _, error = drain(telling(reply, got_text))
        thread.join()
    assert error.cancelled


def test_socks__alarm_in_the_negotiation(emulator, monkeypatch):
    own = TimeoutError("mine")

    def give_up():
        raise own

    with on_signal(signal.SIGALRM, give_up) as alarm, socks_proxy(lambda peer: (alarm(), peer.wait_gone())) as proxy:
        use(monkeypatch, proxy.url)
        reply = ask(emulator, **PATIENT)
        with watchdog(reply.cancel), pytest.raises(TimeoutError) as caught:
            list(reply)
    assert caught.value is own


def test_socks__keeps_the_connection_alive(emulator, proxy):
    call, transport = Call().start(), Transport()
    with transport.send(call, "POST", emulator.url + "/any", {}, b"x"):
        assert call.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    transport.close()


# --- pools of an adapter of the caller's


class _Connection(urllib3.connection.HTTPConnection):
    """A connection that makes its socket in a way of its own."""

    def _new_conn(self):
        return socket.create_connection((self.host, self.port), self.timeout)


class _Plain(urllib3.connection.HTTPConnection):
    """A connection that makes it as urllib3 does."""


@pytest.mark.parametrize("connection", [_Connection, _Plain])
def test_pool_of_the_callers__keeps_deadlines(emulator, tmp_path, connection):
    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = connection

    def session():
        made, adapter = requests.Session(), HTTPAdapter()
        adapter.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": urllib3.HTTPSConnectionPool}
        made.mount("http://", adapter)
        return made

    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter(oauth_creds_path=None, session_factory=session)
        assert adapter.generate("Why?").text == TEXT
        emulator.api_key.fail("drip_headers", interval=0.02)
        with watchdog(emulator.stop):
            _, error = drain(adapter.stream("Why?", timeouts=limits(first_token=SHORT)))
    assert deadline_of(error) == "first_token"


def test_pool_of_the_callers__without_connections_of_urllib3_is_left_alone():
    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = object

    adapter = HTTPAdapter()
    adapter.poolmanager.pool_classes_by_scheme = {"http": Pool}
    session = requests.Session()
    session.mount("http://", adapter)
    adopt_session(session)
    assert adapter.poolmanager.pool_classes_by_scheme == {"http": Pool}
