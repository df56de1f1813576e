"""Tests of what sessions say about a request, and of what a response may not do: redirect, or set a cookie."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest
import requests
from requests.hooks import dispatch_hook

from gemini_sync.config import Timeouts
from gemini_sync.errors import ConfigError, ProtocolError
from gemini_sync.network.cancelling import Call
from gemini_sync.network.connection import current
from gemini_sync.network.redirects import refuse_redirect
from gemini_sync.network.sessions import adopt_session, borrowed_session, default_session, prepare_request
from gemini_sync.testing.emulator import Emulator
from gemini_sync.version import VERSION
from tests.wire.raw_server import Peer, RawServer

URL = "https://service.example/v1"


def response(status: int = 200, **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.headers.update(headers)
    return made


def test_prepared__has_no_credentials(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = home / ".netrc"
    netrc.write_text("default login somebody password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    request, settings = prepare_request(default_session(), "POST", URL)
    assert set(request.headers) == {"User-Agent", "Accept", "Accept-Encoding", "Connection", "Content-Length"}
    assert (request.headers["Accept-Encoding"], request.url, request.method) == ("identity", URL, "POST")
    assert settings["verify"] is True


def test_prepared__takes_what_the_session_says() -> None:
    session = requests.Session()
    session.headers["X-Team"], session.verify, session.cert = "blue", "ca.pem", "mine.pem"
    session.proxies["https"] = "http://proxy.example:3128"
    session.cookies.set("c", "1")
    request, settings = prepare_request(session, "POST", URL)
    assert (request.headers["X-Team"], request.headers["Cookie"]) == ("blue", "c=1")
    assert (settings["verify"], settings["cert"]) == ("ca.pem", "mine.pem")
    assert settings["proxies"]["https"] == "http://proxy.example:3128"


OURS = f"gemini-sync/{VERSION}"


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("User-Agent", "my-app/1", f"my-app/1 {OURS}"),
        ("user-agent", b"my-app/1", f"my-app/1 {OURS}"),
        ("User-Agent", requests.utils.default_user_agent(), OURS),
        ("User-Agent", None, OURS),
        ("Accept", "text/event-stream", "text/event-stream"),
        ("ACCEPT", "*/*", "*/*"),
        ("Connection", "close", "close"),
        ("Accept-Encoding", "gzip, br", "identity"),
    ],
)
def test_prepared__headers_of_the_session(name: str, value: Any, sent: str) -> None:
    """What its owner has set wins, but not what requests has put there, nor a compression."""
    session = requests.Session()
    session.headers[name] = value
    request, _ = prepare_request(session, "POST", URL)
    assert request.headers[name] == sent
    defaults, _ = prepare_request(requests.Session(), "POST", URL)
    assert {**request.headers, **defaults.headers} == defaults.headers


@pytest.mark.parametrize("headers", [{}, {"user-agent": "my-app/1"}, None])
def test_prepared__headers_of_a_session_that_are_a_plain_dict(headers: Any) -> None:
    session = requests.Session()
    session.headers = headers
    request, _ = prepare_request(session, "POST", URL)
    assert request.headers["User-Agent"] == (f"my-app/1 {OURS}" if headers else OURS)
    assert request.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("url", "proxy", "used"),
    [
        ("http://127.0.0.1:1/", "http://proxy.example:8080", False),
        ("http://localhost/", "proxy.example:8080", False),
        ("http://127.0.0.1:1/", "http://127.0.0.1:8080", True),
        ("http://127.0.0.1:1/", "localhost:8080", True),
        ("https://service.example/", "http://proxy.example:8080", True),
        ("https://127.0.0.1/", "http://proxy.example:8080", True),
    ],
)
def test_prepared__proxy_that_is_used(url: str, proxy: str, used: bool) -> None:
    """A request in the clear stays on this machine."""
    session = requests.Session()
    session.proxies.update({"http": proxy, "https": proxy})
    _, settings = prepare_request(session, "POST", url)
    assert bool(settings["proxies"]) is used


def test_prepared__proxy_without_a_port_number() -> None:
    session = requests.Session()
    session.proxies["https"] = "http://canary@proxy.example:0"
    with pytest.raises(ConfigError, match=r"The proxy for service\.example is not a URL with a host") as caught:
        prepare_request(session, "POST", URL)
    assert "canary" not in str(caught.value)


def test_prepared__hooks_of_the_session_see_where_a_redirect_goes_and_requests_does_not() -> None:
    session, seen = requests.Session(), []
    session.hooks["response"].append(lambda answer, **_: seen.append(answer.headers.get("Location")))
    request, _ = prepare_request(session, "POST", URL)
    moved = dispatch_hook("response", request.hooks, response(307, Location="https://evil.example/x"))
    assert seen == ["https://evil.example/x"]
    assert not moved.is_redirect
    with pytest.raises(ProtocolError, match=r"answered 307, a redirect to evil\.example; it was not followed"):
        refuse_redirect(moved.status_code, moved.headers)


@pytest.mark.parametrize(
    ("status", "refused"), [(200, False), (299, False), (300, True), (304, True), (399, True), (400, False)]
)
def test_refuse_redirect__of_these_statuses(status: int, refused: bool) -> None:
    error: Optional[ProtocolError] = None
    try:
        refuse_redirect(status, {})
    except ProtocolError as exc:
        error = exc
    assert (error is not None) is refused
    assert error is None or (error.code, "to nowhere" in str(error)) == (status, True)


def test_adopt_session__takes_no_cookies_and_keeps_its_owners() -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\nSet-Cookie: more=1; Path=/\r\nContent-Length: 0\r\n\r\n")

    session = adopt_session(adopt_session(requests.Session()))
    session.cookies.set("own", "1")
    with RawServer(script) as server, session:
        assert session.get(server.url).headers["Set-Cookie"]
        assert session.cookies.get_dict() == {"own": "1"}


def test_borrowed_session__keeps_the_calls_deadlines_for_another_library(emulator: Emulator) -> None:
    call: Any = Call(Timeouts(connect=3, first_token=50, idle=60, total=90)).start()
    with borrowed_session(call, 5.0, "The answer") as session:
        assert current.get() is call
        assert session.get(emulator.url).status_code == 404
        assert (call.deadline_error().deadline, call.deadline_error().seconds) == ("answer", 5.0)
    call.enter_answer()
    assert (call.deadline_error().deadline, call.deadline_error().seconds) == ("first_token", 50)
    assert emulator.wait_closed()
