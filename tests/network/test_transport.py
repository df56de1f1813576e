"""The transport: headers and cookies, redirects, sessions and connections, error bodies."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from gemini_sync import ProtocolError, ServerError, Timeouts
from gemini_sync.network import sessions as sessions_module
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import Rig
from tests.wire.support import ask, drain, event, watchdog

TEXT = default_text("Why?")
ANSWER = event("one ") + event("two", "STOP")


@pytest.fixture(params=["api_key", "oauth"])
def route(request):
    return request.param


@pytest.fixture
def transport():
    made = Transport()
    yield made
    made.close()


def read(transport, url, call=None):
    with transport.send(call or Call().start(), "POST", url, {}, b"{}") as exchange:
        return b"".join(exchange.chunks())


# --- what is sent


def test_request__has_these_headers_and_no_others(emulator, route):
    assert "".join(ask(emulator, route)) == TEXT
    (request,) = emulator.requests
    credential = {"api_key": "x-goog-api-key", "oauth": "Authorization"}[route]
    sent = {name.lower(): value for name, value in request.headers.items()}
    assert sent.pop("user-agent").startswith("gemini-sync/")
    assert sent.pop("content-length") == str(len(request.body))
    assert sent.pop("host") == emulator.url.partition("//")[2]
    assert sent.pop(credential.lower()).endswith({"api_key": emulator.key, "oauth": "emulator-access-token-1"}[route])
    assert sent == {
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "content-type": "application/json",
    }
    assert request.query == {"alt": "sse"}


def test_netrc__is_not_read(emulator, route, home, monkeypatch):
    netrc = home / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password other\ndefault login somebody password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert "".join(ask(emulator, route)) == TEXT
    assert "Basic" not in str(emulator.requests[0].headers)


@pytest.mark.parametrize("session_factory", [None, requests.Session], ids=["our session", "the user's session"])
def test_cookies__are_not_sent_back(emulator, tmp_path, session_factory, monkeypatch):
    for script in (emulator.oauth, emulator.api_key):
        script.answer(body=ANSWER, wrap=script is emulator.oauth, headers={"Set-Cookie": "a=b; Path=/"})
    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter(session_factory=session_factory)
        for flag in ("a", "b"):
            monkeypatch.setenv("NO_PROXY", flag)  # in another environment the request is prepared again
            adapter.generate("Why?")
        emulator.oauth.fail(403, times=None)
        assert adapter.generate("Why?").route == "api_key"
    assert [request.headers["Cookie"] for request in emulator.requests] == [None] * len(emulator.requests)


# --- what is followed


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirect__is_refused(emulator, route, tmp_path, code):
    with Emulator() as target, Rig(emulator, tmp_path) as rig:
        script = getattr(emulator, route)
        script.fail(code, headers={"Location": target.url.replace("127.0.0.1", "localhost") + "/?k=canary"})
        adapter = rig.adapter(**({"oauth_creds_path": None} if route == "api_key" else {}))
        _, error = drain(adapter.stream("Why?"))
        assert (type(error), error.code) == (ProtocolError, code)
        assert "localhost" in str(error)
        assert "canary" not in str(error)
        assert (adapter.fallback_active, rig.flips, len(script.requests)) == (False, [], 1)
        assert (target.requests, target.connections_total) == ([], 0)


# --- sessions and connections


def test_connections__are_reused_after_a_stream_read_to_its_end(emulator):
    for _ in range(3):
        assert "".join(ask(emulator)) == TEXT
    assert emulator.connections_total == 1


def test_connections__are_not_reused_after_a_stream_that_was_closed_early(emulator):
    reply = ask(emulator)
    next(reply)
    reply.close()
    assert "".join(ask(emulator)) == TEXT
    assert emulator.connections_total == 2


@pytest.mark.parametrize("body", [None, b"", b"x" * 60_000])
def test_connections__are_reused_after_an_error(emulator, body):
    emulator.api_key.fail(503, times=2, body=body)
    assert "".join(ask(emulator)) == TEXT
    assert (len(emulator.requests), emulator.connections_total) == (3, 1)


@pytest.mark.parametrize("fault", [{"kind": "endless_error"}, {"kind": 500, "body": b"x" * 2_000_000}])
def test_error_body__is_bounded(emulator, fault):
    emulator.api_key.fail(**fault, times=None)
    _, error = drain(ask(emulator))
    assert (type(error), error.code, len(error.attempts)) == (ServerError, 500, 3)
    assert len(str(error)) < 700
    assert emulator.connections_total == 3


def test_sessions__idle_ones_are_bounded(emulator, transport, monkeypatch):
    monkeypatch.setattr(sessions_module, "_MOST_IDLE", 2)
    emulator.quota.answer(json={})
    url = emulator.url + "/v1internal:retrieveUserQuota"
    headers = {"Authorization": f"Bearer {emulator.issue_token()}"}

    def together(count):
        exchanges = [transport.send(Call().start(), "POST", url, headers, b"{}") for _ in range(count)]
        assert all(exchange.answer().status == 200 for exchange in exchanges)

    together(4)
    together(4)
    assert emulator.connections_total == 4 + 2


def test_sessions__one_thread_at_a_time(emulator, tmp_path):
    made, barrier = [], threading.Barrier(8, timeout=20)

    class Session(requests.Session):
        def __init__(self):
            super().__init__()
            self.users = threading.Lock()
            made.append(self)

        def send(self, *args, **named):
            assert self.users.acquire(blocking=False), "two threads on one session"
            barrier.wait()
            try:
                return super().send(*args, **named)
            finally:
                self.users.release()

    with Rig(emulator, tmp_path) as rig, ThreadPoolExecutor(8) as pool:
        adapter = rig.adapter(oauth_creds_path=None, session_factory=Session)
        for _ in range(3):
            texts = list(pool.map(lambda n: adapter.generate(f"Prompt {n}").text, range(8)))
            assert texts == [default_text(f"Prompt {n}") for n in range(8)]
        assert len(made) == 8
        assert emulator.connections_total == 8


def test_session_factory__its_sessions_are_used_keep_deadlines_and_are_closed(emulator, tmp_path):
    made, closed = [], []

    class Session(requests.Session):
        def __init__(self):
            super().__init__()
            self.headers["X-Team"] = "blue"
            made.append(self)

        def close(self):
            closed.append(self)
            super().close()

    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter(oauth_creds_path=None, session_factory=Session)
        assert adapter.generate("Why?").text == TEXT
        assert adapter.generate("Why?").text == TEXT
        assert (len(made), closed) == (1, [])
        emulator.api_key.fail("drip_headers", interval=0.02)  # only a connection of ours notices
        with watchdog(emulator.stop):
            _, error = drain(adapter.stream("Why?", timeouts=Timeouts(first_token=0.1)))
        assert error.deadline == "first_token"
        assert closed == made
        assert adapter.generate("Why?").text == TEXT
    assert closed == made
    assert [request.headers["X-Team"] for request in emulator.requests] == ["blue"] * 4


def test_session_factory__its_own_kind_of_connection_is_kept(emulator, tmp_path):
    class Pool(urllib3.HTTPConnectionPool):
        used = 0

        def urlopen(self, *args, **named):
            Pool.used += 1
            return super().urlopen(*args, **named)

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args, **named):
            super().init_poolmanager(*args, **named)
            self.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": urllib3.HTTPSConnectionPool}

    def session():
        made = requests.Session()
        made.mount("http://", Adapter())
        return made

    with Rig(emulator, tmp_path) as rig:
        assert rig.adapter(oauth_creds_path=None, session_factory=session).generate("Why?").text == TEXT
    assert Pool.used == 1


def test_close__is_idempotent_and_what_comes_after_works(emulator, transport):
    url = emulator.url + "/nowhere"
    assert read(transport, url)
    transport.close()
    transport.close()
    assert emulator.wait_closed()
    assert read(transport, url)
    exchange = transport.send(Call().start(), "POST", url, {}, b"{}")
    transport.close()  # a session in use is closed by its call
    assert b"".join(exchange.chunks())
    exchange.close()
    exchange.close()
    assert emulator.wait_closed()
    assert emulator.connections_total == 2
