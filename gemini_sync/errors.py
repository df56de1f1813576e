"""The errors of this package, and ``Attempt``, the record of one try."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from gemini_sync.messages.reply import Reply

# The values of `reason` that several modules use.
BOUND_TO_OTHER_SERVICE = "BOUND_TO_OTHER_SERVICE"
CERTIFICATE_VERIFY_FAILED = "CERTIFICATE_VERIFY_FAILED"
PROXY_INVALID = "PROXY_INVALID"
PROXY_REFUSED = "PROXY_REFUSED"
SESSION_INVALID = "SESSION_INVALID"
TLS_FILE_INVALID = "TLS_FILE_INVALID"
SECURITY_POLICY_VIOLATED = "SECURITY_POLICY_VIOLATED"
UNREADABLE_ANSWER = "UNREADABLE_ANSWER"  # a good status, but no stream; it would come in the same way each time
VALIDATION_REQUIRED = "VALIDATION_REQUIRED"


@dataclass(frozen=True)
class Attempt:
    """One try on one route.

    Attributes:
        route: ``"oauth"`` or ``"api_key"``.
        started: seconds since the epoch.
        seconds: from its start to its first chunk or its failure.
        outcome: ``"answered"``, ``"failed"``, ``"interrupted"`` (after its first chunk) or ``"cancelled"``.
        error: why it failed, or None.
        retry_after: how long the server asked to wait, in seconds, or None.
        trace_id: the server's name for the request, or None.
    """

    route: str
    started: float
    seconds: float
    outcome: str
    error: Optional[BaseException] = None
    retry_after: Optional[float] = None
    trace_id: Optional[str] = None


class GeminiSyncError(Exception):
    """Base of every error this package raises; picklable as itself, its data kept as attributes.

    Attributes:
        code: HTTP status code (int) or None.
        status: google.rpc status name such as ``"RESOURCE_EXHAUSTED"``, or None.
        reason: machine-readable reason such as ``"QUOTA_EXHAUSTED"``, or None.
        details: the ``details`` of the google.rpc.Status, a tuple of dicts.
        retry_after: how long the server asks to wait, in seconds, or None.
        link: a page from Google that explains how to fix this, or None.
        trace_id: the server's name for the request, or None.
        route: ``"oauth"``, ``"api_key"`` or None.
        attempts: what was tried, a tuple of ``Attempt``.
        cancelled: True if ``cancel()`` or ``close()`` ended the call.
    """

    cancelled = False

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
        self.code, self.status, self.reason, self.details = code, status, reason, tuple(details)
        self.retry_after, self.link, self.trace_id, self.route = retry_after, link, trace_id, route
        self.attempts: tuple[Attempt, ...] = ()

    def __reduce__(self) -> Any:
        """What a copy and a pickle are made from: no traceback, causes included.

        Store a copy, not the original: a stored traceback keeps every caller's frame alive.
        """
        state = dict(self.__dict__)
        # A cause from requests, urllib3 or ssl may hold sockets; our own errors hold data only.
        if isinstance(self.__cause__, GeminiSyncError):
            state["__cause__"] = copy.copy(self.__cause__)
        return _rebuild, (type(self), self.args), state


def _rebuild(cls: type[GeminiSyncError], args: tuple[Any, ...]) -> GeminiSyncError:
    return cls.__new__(cls, *args)


class ConfigError(GeminiSyncError, ValueError):
    """An argument or a setting cannot be used; raised before any request if that is possible."""


class CredentialsError(GeminiSyncError):
    """The OAuth credentials are missing, unreadable or lack something."""


class RefreshError(CredentialsError):
    """The token endpoint gave no usable access token."""


class ApiError(GeminiSyncError):
    """The server answered with an error."""


class InvalidRequestError(ApiError):
    """400 and other errors that the caller has made."""


class AuthError(ApiError):
    """401, or an API key the server does not accept."""


class PermissionDeniedError(ApiError):
    """403, or an account that may not use the service."""


class NotFoundError(ApiError):
    """404: no such model on this route."""


class QuotaError(ApiError):
    """429, or 402 if the credit is used up."""


class ServerError(ApiError):
    """408, 499 and 5xx."""


class TransportError(GeminiSyncError):
    """The connection failed; ``reason`` is ``"CERTIFICATE_VERIFY_FAILED"`` if the server could not be trusted."""


class DeadlineExceeded(TransportError):
    """A deadline of ``Timeouts`` passed.

    Attributes:
        deadline: its name in ``Timeouts``: ``"connect"``, ``"first_token"``, ``"idle"`` or ``"total"``; or
            ``"answer"``, the fixed limit of a small request such as a refresh.
        seconds: how long it is.
    """

    def __init__(self, message: str, *, deadline: str, seconds: float) -> None:
        super().__init__(message)
        self.deadline, self.seconds = deadline, seconds


class ProtocolError(GeminiSyncError):
    """The server sent something that does not follow the protocol."""


class StreamInterrupted(GeminiSyncError):
    """The stream ended before the answer was complete; ``__cause__`` tells why.

    Attributes:
        partial: the ``Reply`` so far, or None if the call had not begun.
        cancelled: True if ``Reply.cancel()`` or ``close()`` of the adapter ended it.
    """

    def __init__(self, message: str, *, partial: Optional[Reply] = None, cancelled: bool = False) -> None:
        super().__init__(message)
        self.partial, self.cancelled = partial, cancelled


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
        self.partial, self.finish_message = partial, finish_message


class BlockedError(FinishReasonError):
    """Google refused the prompt or the answer; ``reason`` is the block reason or the finish reason."""


class EmptyResponseError(GeminiSyncError):
    """A complete stream carried no text, call, data or code; thoughts alone do not count.

    Attributes:
        partial: the ``Reply``.
    """

    def __init__(self, message: str, *, reason: Optional[str], partial: Reply) -> None:
        super().__init__(message, reason=reason)
        self.partial = partial


def cancelled_error() -> StreamInterrupted:
    return StreamInterrupted("The call was cancelled.", cancelled=True)


def ends_the_call(error: BaseException) -> bool:
    """True for an error of one caller alone: it cancelled the call, or its ``total`` deadline passed."""
    return isinstance(error, StreamInterrupted) or (isinstance(error, DeadlineExceeded) and error.deadline == "total")
