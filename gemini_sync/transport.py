"""Knows requests: leased sessions, prepared requests, bodies as bytes, foreign errors mapped; knows no Gemini."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import Cookie, DefaultCookiePolicy
from typing import Any, Optional
from urllib.parse import urlsplit

import requests

from gemini_sync.call import Call, cancelled_error
from gemini_sync.connection import RECEIVE_BYTES, GuardedAdapter, active, guard
from gemini_sync.errors import ApiError, DeadlineExceeded, ProtocolError, TransportError, api_error, find_error
from gemini_sync.foreign import FOREIGN, map_error
from gemini_sync.fork import renew_after_fork
from gemini_sync.scrub import scrub
from gemini_sync.version import VERSION

SessionFactory = Callable[[], requests.Session]

_ERROR_BODY_BYTES = 64 * 1024
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
        # session.request() would read the environment, and build all of this, for each call: a third of its cost.
        environment = tuple(map(os.environ.get, _ENVIRONMENT))
        entry = self._templates.get((method, url))
        if entry is None or entry[0] != environment:
            template = session.prepare_request(requests.Request(method, url, headers=_HEADERS, auth=_NoAuth()))
            template.hooks = {"response": [*template.hooks["response"], _hide_redirect]}
            settings = session.merge_environment_settings(url, {}, True, None, None)
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            entry = self._templates[method, url] = (environment, template, dict(settings))
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
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return None

    def error(self, secret: str) -> Optional[ApiError]:
        """The error this answer is, by its status or by its body, rid of ``secret``; None where it is none."""
        if self.status >= 400:
            return api_error(self.status, self.text, headers=self.headers, secrets=(secret,))
        decoded = self.decoded
        if find_error(decoded) is None:
            return None
        return api_error(None, decoded, headers=self.headers, secrets=(secret,))


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
        call, read = self.call, self._response.raw.read1
        try:
            decompress = _decompressor(self.headers.get("Content-Encoding"))
            while True:
                if not call.attached:  # else the connection does it
                    call.begin_read()
                    call.check()
                data = read(RECEIVE_BYTES, decode_content=False)
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
        """The body as text, at most 64 KiB and ``seconds`` of it; what could not be read is left out."""
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
        return Answer(self.status, self.headers, bytes(data[:_ERROR_BODY_BYTES]).decode("utf-8", "replace"))


def _decompressor(encoding: Optional[str]) -> Optional[Callable[[bytes], bytes]]:
    """For a server that compresses although identity was asked for; unlike urllib3's it notices a cut-off end."""
    if encoding is None or encoding.strip().lower() in ("", "identity"):
        return None
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise ProtocolError(f"Expected an uncompressed body, came Content-Encoding {scrub(encoding)!r}.")
    state = zlib.decompressobj(_GZIP_OR_ZLIB)

    def decompress(data: bytes) -> bytes:
        nonlocal state
        if not data and not state.eof:
            raise ProtocolError("The compressed body ended before its end marker: it was cut off.")
        pieces = []
        while data:
            if state.eof:  # a further member
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
