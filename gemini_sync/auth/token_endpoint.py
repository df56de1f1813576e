"""The OAuth token endpoint: a refresh token is exchanged for an access token."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Optional
from urllib.parse import quote_plus, urlencode

from gemini_sync import errors
from gemini_sync.auth.access_token import hide_fields
from gemini_sync.config import OAuthClient, Retry, check_secret
from gemini_sync.messages.api_errors import decode_body, find_error
from gemini_sync.messages.delay_hints import retry_after_header
from gemini_sync.messages.rest_json import text_of
from gemini_sync.network.cancelling import Call
from gemini_sync.network.exchange import Answer
from gemini_sync.network.transport import Transport
from gemini_sync.redaction import redact_text, redacted_excerpt
from gemini_sync.retrying import RetryPolicy

_ANSWER_SECONDS = 20.0
_TOTAL_SECONDS = 60.0
_QUICK_SECONDS = 5.0
_ASSUMED_LIFETIME_SECONDS = 300.0
# Tried again whatever the status is (google/oauth2/_client.py).
_TRANSIENT_REASONS = {"internal_failure", "server_error", "temporarily_unavailable"}
_LOGIN_AGAIN = "Log in again: the refresh token has expired, was revoked, or the organisation wants a new login."
_CHECK_CLIENT = (
    "Check the OAuth client, which is the one in the credentials file if it names one, else oauth_client: "
    "a refresh token works only with the client that obtained it."
)
_CHECK_ENDPOINT = "Check Endpoints.token and the proxies"
_NEXT_STEP = {
    "invalid_grant": _LOGIN_AGAIN,
    "invalid_rapt": _LOGIN_AGAIN,
    "invalid_client": _CHECK_CLIENT,
    "unauthorized_client": _CHECK_CLIENT,
    "deleted_client": _CHECK_CLIENT,
    "disabled_client": _CHECK_CLIENT,
    "invalid_scope": "Log in again with the scopes that are needed.",
}
# The reasons that mean that the refresh token itself has ended.
LOGIN_ENDED = ("invalid_grant", "invalid_rapt")


@hide_fields
class TokenAnswer(NamedTuple):
    """What the token endpoint gave: ``lifetime`` in seconds, ``fields`` to be saved in a credentials file."""

    access_token: str
    lifetime: float
    refresh_token: Optional[str]
    fields: Mapping[str, str]


def refresh(
    transport: Transport, url: str, refresh_token: str, client: OAuthClient, call: Call, *, quick: bool = False
) -> TokenAnswer:
    """Exchange a refresh token for an access token (RFC 6749 section 6).

    There are at most 3 tries within 60 s; with ``quick`` there is one try of 5 s.

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

    def time_left() -> float:
        return until - call.clock()

    def attempt() -> TokenAnswer:
        return _ask(transport, url, form, call, min(_ANSWER_SECONDS, time_left()))

    return attempt() if quick else RetryPolicy(Retry(), _is_transient).run(attempt, call, time_left)


def _ask(transport: Transport, url: str, form: Mapping[str, str], call: Call, seconds: float) -> TokenAnswer:
    plain = (form["refresh_token"], form["client_secret"])
    secrets = (*plain, *map(quote_plus, plain))  # a server may quote the form
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode(form).encode()
    what = "The answer of the token endpoint"
    try:
        answer = transport.fetch(call, "POST", url, headers, body, seconds=seconds, what=what)
    except (errors.TransportError, errors.ProtocolError) as exc:
        if exc.reason == errors.CERTIFICATE_VERIFY_FAILED or errors.ends_the_call(exc):
            raise
        raise errors.RefreshError(f"The access token could not be refreshed: {exc}", code=exc.code) from exc
    return _read(answer, secrets)


def _read(answer: Answer, secrets: Collection[str]) -> TokenAnswer:
    decoded = decode_body(answer.text)
    error = find_error(decoded)
    if answer.status != 200 or error is not None:
        raise _refusal(answer, decoded, error or {}, secrets)
    if not isinstance(decoded, dict):
        kind = redact_text(answer.headers.get("Content-Type") or "no Content-Type")
        raise _unusable(f"expected a JSON object, came {kind}")
    try:
        access_token = check_secret(decoded.get("access_token"), "access_token", "")
    except errors.ConfigError as exc:
        raise _unusable(str(exc)) from exc
    texts = {name: value for name, value in decoded.items() if isinstance(value, str)}
    fields = {name: texts[name] for name in ("scope", "token_type", "id_token") if name in texts}
    return TokenAnswer(access_token, _lifetime(decoded.get("expires_in")), texts.get("refresh_token") or None, fields)


def _lifetime(value: Any) -> float:
    """``expires_in`` in seconds. It may be a string (GA); if it is missing, a short life is the safe guess."""
    if value is None:
        return _ASSUMED_LIFETIME_SECONDS
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if not isinstance(value, bool) and 0 < float(value) < math.inf:
            return float(value)
    raise _unusable("expires_in is no positive number: the token would be expired already")


def _unusable(what: str) -> errors.RefreshError:
    # The body is not quoted, because it may hold a token.
    what = f"{what.rstrip('.')}. {_CHECK_ENDPOINT}, or try again later."
    return errors.RefreshError(f"The token endpoint answered 200 without a usable token: {what}", code=200)


def _refusal(answer: Answer, decoded: Any, error: Mapping[str, Any], secrets: Collection[str]) -> errors.RefreshError:
    subtype = text_of(decoded.get("error_subtype")) if isinstance(decoded, dict) else None
    reason = redact_text(subtype or text_of(error.get("status")) or "", secrets) or None
    said = text_of(error.get("message")) or ("" if answer.status == 200 else answer.text)
    said = redacted_excerpt(said, secrets)
    step = _next_step(answer.status, reason)
    what = " ".join(filter(None, [str(answer.status), reason, f"({said})" if said not in ("", reason) else ""]))
    return errors.RefreshError(
        f"The token endpoint did not refresh the access token: {what}. {step}",
        code=answer.status,
        reason=reason,
        retry_after=retry_after_header(answer.headers.get("Retry-After")),
    )


def _next_step(code: int, reason: Optional[str]) -> str:
    if reason in _NEXT_STEP:
        return _NEXT_STEP[reason]
    if _may_pass(code, reason):
        return "Try again later."
    if reason is None:  # not even an answer of a token endpoint
        return f"{_CHECK_ENDPOINT}."
    return "Log in again, or check the OAuth client."


def _may_pass(code: int, reason: Optional[str]) -> bool:
    # A 200 that became an error held no usable token.
    return code in (200, 408, 429) or code >= 500 or reason in _TRANSIENT_REASONS


def _is_transient(error: errors.GeminiSyncError) -> bool:
    if not isinstance(error, errors.RefreshError) or error.reason in _NEXT_STEP:
        return False
    return _may_pass(error.code or 0, error.reason) or isinstance(error.__cause__, errors.TransportError)
