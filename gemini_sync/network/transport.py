"""Sending requests: how one is prepared, and when it is sent a second time."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any, Optional

import requests

from gemini_sync.errors import TransportError
from gemini_sync.fork import register_after_fork
from gemini_sync.network.cancelling import Call
from gemini_sync.network.connection import current
from gemini_sync.network.error_mapping import LIBRARY_ERRORS, map_error
from gemini_sync.network.exchange import Answer, Exchange
from gemini_sync.network.redirects import refuse_redirect
from gemini_sync.network.sessions import IdleSessions, SessionFactory, new_session, prepare_request

# The variables that requests reads for each request.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_ENVIRONMENT = (*_PROXIES, *map(str.upper, _PROXIES), "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@functools.lru_cache(maxsize=64)
def _template(method: str, url: str, environment: tuple[Optional[str], ...]) -> tuple[requests.PreparedRequest, Any]:
    """A request as our own sessions prepare it, once for each set of values of ``_ENVIRONMENT``.

    Preparing each request by itself would be a third of what a short call costs.
    """
    return prepare_request(requests.Session(), method, url)


class Transport:
    """Sends requests over sessions that any number of threads share, each session used by one call at a time."""

    def __init__(self, session_factory: Optional[SessionFactory] = None) -> None:
        self._session_factory = session_factory
        self._idle = IdleSessions()
        register_after_fork(self)

    def after_fork(self) -> None:
        # If parent and child used the same connection, each would receive answers meant for the other.
        self.close()

    def close(self) -> None:
        """Close the idle connections; those in use are closed by their calls. Idempotent."""
        idle, self._idle = self._idle, IdleSessions()
        idle.close()

    def _take_session(self) -> requests.Session:
        try:
            return self._idle.pop()
        except IndexError:
            return new_session(self._session_factory)

    def _prepare(self, session: requests.Session, method: str, url: str) -> tuple[requests.PreparedRequest, Any]:
        if self._session_factory is not None:  # its sessions may differ, and change from call to call
            return prepare_request(session, method, url)
        request, settings = _template(method, url, tuple(map(os.environ.get, _ENVIRONMENT)))
        return request.copy(), settings

    def send(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: Optional[bytes] = None
    ) -> Exchange:
        """Send one request and return once the response headers are there.

        The server may have closed an idle connection, which shows only when it is used. If a connection that had
        carried a request before fails, the request is sent once more on a new one.

        Raises:
            TransportError: the connection failed (``DeadlineExceeded``: a deadline of ``call`` passed).
            StreamInterrupted: the call was cancelled.
        """
        while True:
            call.connection_is_new = True  # until a connection of ours says otherwise
            idle, session = self._idle, self._take_session()
            try:
                try:
                    request, settings = self._prepare(session, method, url)
                    request.headers.update(headers)
                    if body is not None:
                        request.body = body
                        request.headers["Content-Length"] = str(len(body))
                    response = _send(call, session, request, settings)
                except LIBRARY_ERRORS as exc:
                    raise map_error(exc, call, url) from exc
                return Exchange(call, response, functools.partial(idle.put_back, session))
            except BaseException as exc:
                call.detach()
                session.close()
                if call.connection_is_new or type(exc) is not TransportError:
                    raise
            self.close()  # the other idle connections are as old

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
        """A whole small answer, whatever its status; the error names ``what`` if it does not come within ``seconds``.

        Raises:
            ProtocolError: the answer is a redirect.
            TransportError, StreamInterrupted: as for ``send``.
        """
        with call.bounded(seconds, what), self.send(call, method, url, headers, body) as exchange:
            refuse_redirect(exchange.status, exchange.headers)
            return exchange.answer(seconds)


def _send(
    call: Call, session: requests.Session, request: requests.PreparedRequest, settings: dict[str, Any]
) -> requests.Response:
    call.enter_answer()  # for adapters of callers; connections of ours start deadlines for each step
    call.check()
    timeouts = (call.timeouts.connect, call.socket_timeout())
    outer = current.get()  # None, unless a log handler makes a call of its own while another is being sent
    current.set(call)
    try:
        return session.send(request, allow_redirects=False, timeout=timeouts, **settings)
    except requests.HTTPError as exc:
        if exc.response is None or exc.response.request is not request:
            raise
        return exc.response  # a hook of the session raised for the status; our caller decides what that means
    finally:
        current.set(outer)
