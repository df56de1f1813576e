"""Our errors in place of the exceptions of requests, urllib3, http.client and the operating system."""

from __future__ import annotations

import math
import re
import socket
import ssl
from http.client import HTTPException
from typing import TYPE_CHECKING, Optional
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from gemini_sync.errors import (
    CERTIFICATE_VERIFY_FAILED,
    PROXY_INVALID,
    PROXY_REFUSED,
    SESSION_INVALID,
    TLS_FILE_INVALID,
    ConfigError,
    GeminiSyncError,
    ProtocolError,
    TransportError,
    cancelled_error,
)
from gemini_sync.interruptions import causes_of, raise_interruption
from gemini_sync.redaction import redacted_excerpt

if TYPE_CHECKING:
    from gemini_sync.network.cancelling import Call

_HTTP_LIBRARIES = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException)
LIBRARY_ERRORS = (*_HTTP_LIBRARIES, OSError)
# With these a proxy says that it cannot connect at present. With other statuses it refuses to.
_PROXY_MAY_RECOVER = (408, 429, 500, 502, 503, 504)
_SOCKS_REFUSES = re.compile("SOCKS5 authentication failed|.{,30}authentication methods were rejected|[^:]*by ruleset")
# What OpenSSL says of a CA bundle, a certificate or a key that it cannot use.
_BAD_FILE = ("NO_CERTIFICATE_OR_CRL_FOUND", "KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_START_LINE")


def map_error(exc: BaseException, call: Call, url: str) -> GeminiSyncError:
    """Our error for one of a library. The first line that applies decides:

    the call was cancelled                       StreamInterrupted
    a deadline passed, or the library timed out  DeadlineExceeded
    a certificate could not be verified          TransportError, reason CERTIFICATE_VERIFY_FAILED
    a setting of this machine is at fault        ConfigError, for the other route needs the setting as well
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
                "If a proxy of yours re-signs traffic, name its CA in REQUESTS_CA_BUNDLE, or in your session's verify.",
                reason=CERTIFICATE_VERIFY_FAILED,
            )
    for cause in causes:
        setting = _setting_error(cause, host)
        if setting is not None:
            return setting
    if isinstance(exc, requests.exceptions.InvalidURL):
        return ProtocolError(f"The request to {host} could not be sent: {type(exc).__name__}.")
    what = redacted_excerpt(_what_failed(exc, causes), call.secrets)
    return TransportError(f"The connection to {host} failed: {what}. Check the network and proxies.")


def _setting_error(cause: BaseException, host: str) -> Optional[ConfigError]:
    """The error for a setting of this machine that cannot work, if ``cause`` says so."""
    said = redacted_excerpt(str(cause))
    tunnel = re.match(r"Tunnel connection failed: (\d{3})", said) if type(cause) is OSError else None
    socks = isinstance(cause, urllib3.exceptions.NewConnectionError) and _SOCKS_REFUSES.search(said)
    if socks or (tunnel and int(tunnel.group(1)) not in _PROXY_MAY_RECOVER):
        said = socks.group() if socks else said
        return ConfigError(
            f"The proxy refused the connection to {host}: {said.rstrip('.')}. Check the user name and password in the "
            "proxy's URL (HTTPS_PROXY, or the proxies of your session), and whether the proxy allows this host.",
            reason=PROXY_REFUSED,
        )
    if isinstance(cause, urllib3.exceptions.ProxyError) and "only use HTTP and not HTTPS" in said:
        return ConfigError(
            f"The proxy for {host} does not speak TLS. Begin its URL with http://, which encrypts the request all the "
            "same. Check HTTPS_PROXY and its like, or the proxies of your session.",
            reason=PROXY_INVALID,
        )
    if isinstance(cause, requests.exceptions.InvalidSchema):
        if "dependencies for SOCKS" in said:
            return ConfigError(
                f"The SOCKS proxy for {host} needs a library: pip install 'requests[socks]'. Or name another proxy.",
                reason=PROXY_INVALID,
            )
        return ConfigError(
            f"The session has no adapter for the URL of {host}. Mount one: session.mount('https://', …).",
            reason=SESSION_INVALID,
        )
    no_file = type(cause) is OSError and "invalid path: " in said
    unusable = isinstance(cause, ssl.SSLError) and (cause.reason in _BAD_FILE or "PEM lib" in said)
    if no_file or unusable:
        return ConfigError(
            f"The connection to {host} needs a file that cannot be used: {said.rstrip('.')}. Check cert and verify of "
            "your session, and REQUESTS_CA_BUNDLE.",
            reason=TLS_FILE_INVALID,
        )
    return None


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
