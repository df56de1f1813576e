"""Knows the OAuth token endpoint: one refresh, and when it is worth another try; knows no file and no cache."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Optional
from urllib.parse import quote_plus, urlencode

from gemini_sync.config import OAuthClient, Retry, check_secret
from gemini_sync.errors import ConfigError, GeminiSyncError, ProtocolError, RefreshError, TransportError, ends_the_call
from gemini_sync.messages.api_errors import decode_body, find_error, retry_after_header
from gemini_sync.network.deadlines import Call
from gemini_sync.network.exchange import Answer
from gemini_sync.network.transport import Transport
from gemini_sync.redaction import redact_text, redacted_excerpt
from gemini_sync.retrying import RetryPolicy

_ANSWER_SECONDS = 20.0
_TOTAL_SECONDS = 60.0
_QUICK_SECONDS = 5.0
_ASSUMED_LIFETIME_SECONDS = 300.0
# What google-auth retries (google/oauth2/_client.py); 200 stands for an answer that holds no usable token.
_TRANSIENT_CODES = {200, 408, 429, 500, 502, 503, 504}
_TRANSIENT_REASONS = {"internal_failure", "server_error", "temporarily_unavailable"}
_LOGIN_AGAIN = "Log in again: the refresh token has expired, was revoked, or the organisation wants a new login."
_CHECK_CLIENT = "Check the OAuth client: a refresh token works only with the client that obtained it."
_NEXT_STEP = {
    "invalid_grant": _LOGIN_AGAIN,
    "invalid_rapt": _LOGIN_AGAIN,
    "invalid_client": _CHECK_CLIENT,
    "unauthorized_client": _CHECK_CLIENT,
    "invalid_scope": "Log in again with the scopes that are needed.",
}
# The refresh token itself is of no use any more.
LOGIN_ENDED = ("invalid_grant", "invalid_rapt")


class Refreshed(NamedTuple):
    """What the token endpoint gave: ``lifetime`` in seconds, ``fields`` as they belong into a credentials file."""

    access_token: str
    lifetime: float
    refresh_token: Optional[str]
    fields: Mapping[str, str]

    def __repr__(self) -> str:
        return object.__repr__(self)  # tells no secret


def refresh(
    transport: Transport, url: str, refresh_token: str, client: OAuthClient, call: Call, *, quick: bool = False
) -> Refreshed:
    """Exchange a refresh token for an access token (RFC 6749 section 6).

    At most 3 tries within 60 s; with ``quick`` a single one of 5 s, for a caller who could also do without.

    Raises:
        RefreshError: refused, redirected, failed for good, or answered without a usable token; ``code`` is the HTTP
            status, ``reason`` the OAuth error code or its subtype. The message holds no credential.
        TransportError: the certificate could not be verified.
        DeadlineExceeded, StreamInterrupted: the ``total`` deadline of ``call`` passed, or it was cancelled.
    """
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": client.id,
        "client_secret": client.secret,
    }
    until = call.clock() + (_QUICK_SECONDS if quick else _TOTAL_SECONDS)

    def attempt() -> Refreshed:
        return _try(transport, url, form, call, min(_ANSWER_SECONDS, until - call.clock()))

    return attempt() if quick else _RETRYING.run(attempt, call, lambda: until - call.clock())


def _try(transport: Transport, url: str, form: Mapping[str, str], call: Call, seconds: float) -> Refreshed:
    plain = (form["refresh_token"], form["client_secret"])
    secrets = (*plain, *map(quote_plus, plain))  # a server may echo the form
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    try:
        answer = transport.fetch(
            call,
            "POST",
            url,
            headers,
            urlencode(form).encode(),
            seconds=seconds,
            what="The answer of the token endpoint",
        )
    except (TransportError, ProtocolError) as exc:
        if exc.reason == "CERTIFICATE_VERIFY_FAILED" or ends_the_call(exc):
            raise
        raise RefreshError(f"The access token could not be refreshed: {exc}", code=exc.code) from exc
    return _read(answer, secrets)


def _read(answer: Answer, secrets: Collection[str]) -> Refreshed:
    decoded = decode_body(answer.text)
    error = find_error(decoded)
    if answer.status != 200 or error is not None:
        raise _refusal(answer, decoded, error or {}, secrets)
    if not isinstance(decoded, dict):
        kind = redact_text(answer.headers.get("Content-Type") or "no Content-Type")
        raise _unusable(f"expected a JSON object, came {kind}")
    try:
        access_token = check_secret(decoded.get("access_token"), "access_token")
    except ConfigError as exc:
        raise _unusable(str(exc)) from exc
    texts = {name: decoded[name] for name in ("scope", "token_type", "id_token") if isinstance(decoded.get(name), str)}
    rotated = decoded.get("refresh_token")
    refresh_token = rotated if isinstance(rotated, str) and rotated else None
    return Refreshed(access_token, _lifetime(decoded.get("expires_in")), refresh_token, texts)


def _lifetime(value: Any) -> float:
    """``expires_in`` in seconds; it may be a string (GA), and where it is missing a short life is the safe guess."""
    if value is None:
        return _ASSUMED_LIFETIME_SECONDS
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise _unusable("expires_in is no positive number: the token would be expired already")
    return seconds


def _unusable(what: str) -> RefreshError:
    # The body is not quoted: it may hold a token.
    what = what.rstrip(".")
    return RefreshError(f"The token endpoint answered 200 without a usable token: {what}. Try again later.", code=200)


def _refusal(answer: Answer, decoded: Any, error: Mapping[str, Any], secrets: Collection[str]) -> RefreshError:
    subtype = decoded.get("error_subtype") if isinstance(decoded, dict) else None
    reasons = (redact_text(text, secrets) for text in (subtype, error.get("status")) if isinstance(text, str) and text)
    reason = next(reasons, None)
    said = error.get("message")
    said = redacted_excerpt(said if isinstance(said, str) else answer.text if answer.status != 200 else "", secrets)
    step = _NEXT_STEP.get(reason or "", "Try again later.")
    what = " ".join(filter(None, [str(answer.status), reason, f"({said})" if said not in ("", reason) else ""]))
    return RefreshError(
        f"The token endpoint did not refresh the access token: {what}. {step}",
        code=answer.status,
        reason=reason,
        retry_after=retry_after_header(answer.headers.get("Retry-After")),
    )


def _is_transient(error: GeminiSyncError) -> bool:
    if not isinstance(error, RefreshError) or error.reason in _NEXT_STEP:
        return False
    dropped = isinstance(error.__cause__, TransportError)
    return dropped or error.code in _TRANSIENT_CODES or error.reason in _TRANSIENT_REASONS


_RETRYING = RetryPolicy(Retry(), _is_transient)
