"""Proxies as users of requests set them: plain and TLS proxies, plain and TLS servers, settings that change."""

from __future__ import annotations

import ssl
import threading

import pytest
import requests
import trustme

from gemini_sync import DeadlineExceeded, Timeouts, TransportError
from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Rig
from tests.wire.raw_server import SECONDS, RawServer, forward_proxy
from tests.wire.support import NEVER, ONCE, PATIENT, ask, chunk, drain, event, watchdog

TEXT = default_text("Why?")


@pytest.fixture(params=["plain proxy", "tls proxy"])
def proxy(request, tls, monkeypatch):
    """A running proxy that the environment names for both schemes."""
    with forward_proxy(tls if request.param == "tls proxy" else None) as running:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, running.url)
        yield running


def first_words(proxy):
    return [request.split(b" ", 1)[0] for request in proxy.requests]


def test_proxy__serves_both_routes(server, route, proxy):
    assert "".join(ask(server, route)) == TEXT
    encrypted = server.url.startswith("https:")
    assert first_words(proxy) == [b"CONNECT" if encrypted else b"POST"]
    # If the server speaks TLS, the proxy itself receives no credential.
    secret = server.key if route == "api_key" else "emulator-access-token"
    assert (secret.encode() in proxy.requests[0]) is not encrypted


def test_proxy__delivers_each_event_before_the_next(server, proxy):
    received, in_time = threading.Semaphore(0), []

    def wait_for_reader(index):
        if index:
            in_time.append(received.acquire(timeout=SECONDS))

    chunks = [chunk("one "), chunk("two "), chunk("three", "STOP")]
    server.api_key.answer(chunks=chunks, pace=wait_for_reader)
    for _ in ask(server):
        received.release()
    assert in_time == [True, True]


def test_proxy__cancel_works_through_it(server, proxy):
    server.api_key.answer(body=event("one") * 2)
    server.api_key.fail("stall", after=1)
    reply = ask(server, **PATIENT)
    assert next(reply) == "one"
    threading.Thread(target=reply.cancel).start()
    _, error = drain(reply)
    assert error.cancelled


def test_proxy__deadlines_hold_through_it(server, proxy):
    server.api_key.fail("drip_headers", interval=0.02)
    with watchdog(server.stop):
        _, error = drain(ask(server, timeouts=Timeouts(connect=NEVER, first_token=0.1)))
    assert (type(error), error.deadline, len(error.attempts)) == (DeadlineExceeded, "first_token", 1)


def test_proxy__changed_between_calls(server, monkeypatch):
    def connection():
        assert "".join(ask(server)) == TEXT
        return server.api_key.requests[-1].connection

    with forward_proxy() as proxy:
        direct = connection()
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        proxied = connection()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert connection() == direct
        monkeypatch.delenv("NO_PROXY")
        assert connection() == proxied
        monkeypatch.delenv("HTTP_PROXY")
        monkeypatch.delenv("HTTPS_PROXY")
        assert connection() == direct
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert connection() == proxied
    assert (direct, proxied, len(proxy.requests)) == (1, 2, 1)


def test_proxy__of_a_session_of_the_caller(server, tmp_path):
    def session():
        made = requests.Session()
        made.proxies = {"http": proxy.url, "https": proxy.url}
        return made

    with forward_proxy() as proxy, Rig(server, tmp_path) as rig:
        adapter = rig.adapter(oauth_creds_path=None, session_factory=session)
        assert adapter.generate("Why?").text == TEXT
        # Only a connection of ours notices a header that drips.
        server.api_key.fail("drip_headers", interval=0.02)
        with watchdog(server.stop):
            _, error = drain(adapter.stream("Why?", timeouts=Timeouts(connect=NEVER, first_token=0.1)))
        assert (type(error), error.deadline) == (DeadlineExceeded, "first_token")
        assert len(proxy.requests) >= 1


def test_proxy__that_is_down(server, monkeypatch):
    with RawServer(lambda peer: None) as gone:
        pass
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, gone.url)
    _, error = drain(ask(server, retry=ONCE))
    assert (type(error), server.requests) == (TransportError, [])


def test_proxy__its_certificate_is_verified(tls, monkeypatch):
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(stranger)
    with forward_proxy(stranger) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        _, error = drain(ask("https://127.0.0.1:9"))
    assert (type(error), error.reason, len(error.attempts)) == (TransportError, "CERTIFICATE_VERIFY_FAILED", 1)
