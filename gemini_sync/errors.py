"""Knows the errors of this package and how Google spells a failure; knows nothing of routes, retries or the network."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from gemini_sync.details import first_hint, list_of, of_type, text_of
from gemini_sync.scrub import one_line, scrub, scrubbed, snippet

if TYPE_CHECKING:
    from gemini_sync.reply import Attempt, Reply


_MESSAGE_CHARACTERS = 10_000

_Self = TypeVar("_Self", bound="GeminiSyncError")


class GeminiSyncError(Exception):
    """Base of every error this package raises; picklable as itself, its data kept as attributes.

    Attributes:
        code: HTTP status code (int) or None.
        status: google.rpc status name such as ``"RESOURCE_EXHAUSTED"``, or None.
        reason: machine-readable reason such as ``"QUOTA_EXHAUSTED"``, or None.
        details: the ``details`` of the google.rpc.Status, a tuple of dicts.
        retry_after: how long the server asks to wait, in seconds, or None.
        link: the page Google names for mending this, or None.
        trace_id: the server's name for the request, or None.
        route: ``"oauth"``, ``"api_key"`` or None.
        attempts: what was tried before, a tuple of ``Attempt``.
    """

    def __init__(
        self,
        message: str = "",
        *,
        code: Optional[int] = None,
        status: Optional[str] = None,
        reason: Optional[str] = None,
        details: Iterable[Mapping[str, Any]] = (),
        retry_after: Optional[float] = None,
        link: Optional[str] = None,
        trace_id: Optional[str] = None,
        route: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.reason = reason
        self.details = tuple(details)
        self.retry_after = retry_after
        self.link = link
        self.trace_id = trace_id
        self.route = route
        self.attempts: tuple[Attempt, ...] = ()

    def __reduce__(self) -> Any:
        state = dict(self.__dict__)
        # A foreign cause (of requests, urllib3, ssl) may hold sockets; ours are data.
        if isinstance(self.__cause__, GeminiSyncError):
            state["__cause__"] = self.__cause__
        return _rebuild, (type(self), self.args), state

    def __copy__(self: _Self) -> _Self:
        """The same without tracebacks, its causes alike: to be kept, where those would keep the frames of callers."""
        copied = _rebuild(type(self), self.args)
        copied.__dict__.update(self.__dict__)
        if isinstance(self.__cause__, GeminiSyncError):
            copied.__cause__ = copy.copy(self.__cause__)
        return copied


def _rebuild(cls: type[_Self], args: tuple[Any, ...]) -> _Self:
    return cls.__new__(cls, *args)


class ConfigError(GeminiSyncError, ValueError):
    """An argument or a setting cannot be used; raised before any request where that can be."""


class CredentialsError(GeminiSyncError):
    """The OAuth credentials are missing, unreadable or lack something."""


class RefreshError(CredentialsError):
    """The token endpoint gave no usable access token."""


class ApiError(GeminiSyncError):
    """The server answered with an error."""


class InvalidRequestError(ApiError):
    """400 and other errors of the caller's making."""


class AuthError(ApiError):
    """401, or an API key the server does not accept."""


class PermissionDeniedError(ApiError):
    """403, or an account that may not use the service."""


class NotFoundError(ApiError):
    """404: no such model on this route."""


class QuotaError(ApiError):
    """429, or 402 where credit is used up."""


class ServerError(ApiError):
    """408, 499 and 5xx."""


class TransportError(GeminiSyncError):
    """The connection failed; ``reason`` is ``"CERTIFICATE_VERIFY_FAILED"`` where the peer could not be trusted."""


class DeadlineExceeded(TransportError):
    """A deadline of ``Timeouts`` passed.

    Attributes:
        deadline: which one, a field name of ``Timeouts``: ``"connect"``, ``"first_token"``, ``"idle"`` or ``"total"``.
        seconds: how long it was, in seconds.
    """

    def __init__(self, message: str, *, deadline: str, seconds: float) -> None:
        super().__init__(message)
        self.deadline = deadline
        self.seconds = seconds


class ProtocolError(GeminiSyncError):
    """The server answered something that is not the protocol."""


class StreamInterrupted(GeminiSyncError):
    """The stream ended before the answer was complete; its cause is ``__cause__``.

    Attributes:
        partial: the ``Reply`` so far (None where nothing had been opened).
        cancelled: True when ``Reply.cancel()`` (or closing the adapter) ended it.
    """

    def __init__(self, message: str, *, partial: Optional[Reply] = None, cancelled: bool = False) -> None:
        super().__init__(message)
        self.partial = partial
        self.cancelled = cancelled


class FinishReasonError(GeminiSyncError):
    """The model ended the answer with a failure; ``reason`` is the finish reason.

    Attributes:
        partial: the ``Reply`` so far.
        finish_message: the server's explanation, or None.
    """

    def __init__(
        self, message: str, *, reason: Optional[str], partial: Reply, finish_message: Optional[str] = None
    ) -> None:
        super().__init__(message, reason=reason)
        self.partial = partial
        self.finish_message = finish_message


class BlockedError(FinishReasonError):
    """The prompt or the answer was refused; ``reason`` is the block or finish reason."""


class EmptyResponseError(GeminiSyncError):
    """A complete stream carried no text, call, data or code; thoughts alone are empty.

    Attributes:
        partial: the ``Reply``.
    """

    def __init__(self, message: str, *, reason: Optional[str], partial: Reply) -> None:
        super().__init__(message, reason=reason)
        self.partial = partial


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

# From the reason (first) or the HTTP code to the class and the next step; the one place that says so.
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
    AuthError: "Check the API key or log in again.",
    PermissionDeniedError: "Check what this account or key may use.",
    NotFoundError: "Check the model name.",
    QuotaError: "Wait, or raise the quota.",
    ServerError: "Try again later.",
    ApiError: "",
}


def _error_class(code: int, reason: Optional[str]) -> type[ApiError]:
    if reason in _BY_REASON:
        return _BY_REASON[reason]
    if code in _BY_CODE:
        return _BY_CODE[code]
    if 400 <= code < 500:
        return InvalidRequestError
    return ServerError if code >= 500 else ApiError


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
        code: the HTTP status; None when the error came inside a 200, then the body's own code counts.
        body: the text of the body, or the decoded JSON value.
        headers: the response headers, for ``Retry-After``.
        secrets: credentials that were sent, removed from whatever the server echoes.
        now: seconds since the epoch, for a ``Retry-After`` that is a date.
    """
    secrets = tuple(secrets)
    try:
        decoded = scrubbed(json.loads(body) if isinstance(body, str) else body, secrets)
    except (ValueError, RecursionError):
        decoded = None
    error = find_error(decoded) or {}
    code = code if code is not None else _code_in(error)
    details = tuple(d for d in list_of(error.get("details")) if isinstance(d, dict))
    status, info = text_of(error.get("status")), next(of_type(details, "ErrorInfo"), {})
    quoted = body if decoded is None and isinstance(body, str) else json.dumps(decoded)
    reason, message = (
        text_of(info.get("reason")),
        text_of(error.get("message")) or snippet(quoted, secrets) or "no message",
    )
    cls = _error_class(code, reason)
    link = _link(details, info)
    head = f"{code} {status or cls.__name__}" + (f" ({reason})" if reason else "")
    next_step = f"See {link}" if link else _NEXT_STEP[cls]
    said = snippet(message, secrets, _MESSAGE_CHARACTERS).rstrip(".")
    return cls(
        one_line(f"{head}: {said}. {next_step}"),
        code=code,
        status=status,
        reason=reason,
        details=details,
        retry_after=first_hint(details, info, headers or {}, message, now),
        link=link,
        trace_id=_trace_id(headers or {}, secrets),
    )


def find_error(decoded: Any) -> Optional[dict[str, Any]]:
    """The google.rpc.Status in a decoded body: ``{"error": {…}}`` or the same in an array; None where there is none."""
    if isinstance(decoded, list):
        decoded = decoded[0] if decoded else None
    error = decoded.get("error") if isinstance(decoded, dict) else None
    if isinstance(error, str):  # the shape of the OAuth token endpoint (RFC 6749 section 5.2)
        return {"status": error, "message": text_of(decoded.get("error_description")) or error}
    return error if isinstance(error, dict) else None


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


def _link(details: Iterable[Mapping[str, Any]], info: Mapping[str, Any]) -> Optional[str]:
    links = [link for d in of_type(details, "Help") for link in list_of(d.get("links"))]
    urls = [link.get("url") for link in links if isinstance(link, dict)]
    metadata = info.get("metadata")
    urls += [metadata.get("validation_link"), metadata.get("appeal_url")] if isinstance(metadata, dict) else []
    return next(filter(None, map(text_of, urls)), None)


def _trace_id(headers: Mapping[str, str], secrets: Iterable[str]) -> Optional[str]:
    return scrub(headers.get("x-cloudaicompanion-trace-id") or headers.get("x-goog-request-id") or "", secrets) or None
