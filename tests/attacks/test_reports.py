"""No error reporter shows a credential, whatever goes wrong: sentry-sdk, rich and traceback with local variables."""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gemini_sync import (
    ConfigError,
    Endpoints,
    GeminiDualAdapter,
    GeminiSyncError,
    OAuthClient,
    RefreshError,
    Retry,
    Timeouts,
    TransportError,
    get_access_token,
    load_code_assist,
    stream_gemini_api_key,
    stream_gemini_oauth,
)
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Rig
from tests.attacks.reporters import CLIENT_SECRET, ID_TOKEN, KEY, chain_of, leaks, reports
from tests.wire.conftest import authority as authority
from tests.wire.raw_server import EVENT_STREAM, Peer, RawServer

ONCE = Retry(max_attempts=1)
FOREIGN = (requests.RequestException, OSError)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Emulator(key=KEY, client_secret=CLIENT_SECRET) as emulator, Rig(emulator, tmp_path) as rig:
        yield rig


def failure(work: Callable[[], Any]) -> BaseException:
    """The error of ``work``, raised while its caller handled another one; without the frames above the package."""
    try:
        raise LookupError("of the caller")
    except LookupError as of_caller:
        of_caller.__traceback__ = None
        try:
            work()
        except BaseException as exc:
            step = exc.__traceback__
            while step is not None and not step.tb_frame.f_globals["__name__"].startswith("gemini_sync"):
                step = step.tb_next
            assert step is not None
            exc.__traceback__ = step
            return exc
    raise AssertionError("nothing was raised")


def check(error: BaseException) -> None:
    """No report of ``error`` or of what it leads to shows a credential, and no request hangs on it."""
    assert leaks(reports(error)) == []
    for each in chain_of(error):
        assert getattr(each, "request", None) is None
        assert getattr(each, "response", None) is None
        if isinstance(each, FOREIGN) and not isinstance(each, GeminiSyncError):
            assert each.__traceback__ is None
        if isinstance(each, TransportError):
            assert len([cause for cause in chain_of(each) if str(cause) != "of the caller"]) <= 2
            frames = traceback.walk_tb(each.__traceback__)
            assert all(frame.f_globals["__name__"].startswith("gemini_sync.") for frame, _ in frames)
    for attempt in getattr(error, "attempts", ()):
        assert attempt.error is None or leaks(reports(attempt.error)) == []


def expire(rig: Rig) -> None:
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
    rig.path.write_text(json.dumps({**json.loads(rig.path.read_text()), "id_token": ID_TOKEN}))


def ask(rig: Rig, route: str, **changes: Any) -> None:
    """A call on one route, so that its error surfaces."""
    off = {"api_key": None} if route == "oauth" else {"oauth_creds_path": None}
    with GeminiDualAdapter(**rig.settings(**{"retry": ONCE, "project": "a-project", **off, **changes})) as adapter:
        adapter.generate("Hi")


def elsewhere(rig: Rig, url: str) -> Endpoints:
    return Endpoints(gemini=url, code_assist=url, token=rig.emulator.urls["token"])


def test_reports__show_local_variables() -> None:
    def leaky() -> None:
        plain = "a plain value"
        raise ValueError(len(plain))

    with pytest.raises(ValueError, match="13") as caught:
        leaky()
    shown = reports(caught.value)
    assert [name for name, text in shown.items() if "a plain value" in text] == ["traceback", "rich", "sentry"]


# -- refreshing


@pytest.mark.parametrize("by", ["adapter", "get_access_token"])
@pytest.mark.parametrize(
    "refusal", ["invalid_grant", "invalid_client", "echo", "503", "reset", "307", "no token", "text"]
)
def test_report__of_a_failed_refresh(rig: Rig, by: str, refusal: str) -> None:
    expire(rig)
    tokens = json.loads(rig.path.read_text())
    echo = f"{tokens['refresh_token']} {CLIENT_SECRET}"
    script: dict[str, Callable[[], None]] = {
        "echo": lambda: rig.emulator.token.fail(400, times=None, error="invalid_grant", description=echo),
        "503": lambda: rig.emulator.token.fail(503, times=None, body=echo.encode()),
        "reset": lambda: rig.emulator.token.fail("reset", times=None),
        "307": lambda: rig.emulator.token.fail(
            307, times=None, headers={"Location": f"https://{echo.split()[0]}.example"}
        ),
        "no token": lambda: rig.emulator.token.answer(json={**tokens, "access_token": "emulator-access-token 1"}),
        "text": lambda: rig.emulator.token.answer(body=echo.encode()),
    }
    script.get(refusal, lambda: rig.emulator.token.fail(400, times=None, error=refusal))()
    settings = {name: rig.settings()[name] for name in ("oauth_client", "endpoints")}
    work = {"adapter": lambda: ask(rig, "oauth", sleep=rig.slept.append)}
    if by == "get_access_token":
        if refusal in ("503", "reset", "no token", "text"):
            pytest.skip("it would really wait between its tries")
        work[by] = lambda: get_access_token(rig.path, **settings)
    error = failure(work[by])
    assert isinstance(error, RefreshError)
    assert rig.emulator.token.requests
    check(error)


def test_report__of_a_refresh_that_google_auth_makes(rig: Rig) -> None:
    credentials = pytest.importorskip("google.oauth2.credentials").Credentials(
        None, refresh_token=rig.emulator.issue_refresh_token(), token_uri=rig.emulator.urls["token"],
        client_id=rig.emulator.client_id, client_secret=CLIENT_SECRET,
    )  # fmt: skip
    rig.emulator.token.fail(400, times=None, error="invalid_grant", description=CLIENT_SECRET)
    check(failure(lambda: ask(rig, "oauth", oauth_creds_path=credentials)))


# -- the network


@pytest.mark.parametrize("route", ["oauth", "api_key"])
def test_report__of_an_unreachable_server(rig: Rig, route: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    error = failure(lambda: ask(rig, route, endpoints=elsewhere(rig, url)))
    assert isinstance(error, TransportError)
    assert isinstance(error.__cause__, requests.ConnectionError)
    check(error)


@pytest.mark.parametrize("route", ["oauth", "api_key"])
@pytest.mark.parametrize("trusted", [True, False])
def test_report__of_a_tls_error(rig: Rig, route: str, trusted: bool, authority: Any) -> None:
    context = None if trusted else authority[0]  # without one, the server speaks no TLS
    with RawServer(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), tls=context) as server:
        url = f"https://127.0.0.1:{server.port}"
        error = failure(lambda: ask(rig, route, endpoints=elsewhere(rig, url)))
    assert isinstance(error, TransportError)
    check(error)


def reset(peer: Peer) -> None:
    peer.socket.recv(10)  # the rest of the request is lost
    peer.reset()


def silence(peer: Peer) -> None:
    peer.read_request()
    peer.wait_gone()


def quote(answer: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        request = peer.read_request()
        sent = [line.partition(b": ")[2] for line in request.split(b"\r\n") if b"x-goog" in line or b"Auth" in line]
        peer.send(answer.replace(b"ECHO", b"".join(sent)))

    return script


SCRIPTS: dict[str, Callable[[Peer], None]] = {
    "reset": reset,
    "silence": silence,
    "nothing": lambda peer: peer.read_request() and None,
    "no HTTP": quote(b"ECHO\r\n\r\n"),
    "a long line": quote(b"HTTP/1.1 200 " + b"ECHO " * 9000 + b"\r\n\r\n"),
    "odd headers": quote(b"HTTP/1.1 500 No\r\nECHO\r\nX: 1\r\n\r\nECHO"),
    "bad length": quote(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999\r\n\r\ndata: ECHO"),
    "bad chunk": quote(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nECHO\r\n"
    ),
    "bad gzip": quote(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\nECHO"),
    "redirect": quote(b"HTTP/1.1 307 Go\r\nLocation: https://ECHO.example/\r\n\r\n"),
    "401": quote(b"HTTP/1.1 401 No\r\nContent-Length: 5\r\n\r\nECHO!"),
    "event": quote(EVENT_STREAM + b'\r\ndata: {"a": "ECHO\r\n\r\n'),
}


@pytest.mark.parametrize("route", ["oauth", "api_key"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_report__of_a_broken_answer(rig: Rig, route: str, script: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    timeouts = Timeouts(first_token=0.2) if script == "silence" else Timeouts()
    with RawServer(SCRIPTS[script]) as server:
        error = failure(lambda: ask(rig, route, endpoints=elsewhere(rig, server.url), timeouts=timeouts))
    assert isinstance(error, GeminiSyncError)
    check(error)
    assert leaks({"log": caplog.text}) == []


@pytest.mark.parametrize("route", ["oauth", "api_key"])
def test_report__of_a_stream_that_was_cut(rig: Rig, route: str) -> None:
    chunk = {"candidates": [{"content": {"parts": [{"text": "one"}]}}]}
    body = b"data: " + json.dumps(chunk if route == "api_key" else {"response": chunk}).encode() + b"\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
    with RawServer(quote(head + body + b"data: ECHO")) as server:
        error = failure(lambda: ask(rig, route, endpoints=elsewhere(rig, server.url)))
    assert type(error.__cause__) is TransportError
    check(error)


@pytest.mark.parametrize("route", ["oauth", "api_key"])
@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 Proxy ECHO\r\n\r\n", b"HTTP/1.1 502 ECHO\r\n\r\n", b"ECHO\r\n\r\n"])
def test_report__of_a_proxy_that_refuses(rig: Rig, route: str, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(peer: Peer) -> None:
        request = peer.read_request()
        peer.send(answer.replace(b"ECHO", request.partition(b"Basic ")[2][:20]))

    with RawServer(script) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:canary@127.0.0.1:{proxy.port}")
        error = failure(lambda: ask(rig, route, endpoints=elsewhere(rig, "https://service.example")))
    assert isinstance(error, (ConfigError, TransportError))
    check(error)


def test_report__of_a_proxy_of_an_unknown_kind(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:canary@127.0.0.1:1")
    error = failure(lambda: ask(rig, "api_key", endpoints=elsewhere(rig, "https://service.example")))
    assert isinstance(error, ConfigError)
    check(error)


# -- answers


@pytest.mark.parametrize("route", ["oauth", "api_key"])
@pytest.mark.parametrize("code", [401, 403])
def test_report__of_a_refusal_that_quotes_the_credential(rig: Rig, route: str, code: int) -> None:
    sent = KEY if route == "api_key" else json.loads(rig.path.read_text())["access_token"]
    rig.emulator.accounts.token_prefix = "ya29."
    getattr(rig.emulator, route).fail(
        code, times=None, message=f"You sent {sent}.", reason=sent, details=[{"@type": sent, "said": [sent]}]
    )
    check(failure(lambda: ask(rig, route)))


def test_report__of_the_questions_for_a_project(rig: Rig) -> None:
    token = rig.emulator.issue_token()
    rig.emulator.load_code_assist.fail(403, times=None, message=token, reason=token)
    check(failure(lambda: load_code_assist(token, endpoints=rig.settings()["endpoints"])))


# -- files and settings


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-9],
        lambda text: f"[{text}]",
        lambda text: text.replace("emulator-access", "emulator access"),
        lambda text: text.replace('"refresh_token": "', '"refresh_token": ["') + "]",
        lambda text: text.replace("{", '{"type": "service_account", ', 1),
        lambda text: '{"installed": ' + text + "}",
    ],
    ids=["torn", "list", "space", "no JSON", "service account", "client file"],
)
def test_report__of_a_broken_credentials_file(rig: Rig, change: Callable[[str], str]) -> None:
    expire(rig)
    rig.path.write_text(change(rig.path.read_text()))
    check(failure(lambda: ask(rig, "oauth")))
    check(failure(lambda: get_access_token(rig.path)))


BAD_KEYS = ("canary key", "'canary", "canary\n.", b"canary", ["canary"], {"key": "canary"}, bytearray(b"canary"))


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_report__of_a_malformed_credential(key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: GeminiDualAdapter(key),
        lambda: GeminiDualAdapter("good", key if isinstance(key, (bytes, list, dict)) else '{"token": "canary"}'),
        lambda: GeminiDualAdapter.from_env(environ={}, api_key=key),
        lambda: stream_gemini_api_key("Hi", key),
        lambda: stream_gemini_oauth("Hi", key, "project"),
        lambda: stream_gemini_oauth("Hi", "canary", ""),
        lambda: load_code_assist(key),
        lambda: OAuthClient("id", key),
        lambda: get_access_token('{"refresh_token": "canary"}'),
    ]
    if isinstance(key, str):
        variables = {"GEMINI_API_KEY": key.strip() + " x", "OTHER": "canary", "GEMINI_OAUTH_CLIENT_SECRET": "canary"}
        calls += [lambda: GeminiDualAdapter.from_env(environ=variables)]
        calls += [lambda: GeminiDualAdapter.from_env(environ={**variables, "GOOGLE_GEMINI_BASE_URL": "ftp://x"})]
    for call in calls:
        error = failure(call)
        assert isinstance(error, ConfigError), call
        check(error)


def test_vars__of_an_adapter_and_an_oauth_client_show_no_credential(rig: Rig) -> None:
    adapter = rig.adapter()
    adapter.generate("Hi")
    client = OAuthClient("id", CLIENT_SECRET)
    shown = (vars(adapter), vars(client), dataclasses.asdict(client), adapter, client, adapter.__reduce__())
    assert leaks({"repr": repr(shown)}) == []
    assert dataclasses.asdict(client) == {"id": "id", "secret": CLIENT_SECRET}


# -- code of the caller's


def test_report__of_a_callback_that_fails(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def buggy(event: object) -> None:
        raise ZeroDivisionError("of the callback")

    token = json.loads(rig.path.read_text())["access_token"]
    rig.emulator.oauth.fail(403, times=None, message=f"You sent {token}.")
    with GeminiDualAdapter(**rig.settings(on_fallback=buggy)) as adapter:
        assert adapter.generate("Hi").route == "api_key"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    shown = reports(record.exc_info[1])
    assert leaks(shown) == []
    assert "buggy" in shown["traceback"]


@pytest.mark.parametrize("kind", [FileNotFoundError, requests.ConnectionError, requests.HTTPError, ValueError])
def test_report__of_a_hook_that_fails_keeps_its_traceback(rig: Rig, kind: type[Exception]) -> None:
    def buggy(response: Any, **_: Any) -> None:
        raise kind("of the hook")

    def session() -> requests.Session:
        made = requests.Session()
        made.hooks["response"].append(buggy)
        return made

    error = failure(lambda: ask(rig, "api_key", session_factory=session))
    shown = reports(error)
    assert leaks(shown) == []
    assert "buggy" in shown["traceback"]
    assert "of the hook" in shown["traceback"]


def test_report__of_an_adapter_of_the_callers_that_raises_its_own_error(rig: Rig) -> None:
    class Wrapping(requests.adapters.HTTPAdapter):
        def send(self, *arguments: Any, **named: Any) -> requests.Response:
            try:
                return super().send(*arguments, **named)
            except requests.ConnectionError:
                raise requests.ConnectionError("of the adapter")  # noqa: B904

    def session() -> requests.Session:
        made = requests.Session()
        made.mount("http://", Wrapping())
        return made

    with RawServer(reset) as server:
        settings = {"session_factory": session, "endpoints": elsewhere(rig, server.url)}
        error = failure(lambda: ask(rig, "api_key", **settings))
    shown = reports(error)
    assert leaks(shown) == []
    assert "of the adapter" in shown["traceback"]
    assert "Wrapping" in shown["sentry"]


def test_report__of_an_interrupt_that_comes_while_a_request_is_sent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Transport, "_prepare", interrupted)
    expire(rig)
    for error in (failure(lambda: ask(rig, "oauth")), failure(lambda: ask(rig, "api_key"))):
        assert type(error) is KeyboardInterrupt
        assert leaks(reports(error)) == []


def test_threads__share_failures_that_show_no_credential(rig: Rig) -> None:
    expire(rig)
    rig.emulator.token.fail(400, times=None, error="invalid_grant", description=CLIENT_SECRET)
    errors: list[BaseException] = []
    with GeminiDualAdapter(**rig.settings(api_key=None)) as adapter:
        threads = [
            threading.Thread(target=lambda: errors.append(failure(lambda: adapter.generate("Hi")))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(errors) == 8
    for error in errors:
        check(error)
