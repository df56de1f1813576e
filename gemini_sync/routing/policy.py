"""Knows which failure leads to which decision, as a table to read; knows neither routes' state nor the network."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import NamedTuple

from gemini_sync.config import Retry
from gemini_sync.errors import (
    CERTIFICATE_VERIFY_FAILED,
    PROXY_INVALID,
    SECURITY_POLICY_VIOLATED,
    SESSION_INVALID,
    VALIDATION_REQUIRED,
    ApiError,
    AuthError,
    ConfigError,
    CredentialsError,
    DeadlineExceeded,
    EmptyResponseError,
    FinishReasonError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaError,
    ServerError,
    StreamInterrupted,
    TransportError,
)
from gemini_sync.messages.api_errors import quota_ids

WAIT_LIMIT_SECONDS = Retry.wait_limit

# After these the account itself is at stake: the route is not tried again, whatever is repaired.
ACCOUNT_SAFETY_REASONS = frozenset({"TOS_VIOLATION", "UNSUPPORTED_CLIENT", VALIDATION_REQUIRED})
_LONG_QUOTA_REASONS = frozenset({"QUOTA_EXHAUSTED", "INSUFFICIENT_G1_CREDITS_BALANCE"})
_NO_QUOTA_AT_ALL = re.compile(r"\blimit: 0(?!\.?\d)")


class Decision(enum.Enum):
    """What to do about a failure on the OAuth route before the first chunk; after it, what the next call does."""

    RETRY = "retry"
    FALL_BACK = "fall back"
    FALL_BACK_MODEL = "fall back for this model"
    SURFACE = "surface"

    def __str__(self) -> str:
        return self.value


class Rule(NamedTuple):
    """One row of the table: the first rule whose ``matches`` says yes decides.

    Attributes:
        name: a short stable name.
        what: what happened, in words.
        decision: what is done.
        why: the reason for that.
    """

    name: str
    what: str
    matches: Callable[[BaseException], bool]
    decision: Decision
    why: str


class Explanation(NamedTuple):
    """Which rule an error met; ``str()`` of it is a sentence."""

    decision: Decision
    rule: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.decision}: rule {self.rule!r} ({self.what}): {self.why}"


def _is(*classes: type[BaseException]) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, classes)


def _reason(*reasons: str) -> Callable[[BaseException], bool]:
    return lambda error: getattr(error, "reason", None) in reasons


def _deadline(*names: str) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, DeadlineExceeded) and error.deadline in names


def _quota_used_up(error: BaseException) -> bool:
    return isinstance(error, QuotaError) and (
        error.code == 402
        or error.reason in _LONG_QUOTA_REASONS
        or any("perday" in quota.lower() or "daily" in quota.lower() for quota in quota_ids(error))
        or _NO_QUOTA_AT_ALL.search(str(error)) is not None
    )


_LONG_HINT = Rule(
    "long-hint",
    f"the server asks for a longer wait than Retry.wait_limit ({WAIT_LIMIT_SECONDS:g} s by default)",
    lambda error: False,  # decide() compares, for the limit is the caller's setting
    Decision.FALL_BACK,
    "the other route can answer sooner.",
)

RULES: tuple[Rule, ...] = (
    Rule(
        "cancelled",
        "cancel() ended the call",
        lambda error: isinstance(error, StreamInterrupted) and error.cancelled,
        Decision.SURFACE,
        "the caller wants it over.",
    ),
    Rule(
        "setting",
        "a proxy that is no URL, a session_factory that makes no session",
        _reason(PROXY_INVALID, SESSION_INVALID),
        Decision.SURFACE,
        "the other route needs it as well.",
    ),
    Rule(
        "credentials",
        "credentials file missing, unreadable, corrupt or incomplete; refresh refused or failed for good; "
        "no project; no OAuth client",
        _is(CredentialsError, ConfigError),
        Decision.FALL_BACK,
        "no other try on this route can mend that (a refresh has been retried before).",
    ),
    Rule(
        "perimeter",
        "403 SECURITY_POLICY_VIOLATED",
        _reason(SECURITY_POLICY_VIOLATED),
        Decision.SURFACE,
        "another credential would bypass a security perimeter.",
    ),
    Rule(
        "account",
        "account ineligible, validation required, unsupported client, terms of service",
        _reason(*sorted(ACCOUNT_SAFETY_REASONS)),
        Decision.FALL_BACK,
        "this account cannot use the route; the link Google gives stands on the error.",
    ),
    Rule("auth", "401", _is(AuthError), Decision.FALL_BACK, "one refresh and one replay have not helped."),
    Rule("permission", "403", _is(PermissionDeniedError), Decision.FALL_BACK, "it stays forbidden on this route."),
    Rule("model", "404", _is(NotFoundError), Decision.FALL_BACK_MODEL, "only this model is not served here."),
    Rule(
        "quota-used-up",
        "429 with QUOTA_EXHAUSTED, a per-day quota or 'limit: 0'; 402 or credits used up",
        _quota_used_up,
        Decision.FALL_BACK,
        "waiting does not help today.",
    ),
    _LONG_HINT,
    Rule(
        "rate",
        "429 with a short hint or none; MODEL_CAPACITY_EXHAUSTED",
        _is(QuotaError),
        Decision.RETRY,
        "it passes within seconds.",
    ),
    Rule("server", "408, 499, 5xx", _is(ServerError), Decision.RETRY, "it is mostly over at the next try."),
    Rule(
        "request",
        "400 and other errors of the caller's making",
        _is(InvalidRequestError),
        Decision.SURFACE,
        "the other route would refuse it as well.",
    ),
    Rule("other-answer", "any other status", _is(ApiError), Decision.SURFACE, "nobody knows what it means."),
    Rule(
        "certificate",
        "certificate verification",
        _reason(CERTIFICATE_VERIFY_FAILED),
        Decision.SURFACE,
        "it is a security signal.",
    ),
    Rule("total", "total deadline", _deadline("total"), Decision.SURFACE, "the caller's time is spent."),
    Rule(
        "first-token",
        "first_token deadline, or the fixed limit of a small request",
        _deadline("first_token", "answer"),
        Decision.FALL_BACK,
        "another such wait on this route would cost too much.",
    ),
    Rule(
        "connection",
        "connection, TLS handshake, connect and idle deadlines",
        _is(TransportError),
        Decision.RETRY,
        "networks fail briefly.",
    ),
    Rule(
        "redirect",
        "3xx",
        lambda error: isinstance(error, ProtocolError) and error.code is not None and 300 <= error.code < 400,
        Decision.SURFACE,
        "credentials are not sent to where a redirect points.",
    ),
    Rule(
        "malformed",
        "malformed, empty or truncated stream",
        _is(ProtocolError, StreamInterrupted),
        Decision.RETRY,
        "a proxy's or server's hiccup.",
    ),
    Rule(
        "verdict",
        "finish and block reasons, empty answers",
        _is(FinishReasonError, EmptyResponseError),
        Decision.SURFACE,
        "the model has answered.",
    ),
    Rule(
        "interrupt",
        "KeyboardInterrupt, GeneratorExit and whatever is not an error of this package",
        _is(BaseException),
        Decision.SURFACE,
        "it is not the route's failure.",
    ),
)


def explain(error: BaseException, *, wait_limit: float = WAIT_LIMIT_SECONDS) -> Explanation:
    """Which rule decides about ``error``, and why.

    Args:
        error: what a call raised, or the cause of what it raised.
        wait_limit: the longest hint that is waited for, in seconds (``Retry.wait_limit``).
    """
    if isinstance(error, StreamInterrupted) and not error.cancelled and isinstance(error.__cause__, Exception):
        error = error.__cause__
    rule = next(rule for rule in RULES if rule.matches(error))
    hint = getattr(error, "retry_after", None)
    if rule.decision is Decision.RETRY and hint is not None and hint > wait_limit:
        rule = _LONG_HINT
    return Explanation(rule.decision, rule.name, rule.what, rule.why)


def decide(error: BaseException, *, wait_limit: float = WAIT_LIMIT_SECONDS) -> Decision:
    """The default policy; see ``explain`` for the arguments. On the API-key route every flip surfaces instead."""
    return explain(error, wait_limit=wait_limit).decision
