"""Knows the exceptions of requests, urllib3, http.client and the system, and which of ours each is; sends nothing."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from gemini_sync.errors import GeminiSyncError, ProtocolError, TransportError, cancelled_error
from gemini_sync.network.deadlines import Call
from gemini_sync.redaction import redact_text

_LIBRARIES = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException)
FOREIGN = (*_LIBRARIES, OSError)


def map_error(exc: BaseException, call: Call, url: str) -> GeminiSyncError:
    """Our error for a foreign one; the state of ``call`` says more than the type.

    Takes the tracebacks off what requests and urllib3 raised: urllib3's frames keep their errors, so all of them, and
    the caller's, would live until garbage is collected. A plain OSError may be of a hook or an adapter of the user's.
    """
    if isinstance(exc, _LIBRARIES):
        for cause in _causes(exc):
            cause.__traceback__ = None
    if call.cancelled:
        return cancelled_error()
    remaining = call.remaining()
    timed_out = any(map(_is_timeout, _causes(exc)))
    if isinstance(exc, requests.ConnectTimeout):
        call.enter("connect", call.timeouts.connect)
    if (remaining is not None and remaining <= 0) or (timed_out and call.deadline_at != float("inf")):
        return call.deadline_error()
    host = urlsplit(url).netloc
    for cause in _causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TransportError(
                f"The certificate of {host} could not be verified: {cause.verify_message}. Nothing was sent. "
                "If a proxy of yours re-signs traffic, name its CA in REQUESTS_CA_BUNDLE.",
                reason="CERTIFICATE_VERIFY_FAILED",
            )
    if isinstance(exc, (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL)):
        return ProtocolError(f"The request to {host} could not be sent: {type(exc).__name__}.")
    return TransportError(
        f"The connection to {host} failed: {redact_text(_what_failed(exc))}. Check the network and proxies."
    )


def _is_timeout(exc: BaseException) -> bool:
    # Not urllib3's own: it counts a refused connection among its timeouts. The system's has a number.
    return isinstance(exc, requests.Timeout) or (isinstance(exc, socket.timeout) and exc.errno is None)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """``exc`` and what it was made from, which requests and urllib3 keep in args, ``reason`` and ``__cause__``.

    Not in ``__context__``: that may be an error of another call, whose handling led to this one.
    """
    seen: set[int] = set()
    todo: list[Any] = [exc]
    while todo:
        current = todo.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            todo += [*current.args, getattr(current, "reason", None), current.__cause__]


def _what_failed(exc: BaseException) -> str:
    """The operating system's words where it has any; the wrappers' own repeat the URL and more."""
    causes = [cause for cause in _causes(exc) if isinstance(cause, OSError)]
    system = [cause for cause in causes if not isinstance(cause, requests.RequestException)]
    if system:
        return " ".join(f"{type(system[-1]).__name__}: {system[-1]}".split())
    return f"the response ended early or made no sense ({type(exc).__name__})"
