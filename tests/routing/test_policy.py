"""The decision table: each of its rows with real errors, and a decision for every error."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Optional

import pytest

from gemini_sync.errors import (
    ApiError,
    AuthError,
    BlockedError,
    ConfigError,
    CredentialsError,
    DeadlineExceeded,
    EmptyResponseError,
    FinishReasonError,
    GeminiSyncError,
    ProtocolError,
    QuotaError,
    RefreshError,
    ServerError,
    StreamInterrupted,
    TransportError,
)
from gemini_sync.messages.api_errors import api_error
from gemini_sync.messages.reply import Reply
from gemini_sync.routing import policy
from gemini_sync.routing.policy import (
    ACCOUNT_SAFETY_REASONS,
    RULES,
    Decision,
    decide,
    explain,
    in_words,
)
from tests.support import ROOT

_ROWS = [explanation for _, explanation in RULES]

RETRY, FALL_BACK, FALL_BACK_MODEL, SURFACE = Decision
_RPC = "type.googleapis.com/google.rpc."


def answered(
    code: Optional[int],
    reason: str = "",
    *,
    retry_delay: Optional[str] = None,
    retry_after: Optional[str] = None,
    quota_id: str = "",
    message: str = "Sorry.",
    status: str = "",
) -> ApiError:
    """The error of an answer in the form that Google sends."""
    details: list[dict[str, Any]] = []
    if reason:
        details.append({"@type": _RPC + "ErrorInfo", "reason": reason, "domain": "cloudcode-pa.googleapis.com"})
    if retry_delay:
        details.append({"@type": _RPC + "RetryInfo", "retryDelay": retry_delay})
    if quota_id:
        details.append({"@type": _RPC + "QuotaFailure", "violations": [{"quotaId": quota_id}]})
    body = {"error": {"code": code, "message": message, "status": status, "details": details}}
    return api_error(code, body, headers={"Retry-After": retry_after} if retry_after else {})


def late(deadline: str) -> DeadlineExceeded:
    return DeadlineExceeded("late", deadline=deadline, seconds=1)


def interrupted(cause: Optional[BaseException] = None, *, cancelled: bool = False) -> StreamInterrupted:
    error = StreamInterrupted("cut", cancelled=cancelled)
    error.__cause__ = cause
    return error


_PARTIAL = Reply(iter(()))

# (what, error, decision, rule): one line or more for each row of the table.
TABLE: list[tuple[str, BaseException, Decision, str]] = [
    ("credentials missing or corrupt", CredentialsError("no file"), FALL_BACK, "credentials"),
    ("no OAuth client, no project", ConfigError("no client"), FALL_BACK, "credentials"),
    ("refresh refused", RefreshError("refused", code=400, reason="invalid_grant"), FALL_BACK, "credentials"),
    ("refresh refused: rapt", RefreshError("refused", code=400, reason="invalid_rapt"), FALL_BACK, "credentials"),
    ("refresh failed for good", RefreshError("503", code=503), FALL_BACK, "credentials"),
    ("redirect from the token endpoint", RefreshError("307", code=307), FALL_BACK, "credentials"),
    ("proxy that is no URL", ConfigError("x", reason="PROXY_INVALID"), SURFACE, "setting"),
    ("proxy that refuses", ConfigError("x", reason="PROXY_REFUSED"), SURFACE, "setting"),
    ("no client certificate", ConfigError("x", reason="TLS_FILE_INVALID"), SURFACE, "setting"),
    ("file of another service", ConfigError("x", reason="BOUND_TO_OTHER_SERVICE"), SURFACE, "bound"),
    ("validation required", answered(403, "VALIDATION_REQUIRED"), FALL_BACK, "account"),
    ("validation required, found by us", CredentialsError("x", reason="VALIDATION_REQUIRED"), FALL_BACK, "credentials"),
    ("unsupported client", ApiError("x", reason="UNSUPPORTED_CLIENT"), FALL_BACK, "account"),
    ("terms of service", answered(403, "TOS_VIOLATION"), FALL_BACK, "account"),
    ("401", answered(401), FALL_BACK, "auth"),
    ("401 in a stream", answered(None, status="UNAUTHENTICATED"), FALL_BACK, "auth"),
    ("wrong kind of token", answered(401, "ACCESS_TOKEN_TYPE_UNSUPPORTED"), FALL_BACK, "auth"),
    ("bad key", answered(400, "API_KEY_INVALID"), FALL_BACK, "auth"),
    ("403", answered(403), FALL_BACK, "permission"),
    ("403 service disabled", answered(403, "SERVICE_DISABLED"), FALL_BACK, "permission"),
    ("403 subscription", answered(403, "SUBSCRIPTION_REQUIRED"), FALL_BACK, "permission"),
    ("403 consumer", answered(403, "CONSUMER_INVALID"), FALL_BACK, "permission"),
    ("403 IAM", answered(403, "IAM_PERMISSION_DENIED"), FALL_BACK, "permission"),
    ("403 perimeter", answered(403, "SECURITY_POLICY_VIOLATED"), SURFACE, "perimeter"),
    ("404", answered(404), FALL_BACK_MODEL, "model"),
    ("429 short hint", answered(429, "RATE_LIMIT_EXCEEDED", retry_delay="2s"), RETRY, "rate"),
    ("429 hint at the limit", answered(429, retry_after="10"), RETRY, "rate"),
    ("429 long hint", answered(429, "RATE_LIMIT_EXCEEDED", retry_delay="34.07s"), FALL_BACK, "long-hint"),
    ("429 long header", answered(429, retry_after="11"), FALL_BACK, "long-hint"),
    ("429 long text", answered(429, message="Please retry in 1h2m3s."), FALL_BACK, "long-hint"),
    ("429 used up", answered(429, "QUOTA_EXHAUSTED", retry_delay="2s"), FALL_BACK, "quota-used-up"),
    ("429 per day", answered(429, quota_id="RequestsPerDay-FreeTier", retry_delay="2s"), FALL_BACK, "quota-used-up"),
    ("429 daily", answered(429, quota_id="DailyRequests"), FALL_BACK, "quota-used-up"),
    ("429 per minute", answered(429, quota_id="RequestsPerMinutePerProject"), RETRY, "rate"),
    ("429 limit: 0", answered(429, message="Quota exceeded, limit: 0, model: x."), FALL_BACK, "quota-used-up"),
    ("429 limit: 0.5", answered(429, message="Quota exceeded, limit: 0.5"), RETRY, "rate"),
    ("429 limit: 05", answered(429, message="Quota exceeded, limit: 05"), RETRY, "rate"),
    ("429 limit: 10", answered(429, message="Quota exceeded, limit: 10"), RETRY, "rate"),
    ("429 xlimit: 0", answered(429, message="Quota exceeded, xlimit: 0"), RETRY, "rate"),
    ("429 credits", answered(429, "INSUFFICIENT_G1_CREDITS_BALANCE"), FALL_BACK, "quota-used-up"),
    ("402 credit gone", answered(402, status="RESOURCE_EXHAUSTED"), FALL_BACK, "quota-used-up"),
    ("429 capacity", answered(429, "MODEL_CAPACITY_EXHAUSTED"), RETRY, "capacity"),
    ("499 capacity", answered(499, "MODEL_CAPACITY_EXCEEDED"), RETRY, "capacity"),
    ("503 capacity", answered(503, "MODEL_CAPACITY_EXHAUSTED", retry_delay="60s"), RETRY, "capacity"),
    ("404 capacity", answered(404, "MODEL_CAPACITY_EXHAUSTED"), FALL_BACK_MODEL, "model"),
    ("429 rate", answered(429, "RATE_LIMIT_EXCEEDED"), FALL_BACK, "rate-without-hint"),
    ("499 rate", answered(499, "RATE_LIMIT_EXCEEDED"), FALL_BACK, "rate-without-hint"),
    ("503 rate", answered(503, "RATE_LIMIT_EXCEEDED"), FALL_BACK, "rate-without-hint"),
    ("503 rate, short hint", answered(503, "RATE_LIMIT_EXCEEDED", retry_delay="2s"), RETRY, "server"),
    ("503 used up", answered(503, "QUOTA_EXHAUSTED", retry_delay="2s"), FALL_BACK, "quota-used-up"),
    ("499 per day", answered(499, quota_id="RequestsPerDay-FreeTier"), FALL_BACK, "quota-used-up"),
    ("503 limit: 0", answered(503, message="Quota exceeded, limit: 0"), FALL_BACK, "quota-used-up"),
    ("429 without a hint", answered(429), RETRY, "rate"),
    ("408", answered(408), RETRY, "server"),
    ("499", answered(499), RETRY, "server"),
    ("500", answered(500), RETRY, "server"),
    ("502 HTML", api_error(502, "<html>Bad Gateway</html>"), RETRY, "server"),
    ("503", answered(503), RETRY, "server"),
    ("503 long hint", answered(503, retry_after="60"), FALL_BACK, "long-hint"),
    ("504", answered(504), RETRY, "server"),
    ("connection", TransportError("reset"), RETRY, "connection"),
    ("connect deadline", late("connect"), RETRY, "connection"),
    ("idle deadline", late("idle"), RETRY, "connection"),
    ("another format", ProtocolError("gRPC", reason="UNREADABLE_ANSWER"), FALL_BACK, "unreadable"),
    ("malformed", ProtocolError("no JSON"), RETRY, "malformed"),
    ("HTML with 200", ProtocolError("HTML", code=200), RETRY, "malformed"),
    ("truncated", interrupted(), RETRY, "malformed"),
    ("first_token deadline", late("first_token"), FALL_BACK, "first-token"),
    ("certificate", TransportError("x", reason="CERTIFICATE_VERIFY_FAILED"), SURFACE, "certificate"),
    ("3xx", ProtocolError("moved", code=307), SURFACE, "redirect"),
    ("total deadline", late("total"), SURFACE, "total"),
    ("400", answered(400), SURFACE, "request"),
    ("400 location", answered(400, status="FAILED_PRECONDITION"), SURFACE, "request"),
    ("409", answered(409), SURFACE, "request"),
    ("413", answered(413), SURFACE, "request"),
    ("a status of its own", api_error(700, ""), RETRY, "server"),
    ("no error status", api_error(302, ""), SURFACE, "other-answer"),
    ("refused", BlockedError("x", reason="SAFETY", partial=_PARTIAL), SURFACE, "verdict"),
    ("failed", FinishReasonError("x", reason="OTHER", partial=_PARTIAL), SURFACE, "verdict"),
    ("empty", EmptyResponseError("x", reason="STOP", partial=_PARTIAL), SURFACE, "verdict"),
    ("Ctrl-C", KeyboardInterrupt(), SURFACE, "interrupt"),
    ("dropped", GeneratorExit(), SURFACE, "interrupt"),
    ("a bug", RuntimeError("bug"), SURFACE, "interrupt"),
    ("cancel()", interrupted(cancelled=True), SURFACE, "cancelled"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "decision", "rule"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(error: BaseException, decision: Decision, rule: str) -> None:
    explanation = explain(error)
    assert (explanation.decision, explanation.rule) == (decision, rule)
    assert decide(error) is decision


@pytest.mark.parametrize(("error", "decision", "rule"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table__for_an_error_in_the_middle_of_a_stream(error: BaseException, decision: Decision, rule: str) -> None:
    # The error that broke a stream leads to the same decision about the next call.
    if isinstance(error, Exception):
        assert explain(interrupted(error)).rule == ("cancelled" if rule == "cancelled" else rule)


def test_docs__contain_the_table() -> None:
    def code(text: str) -> str:
        return re.sub(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|\bRetry\.\w+|\bcancel\(\)", r"`\g<0>`", text)

    head = ["| What happened | Decision | Because | Rule |", "|---|---|---|---|"]
    rows = [
        f"| {code(rule.what)} | {in_words(rule.decision, rule.at_last)} | {code(rule.why)} | `{rule.rule}` |"
        for rule in _ROWS
    ]
    page = (ROOT / "docs" / "fallback.md").read_text("utf-8")
    assert [line for line in page.splitlines() if line.startswith("|")] == head + rows


def test_rules__each_has_a_row_in_this_test() -> None:
    assert {row[3] for row in TABLE} == {rule.rule for rule in _ROWS}


def test_cancelled__with_any_other_error_as_its_cause() -> None:
    # cancel() shuts the socket down, so the reader sees a broken connection.
    for cause in (TransportError("reset"), AuthError("401"), OSError()):
        assert explain(interrupted(cause, cancelled=True)).rule == "cancelled"


def test_interrupted__by_a_keyboard_interrupt() -> None:
    assert explain(interrupted(KeyboardInterrupt())).rule == "malformed"


# -- hints, and the caller's limit


@pytest.mark.parametrize("error", [QuotaError("x", retry_after=5), ServerError("x", retry_after=5)])
def test_wait_limit__of_the_caller(error: GeminiSyncError) -> None:
    decisions = [decide(error, wait_limit=limit) for limit in (0, 4.9, 5, 100)]
    assert decisions == [FALL_BACK, FALL_BACK, RETRY, RETRY]
    assert explain(error, wait_limit=1).rule == "long-hint"


def test_wait_limit__with_no_hint_or_a_hint_of_zero() -> None:
    assert decide(QuotaError("x"), wait_limit=0) is RETRY
    assert decide(QuotaError("x", retry_after=0), wait_limit=0) is RETRY


def test_wait_limit__matters_only_for_errors_that_are_retried() -> None:
    for error in (answered(400, retry_delay="60s"), answered(404, retry_delay="60s"), answered(403, retry_delay="60s")):
        assert explain(error) == explain(error, wait_limit=1000)


@pytest.mark.parametrize("code", [429, 499, 503])
def test_capacity__ends_with_this_model_after_two_tries_more(code: int) -> None:
    for reason in ("MODEL_CAPACITY_EXHAUSTED", "MODEL_CAPACITY_EXCEEDED"):
        error = answered(code, reason)
        assert (explain(error).at_last, policy.most_tries(error)) == (FALL_BACK_MODEL, 3)
    other = answered(code)
    assert (explain(other).at_last, policy.most_tries(other)) == (FALL_BACK, math.inf)


def test_explain__as_a_sentence() -> None:
    assert str(explain(answered(404))) == (
        "fall back for this model: rule 'model' (404): only this model is not served here."
    )
    for rule in _ROWS:
        assert str(rule).startswith(f"{in_words(rule.decision, rule.at_last)}: rule")
    assert str(explain(answered(503))).startswith("retry, then fall back: rule 'server'")
    assert str(explain(answered(503, "MODEL_CAPACITY_EXHAUSTED"))).startswith("retry, then fall back for this model:")


def test_account_safety__falls_back_with_any_code() -> None:
    for reason in ACCOUNT_SAFETY_REASONS:
        assert {decide(answered(code, reason)) for code in (400, 403, 404, 429, 500)} == {FALL_BACK}


# -- the faults of the corpus that lead to one decision

_FAULTS: dict[str, list[BaseException]] = {
    "connect_refused": [TransportError("refused")],
    "connect_blackhole": [late("connect")],
    "tls_bad_cert": [TransportError("x", reason="CERTIFICATE_VERIFY_FAILED")],
    "reset_before_headers": [TransportError("reset")],
    "header_stall": [late("first_token")],
    "half_headers_fin": [ProtocolError("no event stream", code=200)],
    "header_drip": [late("first_token")],
    "fin_before_first_event": [ProtocolError("no event")],
    "redirect_cross_host": [ProtocolError("moved", code=code) for code in (301, 302, 303, 307, 308)],
    "http_400": [answered(400)],
    "http_403": [answered(403), answered(403, "SERVICE_DISABLED")],
    "http_404_model": [answered(404)],
    "http_429_daily": [answered(429, "QUOTA_EXHAUSTED"), answered(429, quota_id="XPerDayY")],
    "http_503_then_ok": [answered(503)],
    "http_503_always": [answered(503)],
    "html_200": [ProtocolError("HTML", code=200), api_error(502, "<html>")],
    "error_body_endless": [api_error(500, "x" * 70_000)],
    "prompt_blocked": [BlockedError("x", reason="SAFETY", partial=_PARTIAL)],
    "token_invalid_grant": [RefreshError("x", reason=reason) for reason in ("invalid_grant", "invalid_rapt")],
    "token_redirect_307": [RefreshError("x", code=307)],
    "creds_missing_or_bad": [CredentialsError("no file")],
    "sigint_mid_read": [KeyboardInterrupt()],
}
_OUTCOMES = {"RETRY": RETRY, "RETRY->FLIP": RETRY, "FLIP": FALL_BACK, "MODEL": FALL_BACK_MODEL, "SURFACE": SURFACE}


def test_faults__of_the_corpus(corpus: Path) -> None:
    faults = {fault["name"]: fault for fault in json.loads((corpus / "fault_matrix.json").read_text("utf-8"))}
    for name, examples in _FAULTS.items():
        assert {decide(error) for error in examples} == {_OUTCOMES[faults[name]["outcome"]]}, name
