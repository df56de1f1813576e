"""Reads Google's error answers: a ``google.rpc.Status`` (https://aip.dev/193) becomes a typed error."""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Optional

from gemini_sync.config import LONGEST_SECONDS
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
from gemini_sync.messages.rest_json import list_of, text_of
from gemini_sync.redaction import one_line, redact_json, redact_text, redacted_excerpt

_MESSAGE_CHARACTERS = 10_000

# google.rpc.Code in numeric order, with the HTTP status each maps to (googleapis google/rpc/code.proto).
_RPC_CODES = (
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
)
_HTTP_OF_STATUS = dict(_RPC_CODES)

# The reason decides about the class first, then the HTTP code.
_BY_REASON: dict[str, type[ApiError]] = {
    "API_KEY_INVALID": AuthError,
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": AuthError,
}
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
    """The JSON value of a body, or None if it holds none.

    A refusal may be framed as the events would have been; no line of JSON begins with ``data:``.
    """
    block = re.split("\r\n\r\n|\n\n|\r\r", text, maxsplit=1)[0]
    data = [line[len("data:") :] for line in re.split("[\r\n]+", block) if line.startswith("data:")]
    try:
        return json.loads("\n".join(data) or text)
    except (ValueError, RecursionError):
        return None


def find_error(decoded: Any) -> Optional[dict[str, Any]]:
    """The google.rpc.Status in a decoded body, ``{"error": {…}}`` or the same in an array; None if there is none."""
    if isinstance(decoded, list):
        decoded = decoded[0] if decoded else None
    error = decoded.get("error") if isinstance(decoded, dict) else None
    if isinstance(error, str):  # the shape of the OAuth token endpoint (RFC 6749 section 5.2)
        return {"status": error, "message": text_of(decoded.get("error_description")) or error}
    return error if isinstance(error, dict) else None


def answer_error(status: int, headers: Mapping[str, str], text: str, secrets: Iterable[str]) -> Optional[ApiError]:
    """The error that a whole answer is, by its status or by its body; None if it is none."""
    decoded = decode_body(text)
    if status >= 400:
        return api_error(status, text if decoded is None else decoded, headers=headers, secrets=secrets)
    if find_error(decoded) is None:
        return None
    return api_error(None, decoded, headers=headers, secrets=secrets)


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
        code: the HTTP status; None if the error came inside a 200: then the body's own code counts.
        body: the text of the body, or the decoded JSON value.
        headers: the response headers, for ``Retry-After``.
        secrets: credentials that were sent; they are removed from the server's words.
        now: seconds since the epoch, for a ``Retry-After`` that is a date.
    """
    headers, secrets = headers or {}, tuple(secrets)
    try:
        decoded = redact_json(decode_body(body) if isinstance(body, str) else body, secrets)
    except RecursionError:  # nested deeper than Python's own stack
        decoded = None
    error = find_error(decoded) or {}
    code = code if code is not None else _code_in(error)
    details = tuple(d for d in list_of(error.get("details")) if isinstance(d, dict))
    info: Mapping[str, Any] = next(of_type(details, "ErrorInfo"), {})
    status, reason = text_of(error.get("status")), text_of(info.get("reason"))
    quoted = body if decoded is None and isinstance(body, str) else json.dumps(decoded)
    message = text_of(error.get("message")) or redacted_excerpt(quoted, secrets) or "no message"
    cls = _error_class(code, reason)
    link = _link(details, info)
    head = f"{code} {status or cls.__name__}" + (f" ({reason})" if reason else "")
    step = f"See {link}" if link else next_step(cls, reason, status, code)
    said = redacted_excerpt(message, secrets, _MESSAGE_CHARACTERS).rstrip(".")
    return cls(
        one_line(f"{head}: {said}. {step}"),
        code=code,
        status=status,
        reason=reason,
        details=details,
        retry_after=_first_hint(details, info, headers, message, now),
        link=link,
        trace_id=_trace_id(headers, secrets),
    )


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


def _code_in(error: Mapping[str, Any]) -> int:
    code = error.get("code")
    if isinstance(code, str) and re.fullmatch("[0-9]{1,3}", code):
        code = int(code)
    if isinstance(code, int) and 0 < code < len(_RPC_CODES):
        return _RPC_CODES[code][1]
    if isinstance(code, int) and 400 <= code < 600:
        return code
    return _HTTP_OF_STATUS.get(text_of(error.get("status")) or "", 500)


def quota_ids(error: GeminiSyncError) -> list[str]:
    """The ``quotaId`` of each violation in the error's QuotaFailure details."""
    violations = [v for d in of_type(error.details, "QuotaFailure") for v in list_of(d.get("violations"))]
    return [v["quotaId"] for v in violations if isinstance(v, dict) and isinstance(v.get("quotaId"), str)]


def of_type(details: Iterable[Mapping[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    """The details of one ``google.rpc`` type, such as ``"ErrorInfo"``."""
    return (dict(d) for d in details if str(d.get("@type", "")).endswith("google.rpc." + name))


def _link(details: Iterable[Mapping[str, Any]], info: Mapping[str, Any]) -> Optional[str]:
    links = [link for d in of_type(details, "Help") for link in list_of(d.get("links"))]
    urls = [link.get("url") for link in links if isinstance(link, dict)]
    metadata = info.get("metadata")
    urls += [metadata.get("validation_link"), metadata.get("appeal_url")] if isinstance(metadata, dict) else []
    return next(filter(None, map(text_of, urls)), None)


def _trace_id(headers: Mapping[str, str], secrets: Iterable[str]) -> Optional[str]:
    name = headers.get("x-cloudaicompanion-trace-id") or headers.get("x-goog-request-id") or ""
    return redact_text(name, secrets) or None


# How long the server asks to wait.

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)")
_DURATIONS = re.compile(rf"(?:{_DURATION.pattern})+")
_DURATION_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_HINT_IN_TEXT = re.compile(r"\b(?:retry in|after)\s+((?:\d+(?:\.\d+)?(?:ms|h|m|s))+)(?![\w])", re.IGNORECASE)


def _first_hint(
    details: Iterable[Mapping[str, Any]],
    info: Mapping[str, Any],
    headers: Mapping[str, str],
    message: str,
    now: Optional[float],
) -> Optional[float]:
    """The first delay hint in the order of Google's own clients: RetryInfo, header, ErrorInfo metadata, text."""
    metadata, in_text = info.get("metadata"), _HINT_IN_TEXT.search(message)
    hints = [
        *(_duration(retry_info.get("retryDelay")) for retry_info in of_type(details, "RetryInfo")),
        retry_after_header(headers.get("Retry-After"), now),
        _duration(metadata.get("quotaResetDelay")) if isinstance(metadata, dict) else None,
        _duration(in_text.group(1)) if in_text else None,
    ]
    return next((min(seconds, LONGEST_SECONDS) for seconds in hints if seconds is not None), None)


def _duration(value: Any) -> Optional[float]:
    """Seconds in a duration as Google writes it: ``"34.07s"``, ``"900ms"``, ``"1h2m3s"`` or ``{seconds, nanos}``."""
    if isinstance(value, dict):
        try:
            return max(0.0, float(value.get("seconds") or 0) + float(value.get("nanos") or 0) / 1e9)
        except (TypeError, ValueError, OverflowError):
            return None
    if not isinstance(value, str) or not _DURATIONS.fullmatch(value.strip()):
        return None
    return sum(float(number) * _DURATION_SECONDS[unit] for number, unit in _DURATION.findall(value))


def retry_after_header(value: Optional[str], now: Optional[float] = None) -> Optional[float]:
    """``Retry-After`` in seconds, from seconds or an HTTP date (RFC 9110 section 10.2.3); None for anything else."""
    if not value:
        return None
    value = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    try:
        at = calendar.timegm(parsedate_to_datetime(value).utctimetuple())  # a date without a zone is in UTC, too
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return min(max(0.0, at - (time.time() if now is None else now)), LONGEST_SECONDS)
