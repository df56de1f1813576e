"""Knows requests: leased sessions, prepared requests, bodies as bytes, foreign errors mapped; knows no Gemini."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import Cookie, DefaultCookiePolicy
from typing import Any, Optional
from urllib.parse import urlsplit

import requests

from gemini_sync.call import Call, cancelled_error
from gemini_sync.config import is_loopback
from gemini_sync.connection import GuardedAdapter, active, guard, reader
from gemini_sync.errors import (
    ApiError,
    ConfigError,
    DeadlineExceeded,
    ProtocolError,
    TransportError,
    api_error,
    find_error,
)
from gemini_sync.foreign import FOREIGN, map_error
from gemini_sync.fork import renew_after_fork
from gemini_sync.scrub import scrub
from gemini_sync.version import VERSION

SessionFactory = Callable[[], requests.Session]

_ERROR_BODY_BYTES = 2**20
_ERROR_BODY_SECONDS = 5.0
_IDLE_SESSIONS = 32
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # which of them, their first bytes tell
_TEMPLATES = 64
# What requests reads of the environment for each request; a template prepared under other values is prepared again.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_ENVIRONMENT = (*_PROXIES, *map(str.upper, _PROXIES), "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_HEADERS = {
    "User-Agent": f"gemini-sync/{VERSION}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # an event must not wait for a compressor's buffer
    "Connection": "keep-alive",
}


class _NoNewCookies(DefaultCookiePolicy):
    """Keeps no cookie that a server sets: what it set for one credential would go along with another."""

    def set_ok(self, cookie: Cookie, request: Any) -> bool:
        return False


def default_session() -> requests.Session:
    """A session with guarded connections, one TLS context for all, and no cookies."""
    session = requests.Session()
    session.cookies.set_policy(_NoNewCookies())
    adapter = GuardedAdapter(pool_maxsize=1)
    guard(adapter)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


@contextmanager
def foreign_session(call: Call, seconds: float) -> Iterator[requests.Session]:
    """A session for another library: each answer it gets takes at most ``seconds``, and ends with ``call``."""
    outer, active.call = active.call, call
    try:
        with call.bounded(seconds), default_session() as session:
            yield session
    finally:
        active.call = outer
        call.detach()


_LOCATION = "X-Refused-Location"


def _hide_redirect(response: requests.Response, **_: Any) -> None:
    """Keep requests' hands off a redirect: it may not follow, but would read the whole body and parse the target."""
    if "Location" in response.headers:
        response.headers[_LOCATION] = response.headers.pop("Location")


def _prepared(session: requests.Session, method: str, url: str) -> tuple[requests.PreparedRequest, dict[str, Any]]:
    """A request without body and credentials, and what the environment and the session say about sending it."""
    request = session.prepare_request(requests.Request(method, url, headers=_HEADERS, auth=_NoAuth()))
    request.hooks = {"response": [*request.hooks["response"], _hide_redirect]}
    settings: dict[str, Any] = {**session.merge_environment_settings(url, {}, True, None, None)}
    settings["proxies"] = _usable(settings["proxies"], url)
    return request, settings


def _usable(proxies: Mapping[str, str], url: str) -> dict[str, str]:
    """``proxies`` where the one for ``url`` can be used; none where it would carry a credential in the clear."""
    proxy = requests.utils.select_proxy(url, proxies)
    if proxy is None:
        return dict(proxies)
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"The proxy for {urlsplit(url).hostname} is not a URL with a host, such as http://HOST:PORT. "
            "Check HTTPS_PROXY and its like, or the proxies of your session.",
            reason="PROXY_INVALID",
        )
    # http is for loopback alone, and a proxy elsewhere would be told what is meant for this machine.
    return {} if url.startswith("http:") and not is_loopback(parts.hostname or "") else dict(proxies)


class _NoAuth(requests.auth.AuthBase):
    """Keeps requests from asking ``.netrc``, whose entry would replace our credential."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class Transport:
    """Sends requests over sessions that any number of threads share, each session used by one call at a time."""

    def __init__(self, session_factory: Optional[SessionFactory] = None) -> None:
        self._session_factory = session_factory
        # Idle sessions, last in first out; list.append and list.pop are atomic, so there is no lock.
        self._idle: list[requests.Session] = []
        self._templates: dict[tuple[str, str], tuple[Any, requests.PreparedRequest, dict[str, Any]]] = {}
        renew_after_fork(self)

    def renew_after_fork(self) -> None:
        # A connection used on both sides of a fork would hand each side the other's answers.
        self.close()

    def close(self) -> None:
        """Close the idle connections; those in use are closed by their calls. Idempotent."""
        idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def _lease(self) -> requests.Session:
        try:
            return self._idle.pop()
        except IndexError:
            session = (self._session_factory or default_session)()
        if not isinstance(session, requests.Session):
            raise ConfigError(f"session_factory must return a requests.Session, not {type(session).__name__}.")
        session.cookies.set_policy(_NoNewCookies())
        for adapter in session.adapters.values():
            guard(adapter)
        return session

    def give_back(self, session: requests.Session, idle: list[requests.Session]) -> None:
        """Make a session, whose response was read to its end, available to the next call."""
        if idle is self._idle and len(idle) < _IDLE_SESSIONS:
            idle.append(session)
        else:
            session.close()

    def _prepare(self, session: requests.Session, method: str, url: str) -> tuple[requests.PreparedRequest, Any]:
        if self._session_factory is not None:  # its sessions may differ, and change from call to call
            return _prepared(session, method, url)
        # session.request() would read the environment, and build all of this, for each call: a third of its cost.
        environment = tuple(map(os.environ.get, _ENVIRONMENT))
        entry = self._templates.get((method, url))
        if entry is None or entry[0] != environment:
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            entry = self._templates[method, url] = (environment, *_prepared(session, method, url))
        return entry[1].copy(), entry[2]

    def send(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: Optional[bytes] = None
    ) -> Exchange:
        """Send one request and return once the response headers are there.

        A connection that had been idle may be found dead only now: such a request is sent once more on a new one.

        Raises:
            TransportError: the connection failed (``DeadlineExceeded``: a deadline of ``call`` passed).
            StreamInterrupted: the call was cancelled.
        """
        while True:
            idle, session = self._idle, self._lease()
            try:
                return Exchange(call, self, session, idle, self._send(call, session, method, url, headers, body))
            except BaseException as exc:
                call.detach()
                session.close()
                if not isinstance(exc, FOREIGN):
                    raise
                error = map_error(exc, call, url)
                try:
                    if call.fresh or isinstance(error, DeadlineExceeded) or not isinstance(error, TransportError):
                        raise error from exc
                finally:
                    del error  # or it and this frame would keep each other alive
            self.close()  # the other idle connections are as old

    def _send(
        self,
        call: Call,
        session: requests.Session,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Optional[bytes],
    ) -> requests.Response:
        # Deadlines for transports that are no guarded connection (a caller's own adapter); ours set finer ones.
        call.enter("first_token", call.timeouts.first_token)
        call.check()
        request, settings = self._prepare(session, method, url)
        request.headers.update(headers)
        if body is not None:
            request.body = body
            request.headers["Content-Length"] = str(len(body))
        left = call.remaining()
        if left == 0:
            raise call.deadline_error()
        outer, active.call = active.call, call  # a log handler may call while a call is being sent
        call.fresh = True
        try:
            return session.send(request, allow_redirects=False, timeout=(call.timeouts.connect, left), **settings)
        except requests.HTTPError as exc:
            if exc.response is None:
                raise
            return exc.response  # a hook of the session's raised for the status: what that means is decided later
        finally:
            active.call = outer

    def fetch(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Optional[bytes] = None,
        *,
        call: Call,
        seconds: float,
    ) -> Answer:
        """A whole small answer, whatever its status, within ``seconds``; raises as ``send``."""
        with call.bounded(seconds), self.send(call, method, url, headers, body) as exchange:
            return exchange.answer(seconds)


class Answer:
    """A response read to its (bounded) end: ``status``, ``headers``, ``text``."""

    def __init__(self, status: int, headers: Mapping[str, str], text: str) -> None:
        self.status, self.headers, self.text = status, headers, text

    @property
    def decoded(self) -> Any:
        """The body as JSON; None where it is none."""
        lines = self.text.splitlines() if self.text.startswith("data:") else None
        try:
            # An error may be framed as the events would have been.
            return json.loads(self.text if lines is None else "\n".join(line.removeprefix("data:") for line in lines))
        except (ValueError, RecursionError):
            return None

    def error(self, secrets: Collection[str]) -> Optional[ApiError]:
        """The error this answer is, by its status or by its body, rid of ``secrets``; None where it is none."""
        decoded = self.decoded
        if self.status >= 400:
            body = self.text if decoded is None else decoded
            return api_error(self.status, body, headers=self.headers, secrets=secrets)
        if find_error(decoded) is None:
            return None
        return api_error(None, decoded, headers=self.headers, secrets=secrets)


class Exchange:
    """One response whose headers are there; whoever holds it closes it, and its end gives the session back."""

    def __init__(
        self,
        call: Call,
        transport: Transport,
        session: requests.Session,
        idle: list[requests.Session],
        response: requests.Response,
    ) -> None:
        self.call = call
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = response.url
        self._transport, self._session, self._idle, self._response = transport, session, idle, response
        self._open = True

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self, *, reusable: bool = False) -> None:
        """Release the connection: kept for the next call if ``reusable``, else closed. Idempotent."""
        if self._open:
            self._open = False
            self.call.detach()
            if self._response.raw is not None:
                self._response.close()
            if reusable:
                self._transport.give_back(self._session, self._idle)
            else:
                self._session.close()

    def chunks(self) -> Iterator[bytes]:
        """The body, each piece as soon as it is there; closes the exchange at its end, whatever that is.

        Raises:
            TransportError: the connection broke, or a deadline passed (``DeadlineExceeded``).
            StreamInterrupted: the call was cancelled.
            ProtocolError: the content encoding is unknown or the compressed body was cut off.
        """
        call = self.call
        try:
            content = getattr(self._response, "_content", False)
            if content is not False:  # a hook of the session's has read it, or a test's adapter has made it up
                yield self._response.content
                return
            read = reader(self._response.raw)
            decompress = _decompressor(self.headers.get("Content-Encoding"), call.secrets)
            while True:
                if not call.attached:  # else the connection does it
                    call.begin_read()
                    call.check()
                data = read()
                if not data:
                    break
                if decompress is not None:
                    data = decompress(data)
                yield data
            if call.cancelled:  # a socket shut down under the reader looks like a clean end
                raise cancelled_error()
            if decompress is not None:
                decompress(b"")
            self.close(reusable=True)
        except FOREIGN as exc:
            raise map_error(exc, call, self.url) from exc
        finally:
            self.close()

    def answer(self, seconds: float = _ERROR_BODY_SECONDS) -> Answer:
        """The body as text, at most 1 MiB and ``seconds`` of it; what could not be read is left out."""
        if 300 <= self.status < 400:  # nobody follows it, so what its body says is no matter
            return Answer(self.status, self.headers, "")
        left = self.call.remaining()
        self.call.enter("first_token", seconds if left is None else min(seconds, left))
        data = bytearray()
        chunks = self.chunks()
        try:
            for chunk in chunks:
                data += chunk
                if len(data) > _ERROR_BODY_BYTES:
                    break
        except (DeadlineExceeded, ProtocolError, TransportError) as exc:
            if self.status == 200 or (isinstance(exc, DeadlineExceeded) and exc.deadline == "total"):
                raise
        finally:
            chunks.close()  # type: ignore[attr-defined]
        return Answer(self.status, self.headers, bytes(data[:_ERROR_BODY_BYTES]).decode("utf-8-sig", "replace"))


def _decompressor(encoding: Optional[str], secrets: Collection[str]) -> Optional[Callable[[bytes], bytes]]:
    """For a server that compresses although identity was asked for; unlike urllib3's it notices a cut-off end."""
    if encoding is None or encoding.strip().lower() in ("", "identity"):
        return None
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise ProtocolError(f"Expected an uncompressed body, came Content-Encoding {scrub(encoding, secrets)!r}.")
    state = zlib.decompressobj(_GZIP_OR_ZLIB)

    def decompress(data: bytes) -> bytes:
        nonlocal state
        if not data and not state.eof:
            raise ProtocolError("The compressed body ended before its end marker: it was cut off.")
        pieces = []
        while data:
            if state.eof:
                if not data.strip(b"\0"):
                    break  # padding, as gzip's own tools pass over
                state = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                pieces.append(state.decompress(data))
            except zlib.error as exc:
                raise ProtocolError(f"The compressed body is damaged: {exc}.") from exc
            data = state.unused_data
        return b"".join(pieces)

    return decompress


def refuse_redirect(status: int, headers: Mapping[str, str]) -> None:
    """Raises ``ProtocolError`` naming the target's host for a 3xx: following it would carry credentials there."""
    if 300 <= status < 400:
        try:
            host = urlsplit(headers.get(_LOCATION) or "").hostname
        except ValueError:
            host = None
        raise ProtocolError(
            f"The server answered {status}, a redirect to {host or 'nowhere'}; it was not followed, because "
            "credentials would go along. Set the endpoint to where the service is.",
            code=status,
        )
