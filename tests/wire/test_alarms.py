"""A caller's own limit, such as SIGALRM with a handler that raises, comes out of each phase of a call as it is."""

from __future__ import annotations

import builtins
import gc
import os
import signal
import socket
import threading

import google.auth.transport.requests
import google.oauth2.credentials
import pytest
import requests
import urllib3

from gemini_sync.network.cancelling import Call
from tests.adapter_kit import Rig
from tests.wire.raw_server import SECONDS, RawServer, black_hole
from tests.wire.support import PATIENT, ask, drain, event, on_signal, tell_when_entered, telling, watchdog

ERRORS = [TimeoutError("mine"), socket.timeout("timed out"), OSError("mine"), ConnectionResetError(104, "mine")]


class OwnLimit(Exception):
    """An error type of the caller's."""


@pytest.fixture(params=[*ERRORS, requests.Timeout("mine"), OwnLimit("mine")], ids=repr)
def own(request):
    return type(request.param)(*request.param.args)


@pytest.fixture
def alarm(own):
    """A function that sends the signal; its handler raises ``own``."""

    def give_up():
        raise own

    with on_signal(signal.SIGALRM, give_up) as send:
        yield send


@pytest.fixture
def rig(emulator, tmp_path):
    with Rig(emulator, tmp_path) as running:
        yield running


def assert_comes_out(own, use, hang_up):
    """``use()`` raises ``own`` itself, and not as the consequence of an error of a library."""
    with watchdog(hang_up), pytest.raises(type(own)) as caught:
        use()
    assert caught.value is own
    assert own.__cause__ is None
    assert not isinstance(own.__context__, (OSError, urllib3.exceptions.HTTPError))


def alarm_when(entered, alarm):
    """Send the signal from another thread, once ``entered`` is set."""

    def run():
        assert entered.wait(SECONDS)
        alarm()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()


def assert_unchanged(rig, adapter):
    """Nothing has flipped, and the next call works on OAuth."""
    assert (adapter.fallback_active, rig.flips, rig.emulator.api_key.requests) == (False, [], [])
    for script in (rig.emulator.oauth, rig.emulator.token):
        script.reset()
    assert adapter.generate("Why?").route == "oauth"


# --- phases of one request


def test_alarm__while_connecting(own, alarm, monkeypatch):
    entered = tell_when_entered(monkeypatch, socket.socket, "connect")
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **named: 2 * resolve(*args, **named))
    alarm_when(entered, alarm)
    with black_hole() as url:
        reply = ask(url, **PATIENT)
        assert_comes_out(own, lambda: list(reply), reply.cancel)


# After an error that is not its own, ssl leaves its socket to the garbage collector. The connection is shut down.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_alarm__in_the_tls_handshake(own, alarm, tls):
    def script(peer):
        peer.socket.recv(1)
        alarm()
        peer.wait_gone()

    with RawServer(script) as silent:
        reply = ask(silent.url.replace("http:", "https:"), **PATIENT)
        assert_comes_out(own, lambda: list(reply), reply.cancel)
    own.__traceback__ = None
    gc.collect()


def test_alarm__while_the_request_is_sent(own, alarm, context):
    def script(peer):
        peer.socket.recv(1)
        alarm()
        peer.pause(SECONDS)

    with RawServer(script, tls=context) as deaf:
        reply = ask(deaf.url, system_instruction="x" * 2**24, **PATIENT)
        assert_comes_out(own, lambda: list(reply), reply.cancel)


def test_alarm__while_waiting_for_headers(own, alarm, server, route):
    script = getattr(server, route)
    script.fail("stall", before=alarm)
    reply = ask(server, route, **PATIENT)
    assert_comes_out(own, lambda: list(reply), reply.cancel)
    assert server.wait_closed()
    assert len(script.requests) == 1


def test_alarm__on_a_connection_that_was_used(own, alarm, rig):
    adapter = rig.adapter()
    adapter.generate("Why?")
    rig.emulator.oauth.fail("stall", before=alarm)
    assert_comes_out(own, lambda: adapter.generate("Why?"), adapter.close)
    assert len(rig.emulator.oauth.requests) == 2
    assert_unchanged(rig, adapter)


def test_alarm__in_the_body(own, alarm, server):
    got_text = threading.Event()
    server.api_key.answer(body=event("one") + event("two", "STOP"))
    server.api_key.fail("stall", after=1)
    alarm_when(got_text, alarm)
    with ask(server, **PATIENT) as reply:
        assert_comes_out(own, lambda: list(telling(reply, got_text)), reply.cancel)
    assert reply.text == "one"


def test_alarm__in_the_body_of_an_error(own, alarm):
    def script(peer):
        peer.read_request()
        peer.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nbusy")
        alarm()
        peer.wait_gone()

    with RawServer(script) as server:
        reply = ask(server.url, **PATIENT)
        assert_comes_out(own, lambda: list(reply), reply.cancel)
    assert len(server.peers) == 1


# --- what a call does besides


def test_alarm__in_the_pause_between_tries(own, alarm, rig, monkeypatch):
    rig.emulator.oauth.fail(503)
    adapter = rig.adapter(sleep=None, **PATIENT)
    alarm_when(tell_when_entered(monkeypatch, Call, "sleep"), alarm)
    assert_comes_out(own, lambda: adapter.generate("Why?"), adapter.close)
    assert_unchanged(rig, adapter)


def test_alarm__while_the_token_is_refreshed(own, alarm, rig):
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
    adapter = rig.adapter()
    rig.emulator.token.fail("stall", before=alarm)
    assert_comes_out(own, lambda: adapter.generate("Why?"), adapter.close)
    assert_unchanged(rig, adapter)


def test_alarm__while_google_auth_refreshes(own, alarm, rig):
    emulator = rig.emulator
    credentials = google.oauth2.credentials.Credentials(
        None,
        refresh_token=emulator.issue_refresh_token(),
        token_uri=emulator.urls["token"],
        client_id=emulator.client_id,
        client_secret=emulator.client_secret,
    )
    adapter = rig.adapter(oauth_creds_path=credentials)
    emulator.token.fail("stall", before=alarm)
    assert_comes_out(own, lambda: adapter.generate("Why?"), adapter.close)
    assert_unchanged(rig, adapter)


def test_alarm__in_a_token_source_of_the_callers(own, alarm, rig):
    asked = []

    def token():
        asked.append(1)
        if len(asked) == 1:
            alarm()
        return rig.emulator.issue_token()

    adapter = rig.adapter(oauth_creds_path=token)
    assert_comes_out(own, lambda: adapter.generate("Why?"), adapter.close)
    assert_unchanged(rig, adapter)


def test_alarm__while_another_thread_refreshes(own, alarm, rig, monkeypatch):
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
    adapter, stalled = rig.adapter(), threading.Event()
    rig.emulator.token.fail("stall", before=stalled.set)
    leading = adapter.stream("Why?")
    leader = threading.Thread(target=drain, args=(leading,), daemon=True)
    leader.start()
    assert stalled.wait(SECONDS)
    alarm_when(tell_when_entered(monkeypatch, Call, "wait_for"), alarm)
    assert_comes_out(own, lambda: adapter.generate("Why?"), adapter.close)
    assert leader.is_alive()
    leading.cancel()
    leader.join(SECONDS)
    assert_unchanged(rig, adapter)


def test_alarm__in_the_callback_of_a_fallback(own, alarm, rig):
    rig.emulator.oauth.fail(403, times=None)
    adapter = rig.adapter(on_fallback=lambda event: alarm())
    assert_comes_out(own, lambda: adapter.generate("Why?"), adapter.close)


@pytest.mark.parametrize("name", ["open", "stat"])
def test_alarm__while_the_credentials_file_is_read(own, alarm, rig, monkeypatch, name):
    owner = {"open": builtins, "stat": os}[name]
    original, path = getattr(owner, name), str(rig.path)
    left = [1]

    def slow(file, *args, **named):
        if str(file) == path and left:
            left.pop()
            alarm()
        return original(file, *args, **named)

    adapter = rig.adapter()
    monkeypatch.setattr(owner, name, slow)
    assert_comes_out(own, lambda: adapter.generate("Why?"), adapter.close)
    assert_unchanged(rig, adapter)
