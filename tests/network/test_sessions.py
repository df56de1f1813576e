"""Sessions of the caller: they work as their owner set them up, before, during and after our requests."""

from __future__ import annotations

import contextlib
import io
import itertools
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from gemini_sync import ConfigError, Endpoints, ProtocolError, Retry, TransportError
from gemini_sync.network.cancelling import Call
from gemini_sync.network.connection import current
from gemini_sync.network.sessions import borrowed_session
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import Rig
from tests.network.transport_kit import Canned, mocked
from tests.wire.raw_server import EVENT_STREAM, Peer, RawServer
from tests.wire.support import event

ANSWER = event("Hello", "STOP")


def test_settings__come_from_the_session_in_use(rig: Rig) -> None:
    """A gateway's token may differ from session to session."""
    seen: list[int] = []
    numbers = itertools.count(1)

    def session() -> requests.Session:
        made, number = requests.Session(), next(numbers)
        made.headers["X-Gateway"] = f"token-{number}"
        made.params = {"n": str(number)}
        made.cookies.set("c", str(number))
        made.hooks["response"].append(lambda response, **_: seen.append(number))
        return made

    adapter = rig.adapter(oauth_creds_path=None, session_factory=session)
    first, second = adapter.stream("a"), adapter.stream("b")
    next(first), next(second)
    sent = [
        (request.headers["X-Gateway"], request.query["n"], request.headers["Cookie"])
        for request in rig.emulator.api_key.requests
    ]
    assert sent == [("token-1", "1", "c=1"), ("token-2", "2", "c=2")]
    assert seen == [1, 2]


def test_settings__may_change_between_calls(rig: Rig) -> None:
    session = requests.Session()
    adapter = rig.adapter(oauth_creds_path=None, session_factory=lambda: session)
    for token in ("old", "new"):
        session.headers["X-Gateway"] = token
        adapter.generate("Hi")
    assert [request.headers["X-Gateway"] for request in rig.emulator.api_key.requests] == ["old", "new"]


class Upload:
    """An upload by the owner, made while it is sent; ``ahead`` is how many pieces were made before the first came."""

    def __init__(self, session: requests.Session) -> None:
        self.ahead, self._made, self._came = -1, 0, threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = threading.Thread(target=self._serve, args=(listener,), daemon=True)
            server.start()
            answer = session.post(f"http://127.0.0.1:{listener.getsockname()[1]}/", data=self._body(), timeout=20)
            assert answer.text == "ok"
            server.join(20)

    def _body(self) -> Iterator[bytes]:
        for _ in range(3):
            self._made += 1
            yield b"x" * 1000
            assert self._came.wait(20)

    def _serve(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += connection.recv(65536)
                if b"xxx" in received and self.ahead < 0:
                    self.ahead = self._made
                    self._came.set()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def test_upload__of_the_owner_is_sent_while_it_is_made(rig: Rig) -> None:
    session = requests.Session()
    rig.adapter(oauth_creds_path=None, session_factory=lambda: session).generate("Hi")
    assert Upload(session).ahead == 1


class MadeUp(Canned):
    """An adapter as people write it for tests: it builds its response by hand."""

    def send(self, request: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        made = requests.Response()
        made.status_code, made.url, made.request = 200, request.url, request
        made.headers["Content-Type"] = "text/event-stream"
        body: Any = self._body()
        if isinstance(body, bytes):
            made._content = body
        else:
            made.raw = body
        return made


class OnlyRead(io.RawIOBase):
    def __init__(self) -> None:
        self._file = io.BytesIO(ANSWER)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


@pytest.mark.parametrize(
    "body", [lambda: io.BytesIO(ANSWER), OnlyRead, lambda: ANSWER], ids=["BytesIO", "raw", "bytes"]
)
def test_adapter__that_makes_its_responses_by_hand(body: Any) -> None:
    assert mocked(session_factory=MadeUp(body).session).generate("Hi").text == "Hello"


def test_adapter__that_gives_no_body() -> None:
    with pytest.raises(ProtocolError, match="before the first chunk"):
        mocked(session_factory=MadeUp(lambda: None).session).generate("Hi")  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("made", [None, "session", requests], ids=repr)
def test_session_factory__that_makes_no_session(rig: Rig, made: Any) -> None:
    adapter = rig.adapter(session_factory=lambda: made)
    with pytest.raises(ConfigError, match=r"session_factory must return a requests\.Session, not"):
        adapter.generate("Hi")
    assert not adapter.fallback_active  # the other route needs one as well


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:canary@",
        "http://",
        "http://user:canary@127.0.0.1:99999",
        "http://:1",
        "http://[::1:3128",
        "http://user:canary@pr\u2100xy:3128",
    ],
)
@pytest.mark.parametrize("whose", ["environment", "session"])
def test_proxy__that_is_no_url(rig: Rig, monkeypatch: pytest.MonkeyPatch, proxy: str, whose: str) -> None:
    """Both routes use this setting. The error names it without its value, and the call does not fall back."""
    changes: dict[str, Any] = {"endpoints": Endpoints(**{**rig.emulator.urls, "code_assist": "https://assist.example"})}
    if whose == "environment":
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    else:
        session = requests.Session()
        session.proxies["https"] = proxy
        changes["session_factory"] = lambda: session
    adapter = rig.adapter(**changes)
    with pytest.raises(ConfigError, match=r"The proxy for assist\.example is not a URL with a host") as caught:
        adapter.generate("Hi")
    assert caught.value.reason == "PROXY_INVALID"
    assert "canary" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
    assert (adapter.fallback_active, rig.flips) == (False, [])


@pytest.mark.parametrize("scheme", ["http", "HTTP"])
def test_proxy__elsewhere_gets_no_request_to_this_machine(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:8080")
    urls = {name: url.replace("http", scheme, 1) for name, url in rig.emulator.urls.items()}
    assert rig.adapter(endpoints=Endpoints(**urls)).generate("Hi").text == default_text("Hi")


def test_proxy__empty_string_means_none(rig: Rig) -> None:
    session = requests.Session()
    session.proxies.update({"http": "", "https": ""})
    assert rig.adapter(session_factory=lambda: session).generate("Hi").text == default_text("Hi")


def test_header__that_turns_bad_between_two_tries(rig: Rig) -> None:
    """For example a token that was read with its newline. The connection is not at fault, so no other is tried."""
    session = requests.Session()
    adapter = rig.adapter(
        oauth_creds_path=None,
        session_factory=lambda: session,
        sleep=lambda seconds: session.headers.update({"X-Gateway": "to\nken"}),
    )
    adapter.generate("Hi")
    rig.emulator.api_key.fail(503)
    with pytest.raises(TransportError, match="InvalidHeader"):
        adapter.generate("Hi")


def test_connection__opened_by_the_owner_and_found_dead_is_opened_again() -> None:
    """Even with a single attempt, because the service did not fail."""
    text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    stream = EVENT_STREAM + b"Connection: close\r\n\r\n" + ANSWER

    def script(peer: Peer) -> None:
        request = peer.read_request()
        server.requests.append(request)
        if request.startswith(b"GET"):
            peer.send(text)
            server.requests.append(peer.read_request())  # and goes away without an answer
        else:
            peer.send(stream)

    session = requests.Session()
    with RawServer(script) as server:
        adapter = mocked(endpoints=Endpoints(gemini=server.url), session_factory=lambda: session, retry=Retry(1))
        assert adapter.generate("Hi").text == "Hello"
        assert session.get(server.url).text == "ok"
        assert adapter.generate("Hi").text == "Hello"
        assert len(server.peers) == 3


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_borrowed_session__gives_back_the_thread_and_the_socket(emulator: Emulator, nested: bool, fails: bool) -> None:
    """What the thread sends afterwards must not go by the deadlines of a call that is over."""
    call, outer = Call().start(), Call().start()
    token = current.set(outer if nested else None)
    with contextlib.suppress(ZeroDivisionError), borrowed_session(call, 20.0, "The answer") as session:
        assert session.get(emulator.url).status_code == 404
        assert (current.get() is call, (call.socket is not None)) == (True, True)
        if fails:
            raise ZeroDivisionError
    assert (current.get() is (outer if nested else None), (call.socket is not None)) == (True, False)
    current.reset(token)
