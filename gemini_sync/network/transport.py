"""Knows how a request is sent: sessions leased, requests prepared once, foreign errors mapped; knows no Gemini."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Optional

import requests

from gemini_sync.errors import ConfigError, DeadlineExceeded, TransportError
from gemini_sync.fork import register_after_fork
from gemini_sync.network.connection import sending
from gemini_sync.network.deadlines import Call
from gemini_sync.network.error_mapping import FOREIGN, map_error
from gemini_sync.network.exchange import Answer, Exchange
from gemini_sync.network.redirects import refuse_redirect
from gemini_sync.network.sessions import SessionFactory, default_session, guarded, prepared

_IDLE_SESSIONS = 32
_TEMPLATES = 64
# What requests reads of the environment for each request; a template prepared under other values is prepared again.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_ENVIRONMENT = (*_PROXIES, *map(str.upper, _PROXIES), "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class Transport:
    """Sends requests over sessions that any number of threads share, each session used by one call at a time."""

    def __init__(self, session_factory: Optional[SessionFactory] = None) -> None:
        self._session_factory = session_factory
        # Idle sessions, last in first out; list.append and list.pop are atomic, so there is no lock.
        self._idle: list[requests.Session] = []
        self._templates: dict[tuple[str, str], tuple[Any, requests.PreparedRequest, dict[str, Any]]] = {}
        register_after_fork(self)

    def after_fork(self) -> None:
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
            raise ConfigError(
                f"session_factory must return a requests.Session, not {type(session).__name__}.",
                reason="SESSION_INVALID",
            )
        return guarded(session)

    def _release(self, session: requests.Session, idle: list[requests.Session], reusable: bool) -> None:
        """Make a session, whose response was read to its end, available to the next call."""
        if reusable and idle is self._idle and len(idle) < _IDLE_SESSIONS:
            idle.append(session)
        else:
            session.close()

    def _prepare(self, session: requests.Session, method: str, url: str) -> tuple[requests.PreparedRequest, Any]:
        if self._session_factory is not None:  # its sessions may differ, and change from call to call
            return prepared(session, method, url)
        # session.request() would read the environment, and build all of this, for each call: a third of its cost.
        environment = tuple(map(os.environ.get, _ENVIRONMENT))
        entry = self._templates.get((method, url))
        if entry is None or entry[0] != environment:
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            entry = self._templates[method, url] = (environment, *prepared(session, method, url))
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
                response = self._send(call, session, method, url, headers, body)
                return Exchange(call, response, partial(self._release, session, idle))
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
        call.enter_answer()
        call.check()
        call.fresh = True  # from here on, only a connection that was used before may say otherwise
        request, settings = self._prepare(session, method, url)
        request.headers.update(headers)
        if body is not None:
            request.body = body
            request.headers["Content-Length"] = str(len(body))
        left = call.remaining()
        if left == 0:
            raise call.deadline_error()
        try:
            with sending(call):
                return session.send(request, allow_redirects=False, timeout=(call.timeouts.connect, left), **settings)
        except requests.HTTPError as exc:
            if exc.response is None or exc.response.request is not request:
                raise
            return exc.response  # a hook of the session's raised for the status: what that means is decided later

    def fetch(
        self,
        call: Call,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Optional[bytes] = None,
        *,
        seconds: float,
        what: str,
    ) -> Answer:
        """A whole small answer, whatever its status; ``what`` names it if it does not come within ``seconds``.

        Raises:
            ProtocolError: the answer is a redirect.
            TransportError, StreamInterrupted: as for ``send``.
        """
        with call.bounded(seconds, what), self.send(call, method, url, headers, body) as exchange:
            refuse_redirect(exchange.status, exchange.headers)
            return exchange.answer(seconds, what)
