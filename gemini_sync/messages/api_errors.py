"""How Google's error answers become typed errors. They are a ``google.rpc.Status`` (https://aip.dev/193)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from gemini_sync.errors import (
    ApiError,
    AuthError,
    GeminiSyncError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    ServerError,
)
from gemini_sync.messages.delay_hints import first_hint
from gemini_sync.messages.rest_json import dict_of, int_of, list_of, of_type, text_of
from gemini_sync.redaction import one_line, redact_json, redact_text, redacted_excerpt

_MESSAGE_CHARACTERS = 10_000
_PACKED_ERRORS = 10
_NAME = re.compile("[A-Za-z][A-Za-z0-9_.-]*")
_decoder = json.JSONDecoder()

# The values of google.rpc.Code in numeric order, each with its HTTP status (googleapis google/rpc/code.proto).
_HTTP_OF_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}

# The reason decides the class. If it is not here, the HTTP code decides.
_BY_REASON: dict[str, type[ApiError]] = {"API_KEY_INVALID": AuthError, "ACCESS_TOKEN_TYPE_UNSUPPORTED": AuthError}
_BY_CODE: dict[int, type[ApiError]] = {
    401: AuthError,
    402: QuotaError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ServerError,
    429: QuotaError,
    499: ServerError,
}
_NEXT_STEP: dict[type[ApiError], str] = {
    InvalidRequestError: "Change the request.",
    AuthError: "Check the API key; for OAuth, get another access token or log in again.",
    PermissionDeniedError: "Check what this account or key may use.",
    NotFoundError: "Check the model name, the other names in the request, and the endpoint.",
    QuotaError: "Wait, raise the quota, or use another model.",
    ServerError: "Try again later.",
    ApiError: "",
}
_BUY_CREDIT = "Buy credit, or use another account or key."
# A reason, a status name or an HTTP code that wants another step than its class.
_STEP_FOR: dict[object, str] = {
    "API_KEY_INVALID": "Check the API key.",
    "INSUFFICIENT_G1_CREDITS_BALANCE": _BUY_CREDIT,
    "FAILED_PRECONDITION": "Change the request, or check what this account or key may use.",
    402: _BUY_CREDIT,
    405: "Check the endpoint.",
    407: "Check the user and password of the proxy.",
}


def decode_body(text: str) -> Any:
    """The JSON value of a body, or None if the body is no JSON.

    The body of an error may be an event of an event stream. No line of JSON begins with ``data:``.
    """
    block = re.split("\r\n\r\n|\n\n|\r\r", text, maxsplit=1)[0]
    data = [line[len("data:") :] for line in re.split("[\r\n]+", block) if line.startswith("data:")]
    try:
        return json.loads("\n".join(data) or text)
    except (ValueError, RecursionError):
        return None


def find_error(decoded: Any) -> Optional[dict[str, Any]]:
    """The google.rpc.Status in a decoded body, or None.

    The body is ``{"error": {…}}``, an array of that, that under ``"response"``, or a bare status. If ``error`` is empty
    and the body holds something else, it reports none.
    """
    if isinstance(decoded, list):
        decoded = decoded[0] if decoded else None
    body = dict_of(decoded)
    error = body.get("error")
    if isinstance(error, str) and error:  # the OAuth token endpoint answers in this form (RFC 6749 section 5.2)
        described = text_of(body.get("error_description")) or error
        return {"status": error, "message": described} if _NAME.fullmatch(error) else {"message": described}
    if isinstance(error, dict) and (error or len(body) == 1):
        return error
    inner = body.get("response")
    if isinstance(inner, dict) and inner.get("error"):
        return find_error({"error": inner["error"]})
    is_status = isinstance(body.get("message"), str) and _code_named(body) is not None
    return body if is_status and "candidates" not in body else None


def _innermost(error: dict[str, Any]) -> dict[str, Any]:
    """``error`` with what an error says that its message holds as JSON text. Gateways pack one into another."""
    for _ in range(_PACKED_ERRORS):
        message = text_of(error.get("message")) or ""
        start = message.find("{")
        if start < 0:
            break
        try:
            packed, _end = _decoder.raw_decode(message, start)
        except (ValueError, RecursionError):
            break
        inner = find_error(packed)
        if not inner:
            break
        code = _code_named(inner)
        own = {name: value for name, value in error.items() if name not in ("code", "status")} if code else error
        error = {**own, "message": one_line(message[:start]), **{name: value for name, value in inner.items() if value}}
    return error


def answer_error(status: int, headers: Mapping[str, str], text: str, secrets: Iterable[str]) -> Optional[ApiError]:
    """The error that a whole answer reports by its status or in its body, or None if it reports none."""
    if status < 400 and find_error(decode_body(text)) is None:
        return None
    return api_error(status if status >= 400 else None, text, headers=headers, secrets=secrets)


def api_error(
    code: Optional[int],
    body: Any,
    *,
    headers: Optional[Mapping[str, str]] = None,
    secrets: Iterable[str] = (),
    now: Optional[float] = None,
) -> ApiError:
    """The typed error for an error answer.

    Args:
        code: the HTTP status, or None if the error came inside a 200. Then the code in the body counts.
        body: the text of the body, or its decoded JSON value.
        headers: the response headers. ``Retry-After`` and the names of the request are read from them.
        secrets: the credentials that were sent. They are removed from the server's text.
        now: the time in seconds since the epoch. A ``Retry-After`` that is a date is compared to it.
    """
    headers, secrets = headers or {}, tuple(secrets)
    decoded = decode_body(body) if isinstance(body, str) else body
    outer = find_error(decoded) or {}
    try:  # unpack first: redacting would break the JSON text in a message
        error = redact_json(_innermost(outer), secrets)
        decoded = redact_json(decoded, secrets)
    except RecursionError:  # nested deeper than Python's own stack
        error, decoded = {}, None
    if code is None or (error.get("code"), error.get("status")) != (outer.get("code"), outer.get("status")):
        code = _code_named(error) or code or 500
    details = tuple(d for d in list_of(error.get("details")) if isinstance(d, dict))
    info: Mapping[str, Any] = next(of_type(details, "ErrorInfo"), {})
    status, reason = _status_name(error), text_of(info.get("reason"))
    quoted = body if decoded is None and isinstance(body, str) else json.dumps(decoded)
    message = text_of(error.get("message")) or redacted_excerpt(quoted, secrets) or "no message"
    cls = _error_class(code, reason)
    link = _link(details, info)
    head = f"{code} {status or cls.__name__}" + (f" ({reason})" if reason else "")
    step = f"See {link}" if link else next_step(cls, reason, status, code)
    said = redacted_excerpt(message, secrets, _MESSAGE_CHARACTERS).rstrip(".")
    trace_id = headers.get("x-cloudaicompanion-trace-id") or headers.get("x-goog-request-id") or ""
    return cls(
        one_line(f"{head}: {said}. {step}"),
        code=code,
        status=status,
        reason=reason,
        details=details,
        retry_after=first_hint(details, info, headers, message, now),
        link=link,
        trace_id=redact_text(trace_id, secrets) or None,
    )


def replace_next_step(error: ApiError, step: str) -> None:
    """Put ``step`` in the place of the general next step at the end of the message."""
    step_before = next_step(type(error), error.reason, error.status, error.code)
    error.args = (f"{str(error).removesuffix(step_before).rstrip()} {step}",)


def next_step(cls: type[ApiError], *signs: object) -> str:
    """What a person can do about an error; ``signs`` are its reason, status name and HTTP code."""
    return next(filter(None, map(_STEP_FOR.get, signs)), _NEXT_STEP[cls])


def _error_class(code: int, reason: Optional[str]) -> type[ApiError]:
    if reason in _BY_REASON:
        return _BY_REASON[reason]
    if code in _BY_CODE:
        return _BY_CODE[code]
    if 400 <= code < 500:
        return InvalidRequestError
    return ServerError if code >= 500 else ApiError


def _code_named(error: Mapping[str, Any]) -> Optional[int]:
    """The HTTP status that a google.rpc.Status means. Its code and its status may each be a number or a name."""
    for value in (error.get("code"), error.get("status")):
        number = int_of(value)
        if number is not None and 0 < number < len(_HTTP_OF_STATUS):
            return [*_HTTP_OF_STATUS.values()][number]
        if number is not None and 400 <= number < 600:
            return number
        name = (text_of(value) or "").upper()
        if name in _HTTP_OF_STATUS and name != "OK":
            return _HTTP_OF_STATUS[name]
    return None


def _status_name(error: Mapping[str, Any]) -> Optional[str]:
    """The name of an error's status, which may stand in its ``code``."""
    names = [text_of(error.get(field)) for field in ("status", "code")]
    name = next((name for name in names if name and int_of(name) is None), None)
    return name.upper() if name and name.upper() in _HTTP_OF_STATUS else name


def quota_ids(error: GeminiSyncError) -> list[str]:
    """The ``quotaId`` of each violation in the error's QuotaFailure details."""
    violations = [v for d in of_type(error.details, "QuotaFailure") for v in list_of(d.get("violations"))]
    return [v["quotaId"] for v in violations if isinstance(v, dict) and isinstance(v.get("quotaId"), str)]


def _link(details: Iterable[Mapping[str, Any]], info: Mapping[str, Any]) -> Optional[str]:
    links = [link for d in of_type(details, "Help") for link in list_of(d.get("links"))]
    metadata = dict_of(info.get("metadata"))
    urls = [*(dict_of(link).get("url") for link in links), metadata.get("validation_link"), metadata.get("appeal_url")]
    return next(filter(None, map(text_of, urls)), None)
