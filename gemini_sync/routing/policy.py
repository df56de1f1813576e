"""The table of decisions: what is done about a failure, and why."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from typing import NamedTuple

from gemini_sync import errors
from gemini_sync.config import Retry
from gemini_sync.messages.api_errors import quota_ids

WAIT_LIMIT_SECONDS = Retry.wait_limit

# After these the account itself is at stake. OAuth is not tried again, even if something is repaired.
ACCOUNT_SAFETY_REASONS = frozenset({"TOS_VIOLATION", "UNSUPPORTED_CLIENT", errors.VALIDATION_REQUIRED})
_SETTING_REASONS = (errors.PROXY_INVALID, errors.PROXY_REFUSED, errors.SESSION_INVALID, errors.TLS_FILE_INVALID)
_CAPACITY_REASONS = frozenset({"MODEL_CAPACITY_EXHAUSTED", "MODEL_CAPACITY_EXCEEDED"})
_CAPACITY_TRIES = 3  # the first and two more; GC makes at most two or three
_LONG_QUOTA_REASONS = frozenset({"QUOTA_EXHAUSTED", "INSUFFICIENT_G1_CREDITS_BALANCE"})
_NO_QUOTA_AT_ALL = re.compile(r"\blimit: 0(?!\.?\d)")

# Code Assist says the same about quotas and rates with 429, 499 and 503, so a reason counts with each of them (GC).
_OVERLOADED = (errors.QuotaError, errors.ServerError)

# Takes an error, and the longest wait that the caller accepts, in seconds.
_Test = Callable[[BaseException, float], bool]


class Decision(enum.Enum):
    """What to do about a failure on the OAuth route before the first chunk; after it, what the next call does."""

    RETRY = "retry"
    FALL_BACK = "fall back"
    FALL_BACK_MODEL = "fall back for this model"
    SURFACE = "surface"

    def __str__(self) -> str:
        return self.value


class Explanation(NamedTuple):
    """One row of the table: what is done about a failure, and why. ``str()`` of it is a sentence.

    Attributes:
        decision: what is done.
        rule: a short stable name.
        what: what happened, in words.
        why: the reason for the decision.
        at_last: what is done after the last try, if the decision is to retry.
    """

    decision: Decision
    rule: str
    what: str
    why: str
    at_last: Decision = Decision.FALL_BACK

    def __str__(self) -> str:
        return f"{in_words(self.decision, self.at_last)}: rule {self.rule!r} ({self.what}): {self.why}"


def in_words(decision: Decision, at_last: Decision) -> str:
    """What is done, and if it is to retry, also what is done after the last try."""
    return f"{decision}, then {at_last}" if decision is Decision.RETRY else str(decision)


def _is(*classes: type[BaseException]) -> _Test:
    return lambda error, wait_limit: isinstance(error, classes)


def _reason(*reasons: str) -> _Test:
    return lambda error, wait_limit: getattr(error, "reason", None) in reasons


def _deadline(*names: str) -> _Test:
    return lambda error, wait_limit: isinstance(error, errors.DeadlineExceeded) and error.deadline in names


def _cancelled(error: BaseException, wait_limit: float) -> bool:
    return isinstance(error, errors.StreamInterrupted) and error.cancelled


def _no_capacity(error: BaseException, wait_limit: float) -> bool:
    return isinstance(error, _OVERLOADED) and error.reason in _CAPACITY_REASONS


def _rate_without_hint(error: BaseException, wait_limit: float) -> bool:
    return isinstance(error, _OVERLOADED) and error.reason == "RATE_LIMIT_EXCEEDED" and error.retry_after is None


def _quota_used_up(error: BaseException, wait_limit: float) -> bool:
    return isinstance(error, _OVERLOADED) and (
        error.code == 402
        or error.reason in _LONG_QUOTA_REASONS
        or any("perday" in quota.lower() or "daily" in quota.lower() for quota in quota_ids(error))
        or _NO_QUOTA_AT_ALL.search(str(error)) is not None
    )


def _long_hint(error: BaseException, wait_limit: float) -> bool:
    return isinstance(error, _OVERLOADED) and (error.retry_after or 0) > wait_limit


def _redirect(error: BaseException, wait_limit: float) -> bool:
    return isinstance(error, errors.ProtocolError) and error.code is not None and 300 <= error.code < 400


def _rule(
    rule: str, fits: _Test, decision: Decision, what: str, why: str, at_last: Decision = Decision.FALL_BACK
) -> tuple[_Test, Explanation]:
    return fits, Explanation(decision, rule, what, why, at_last)


# The first row whose test fits an error decides.
RULES: tuple[tuple[_Test, Explanation], ...] = (
    _rule("cancelled", _cancelled, Decision.SURFACE,
          "cancel() ended the call",
          "the caller wants it over."),
    _rule("setting", _reason(*_SETTING_REASONS), Decision.SURFACE,
          "a proxy that is no URL, of an unknown scheme, or without its library; a proxy that refuses the connection "
          "(407, or CONNECT refused); a CA bundle or client certificate that is missing or unusable; a session_factory "
          "that makes no session",
          "the other route needs it as well."),
    _rule("bound", _reason(errors.BOUND_TO_OTHER_SERVICE), Decision.SURFACE,
          "a file or a cached content of another service",
          "the request has to change; the route itself works."),
    _rule("credentials", _is(errors.CredentialsError, errors.ConfigError), Decision.FALL_BACK,
          "credentials file missing, unreadable, corrupt or incomplete; refresh refused or failed for good; "
          "no project; no OAuth client",
          "another try on this route cannot help; a refresh has been retried before."),
    _rule("perimeter", _reason(errors.SECURITY_POLICY_VIOLATED), Decision.SURFACE,
          "403 SECURITY_POLICY_VIOLATED",
          "another credential would bypass a security perimeter."),
    _rule("account", _reason(*ACCOUNT_SAFETY_REASONS), Decision.FALL_BACK,
          "account ineligible, validation required, unsupported client, terms of service",
          "this account cannot use the route; the error has Google's link, if there is one."),
    _rule("auth", _is(errors.AuthError), Decision.FALL_BACK,
          "401",
          "a refresh and another try have not helped."),
    _rule("permission", _is(errors.PermissionDeniedError), Decision.FALL_BACK,
          "403",
          "it stays forbidden on this route."),
    _rule("model", _is(errors.NotFoundError), Decision.FALL_BACK_MODEL,
          "404",
          "only this model is not served here."),
    _rule("capacity", _no_capacity, Decision.RETRY,
          "MODEL_CAPACITY_EXHAUSTED or MODEL_CAPACITY_EXCEEDED, with 429, 499 or 503 alike: at most two tries more",
          "only this model is overloaded, mostly for longer than a call waits.",
          Decision.FALL_BACK_MODEL),
    _rule("quota-used-up", _quota_used_up, Decision.FALL_BACK,
          "QUOTA_EXHAUSTED, a per-day quota or 'limit: 0', with 429, 499 or 503 alike; 402 or credits used up",
          "waiting does not help today."),
    _rule("long-hint", _long_hint, Decision.FALL_BACK,
          f"the server asks for a longer wait than Retry.wait_limit ({WAIT_LIMIT_SECONDS:g} s by default)",
          "the other route can answer sooner."),
    _rule("rate-without-hint", _rate_without_hint, Decision.FALL_BACK,
          "RATE_LIMIT_EXCEEDED without a hint, with 429, 499 or 503 alike",
          "the server names no time after which another try is worth it."),
    _rule("rate", _is(errors.QuotaError), Decision.RETRY,
          "429 with a short hint, or with neither a reason nor a hint",
          "it passes within seconds."),
    _rule("server", _is(errors.ServerError), Decision.RETRY,
          "408, 499, 5xx",
          "the next try mostly succeeds."),
    _rule("request", _is(errors.InvalidRequestError), Decision.SURFACE,
          "400 and other errors of the caller's making",
          "the other route would refuse it as well."),
    _rule("other-answer", _is(errors.ApiError), Decision.SURFACE,
          "any other status",
          "its meaning is not known."),
    _rule("certificate", _reason(errors.CERTIFICATE_VERIFY_FAILED), Decision.SURFACE,
          "certificate verification",
          "it is a security signal."),
    _rule("total", _deadline("total"), Decision.SURFACE,
          "total deadline",
          "the caller's time is spent."),
    _rule("first-token", _deadline("first_token", "answer"), Decision.FALL_BACK,
          "first_token deadline, or the fixed limit of a small request",
          "another wait as long would cost too much."),
    _rule("connection", _is(errors.TransportError), Decision.RETRY,
          "connection, TLS handshake, connect and idle deadlines",
          "networks fail briefly."),
    _rule("redirect", _redirect, Decision.SURFACE,
          "3xx",
          "credentials are never sent to the target of a redirect."),
    _rule("unreadable", _reason(errors.UNREADABLE_ANSWER), Decision.FALL_BACK,
          "a 200 in a format that is none of the service's",
          "it would come the same way again."),
    _rule("malformed", _is(errors.ProtocolError, errors.StreamInterrupted), Decision.RETRY,
          "malformed, empty or truncated stream",
          "a proxy or a server failed briefly."),
    _rule("verdict", _is(errors.FinishReasonError, errors.EmptyResponseError), Decision.SURFACE,
          "finish and block reasons, empty answers",
          "the model has answered."),
    _rule("interrupt", _is(BaseException), Decision.SURFACE,
          "KeyboardInterrupt, GeneratorExit and every error that is not of this package",
          "the route did not cause it."),
)  # fmt: skip


def explain(error: BaseException, *, wait_limit: float = WAIT_LIMIT_SECONDS) -> Explanation:
    """Which rule decides about ``error``, and why.

    Args:
        error: what a call raised, or the cause of what it raised.
        wait_limit: the longest hint that is waited for, in seconds (``Retry.wait_limit``).
    """
    if isinstance(error, errors.StreamInterrupted) and not error.cancelled and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return next(explanation for fits, explanation in RULES if fits(error, wait_limit))


def decide(error: BaseException, *, wait_limit: float = WAIT_LIMIT_SECONDS) -> Decision:
    """The default policy. For the arguments see ``explain``. On the API-key route every flip surfaces instead."""
    return explain(error, wait_limit=wait_limit).decision


def most_tries(error: BaseException) -> float:
    """After how many tries on one route ``error`` ends them, however many the caller allows."""
    return _CAPACITY_TRIES if _no_capacity(error, 0) else math.inf
