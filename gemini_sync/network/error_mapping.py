"""Our errors in place of the exceptions of requests, urllib3, http.client and the operating system."""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from gemini_sync.errors import (
    CERTIFICATE_VERIFY_FAILED,
    GeminiSyncError,
    ProtocolError,
    TransportError,
    cancelled_error,
)
from gemini_sync.network.deadlines import Call
from gemini_sync.redaction import redact_text

_HTTP_LIBRARIES = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException)
LIBRARY_ERRORS = (*_HTTP_LIBRARIES, OSError)


def map_error(exc: BaseException, call: Call, url: str) -> GeminiSyncError:
    """Our error for one of a library. The first line that applies decides:

    the call was cancelled                       StreamInterrupted
    a deadline passed, or the library timed out  DeadlineExceeded
    a certificate could not be verified          TransportError, reason CERTIFICATE_VERIFY_FAILED
    requests refuses the URL                     ProtocolError
    anything else                                TransportError

    The errors of HTTP libraries lose their tracebacks. urllib3 stores errors in variables of the frames in those
    tracebacks, so all these frames, and those of the caller, would live until the next garbage collection. An OSError
    may come from a hook or an adapter of the caller's, who needs its traceback.
    """
    causes = list(_causes(exc))
    if isinstance(exc, _HTTP_LIBRARIES):
        for cause in causes:
            cause.__traceback__ = None
    if call.cancelled:
        return cancelled_error()
    has_passed = call.remaining() == 0
    if isinstance(exc, requests.ConnectTimeout):
        call.enter("connect", call.timeouts.connect)
    if has_passed or (call.deadline_at < math.inf and any(map(_is_timeout, causes))):
        return call.deadline_error()
    host = urlsplit(url).netloc
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TransportError(
                f"The certificate of {host} could not be verified: {cause.verify_message}. Nothing was sent. "
                "If a proxy of yours re-signs traffic, name its CA in REQUESTS_CA_BUNDLE, or in your session's verify.",
                reason=CERTIFICATE_VERIFY_FAILED,
            )
    if isinstance(exc, (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL)):
        return ProtocolError(f"The request to {host} could not be sent: {type(exc).__name__}.")
    return TransportError(
        f"The connection to {host} failed: {redact_text(_what_failed(exc, causes))}. Check the network and proxies."
    )


def _is_timeout(exc: BaseException) -> bool:
    # urllib3's own timeouts do not count, because a refused connection is among them. The system's have a number.
    return isinstance(exc, requests.Timeout) or (isinstance(exc, socket.timeout) and exc.errno is None)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """``exc`` and the errors it was made from; requests and urllib3 keep them in args, ``reason`` and ``__cause__``.

    Not those in ``__context__``: if the caller makes this call while it handles another error, that error is there.
    """
    seen: set[int] = set()
    todo: list[Any] = [exc]
    while todo:
        current = todo.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            todo += [*current.args, getattr(current, "reason", None), current.__cause__]


def _what_failed(exc: BaseException, causes: list[BaseException]) -> str:
    """The words of the operating system if there are any; those of the libraries repeat the URL and more."""
    for cause in reversed(causes):
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            return " ".join(f"{type(cause).__name__}: {cause}".split())
    return f"the response ended early or made no sense ({type(exc).__name__})"
