"""TLS: which certificates are trusted, what a failure leads to, and what connections share."""

from __future__ import annotations

import contextlib
import datetime
import ssl
import threading
from threading import Event

import pytest
import requests
import trustme

from gemini_sync import StreamInterrupted, TransportError
from gemini_sync.network import adapters
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Rig
from tests.wire.raw_server import SECONDS, RawServer
from tests.wire.support import ONCE, ask, drain, event

YESTERDAY = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)


def context_of(authority, *names, **terms):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **terms).configure_cert(context)
    return context


def bundle_of(authority, folder, name="ca.pem"):
    authority.cert_pem.write_to_path(folder / name)
    return str(folder / name)


@pytest.mark.parametrize("flaw", ["unknown issuer", "other host", "expired"])
def test_certificate__failure_surfaces_at_once(tmp_path, monkeypatch, flaw):
    trusted = trustme.CA()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle_of(trusted, tmp_path))
    context = {
        "unknown issuer": lambda: context_of(trustme.CA(), "127.0.0.1"),
        "other host": lambda: context_of(trusted, "localhost"),
        "expired": lambda: context_of(trusted, "127.0.0.1", not_after=YESTERDAY),
    }[flaw]()
    with Emulator(ssl_context=context) as server, Rig(server, tmp_path) as rig:
        adapter = rig.adapter(project=server.project)
        _, error = drain(adapter.stream("Why?"))
        assert not adapter.fallback_active
        assert (type(error), error.reason) == (TransportError, "CERTIFICATE_VERIFY_FAILED")
        assert server.url.partition("//")[2] in str(error)
        assert (rig.flips, rig.slept, len(error.attempts)) == ([], [], 1)
        assert (server.connections_total, server.requests) == (1, [])


def test_certificate__failure_is_not_taken_from_another_error(emulator):
    """The caller may call while it handles an error, which has nothing to do with the call."""
    emulator.api_key.fail("reset", times=None)
    for other in (ssl.SSLCertVerificationError(1, "of another server"), TimeoutError("of another call")):
        try:
            raise other
        except OSError:
            _, error = drain(ask(emulator, retry=ONCE))
        assert (type(error), error.reason) == (TransportError, None)


def test_bundle__changed_between_calls(tmp_path, monkeypatch):
    good, other = trustme.CA(), trustme.CA()
    with Emulator(ssl_context=context_of(good, "127.0.0.1")) as server:
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.setenv(name, bundle_of(good, tmp_path, "good.pem"))
            assert list(ask(server))
            monkeypatch.setenv(name, bundle_of(other, tmp_path, "other.pem"))
            assert drain(ask(server))[1].reason == "CERTIFICATE_VERIFY_FAILED"
            monkeypatch.setenv(name, bundle_of(good, tmp_path, "good.pem"))
            assert list(ask(server))
            monkeypatch.delenv(name)
            assert drain(ask(server))[1].reason == "CERTIFICATE_VERIFY_FAILED"


@pytest.mark.parametrize("content", [None, "not a certificate"])
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_bundle__that_cannot_be_loaded(tls, tmp_path, monkeypatch, content, variable):
    """The caller sees the error at once, because another attempt or route would fail in the same way."""
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.setenv(variable, str(bundle))
    with Emulator(ssl_context=tls) as server, Rig(server, tmp_path) as rig:
        adapter = rig.adapter(project=server.project)
        _, error = drain(adapter.stream("Why?"))
        assert (type(error), error.reason) == (TransportError, "CERTIFICATE_VERIFY_FAILED")
        assert str(bundle) in str(error)
        assert "REQUESTS_CA_BUNDLE" in str(error)
        assert [attempt.route for attempt in error.attempts] == ["oauth"]
        assert (rig.flips, rig.slept, adapter.fallback_active, server.requests) == ([], [], False, [])


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_bundle__that_cannot_be_loaded_and_the_advice(tmp_path, monkeypatch, variable):
    good = trustme.CA()
    monkeypatch.setenv(variable, str(tmp_path / "missing.pem"))
    with Emulator(ssl_context=context_of(good, "127.0.0.1")) as server:
        assert "Name another in REQUESTS_CA_BUNDLE." in str(drain(ask(server))[1])
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle_of(good, tmp_path))
        assert list(ask(server))


def test_bundle__of_a_session_of_the_caller(tmp_path):
    authority = trustme.CA()
    bundle = bundle_of(authority, tmp_path)

    def session():
        made = requests.Session()
        made.verify = bundle
        return made

    with Emulator(ssl_context=context_of(authority, "127.0.0.1")) as server, Rig(server, tmp_path) as rig:
        assert rig.adapter(session_factory=session).generate("Why?").route == "oauth"


def test_context__is_one_for_all_sessions_and_verifies(tls):
    adapters._tls_context.cache_clear()
    with Emulator(ssl_context=tls) as server:
        server.api_key.answer(body=event("one") + event("two", "STOP"))
        replies = [ask(server) for _ in range(5)]
        assert [next(reply) for reply in replies] == ["one"] * 5
        assert [list(reply) for reply in replies] == [["two"]] * 5
        assert server.connections_total == 5
    made = adapters._tls_context.cache_info()
    assert (made.misses, made.currsize) == (1, 1)


def test_handshake__that_breaks_is_tried_again(tls):
    def script(peer):
        if len(server.peers) == 1:
            peer.socket.recv(65536)
            peer.reset()
        else:
            peer.handshake(tls)
            peer.read_request()
            body = event("here", "STOP")
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body)

    with RawServer(script) as server:
        reply = ask(server.url.replace("http:", "https:"))
        assert list(reply) == ["here"]
    assert [type(attempt.error) for attempt in reply.attempts] == [TransportError, type(None)]


def test_handshake__with_a_server_that_speaks_no_tls(tls):
    with RawServer(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as plain:
        _, error = drain(ask(plain.url.replace("http:", "https:"), retry=ONCE))
    assert (type(error), error.reason) == (TransportError, None)


@pytest.mark.parametrize("fault", ["cut", "reset"])
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_end__without_close_notify_is_an_interruption(tls, framing, fault):
    with Emulator(ssl_context=tls) as server:
        server.api_key.answer(text="one two three four five", framing=framing)
        server.api_key.fail(fault, after=2)
        texts, error = drain(ask(server))
    assert (texts, type(error)) == (["one", " two three"], StreamInterrupted)


@pytest.mark.parametrize("own_session", [True, False], ids=["our session", "session of the caller"])
@pytest.mark.parametrize("ending", ["cancel()", "Ctrl-C"])
def test_handshake__that_the_caller_ends_leaves_no_connection_open(monkeypatch, ending, own_session):
    call, transport, gone, kept = Call().start(), Transport(None if own_session else requests.Session), Event(), []
    shake_hands = ssl.SSLSocket.do_handshake

    def handshake(sock, *args):
        kept.append(sock)
        if ending == "Ctrl-C":
            raise KeyboardInterrupt
        call.cancel()
        shake_hands(sock, *args)

    def script(peer):
        peer.wait_gone()
        gone.set()

    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", handshake)
    with RawServer(script) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(KeyboardInterrupt if ending == "Ctrl-C" else StreamInterrupted):
            transport.send(call, "POST", url, {}, b"{}")
        assert gone.wait(SECONDS)
        assert call.socket is None
    kept[0].close()


@pytest.mark.parametrize("answered", [0, 1])
def test_request__that_fails_on_a_new_connection_is_sent_once(context, answered):
    """The connection is also new if urllib3 has opened it again, because the server had closed it."""
    closed = threading.Event()

    def script(peer):
        request = peer.read_request()
        if len(server.requests) != answered:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        server.requests.append(request)
        peer.socket.close()
        closed.set()

    def fetch():
        return transport.fetch(Call().start(), "GET", server.url, {}, seconds=SECONDS, what="The answer")

    transport = Transport()
    with RawServer(script, tls=context) as server, contextlib.closing(transport):
        for _ in range(answered):
            assert fetch().text == "{}"
            assert closed.wait(SECONDS)
        with pytest.raises(TransportError):
            fetch()
    assert len(server.requests) == answered + 1
