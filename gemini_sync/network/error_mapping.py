"""Our errors in place of the exceptions of requests, urllib3, http.client and the operating system."""

from __future__ import annotations

import math
import socket
import ssl
from http.client import HTTPException
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
from gemini_sync.interruptions import causes_of, raise_interruption
from gemini_sync.network.deadlines import Call
from gemini_sync.redaction import redacted_excerpt

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

    What a signal handler raised in the middle, of any type, is not mapped: it is raised here as it is.
    """
    raise_interruption(exc)
    causes = list(causes_of(exc))
    if isinstance(exc, _HTTP_LIBRARIES):
        for cause in causes:
            cause.__traceback__ = None
    if call.cancelled:
        return cancelled_error()
    has_passed = call.remaining() == 0
    if isinstance(exc, requests.ConnectTimeout):
        call.enter("connect", call.timeouts.connect)
    is_timeout = any(map(_is_timeout, causes)) and not any(map(_is_system_timeout, causes))
    if has_passed or (is_timeout and call.deadline_at < math.inf):
        return call.deadline_error()
    host = urlsplit(url).netloc
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TransportError(
                f"The certificate of {host} could not be verified: {cause.verify_message}. Nothing was sent. "
                "If a proxy of yours re-signs traffic, name its CA in REQUESTS_CA_BUNDLE.",
                reason=CERTIFICATE_VERIFY_FAILED,
            )
    if isinstance(exc, (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL)):
        return ProtocolError(f"The request to {host} could not be sent: {type(exc).__name__}.")
    what = redacted_excerpt(_what_failed(exc, causes), call.secrets)
    return TransportError(f"The connection to {host} failed: {what}. Check the network and proxies.")


def _is_timeout(exc: BaseException) -> bool:
    # urllib3's own timeouts do not count, because a refused connection is among them.
    return isinstance(exc, (requests.Timeout, socket.timeout))


def _is_system_timeout(exc: BaseException) -> bool:
    """True for ETIMEDOUT: the system gave the connection up. urllib3 and requests take it for a timeout of a read."""
    return isinstance(exc, TimeoutError) and exc.errno is not None


def _what_failed(exc: BaseException, causes: list[BaseException]) -> str:
    """The words of the operating system if there are any, else those of http.client; others repeat the URL and more."""
    for cause in reversed(causes):
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            return f"{type(cause).__name__}: {cause}"
    for cause in reversed(causes):
        if isinstance(cause, HTTPException):  # LineTooLong, BadStatusLine, or HTTPException itself for too many headers
            return f"the response ended early or made no sense ({type(cause).__name__}: {cause})"
    return f"the response ended early or made no sense ({type(causes[-1]).__name__})"
