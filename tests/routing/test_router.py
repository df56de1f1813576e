"""The router and the decision table: scripted services raise each error on each route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import pytest

from gemini_sync.config import Retry, Timeouts
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
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaError,
    RefreshError,
    ServerError,
    StreamInterrupted,
    TransportError,
)
from gemini_sync.messages.reply import Reply
from gemini_sync.routing.policy import ACCOUNT_SAFETY_REASONS
from tests.adapter_kit import BY_KEY, BY_OAUTH, Table, ask, gist, kept

TRIES = Retry().max_attempts
QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"


class Row(NamedTuple):
    """One failure of OAuth, and what it leads to.

    Attributes:
        make: makes the error.
        tries: how often OAuth is tried, if the error comes before the first chunk.
        serves: the route that then serves this call and the next; None if the error surfaces. ``"model"`` is the API
            key, for this model alone.
        after: the route of the next call, if the error comes after the first chunk; its answer makes the flip.
    """

    make: Callable[[], GeminiSyncError]
    tries: int
    serves: Optional[str]
    after: str


def quota(**known: Any) -> Callable[[], GeminiSyncError]:
    message = known.pop("message", "429 RESOURCE_EXHAUSTED: Quota exceeded.")
    return lambda: QuotaError(message, **{"code": 429, **known})


def per_day() -> GeminiSyncError:
    violation = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}
    return QuotaError("429", code=429, details=[{"@type": QUOTA_FAILURE, "violations": [violation]}])


def server(code: int, reason: Optional[str] = None) -> Callable[[], GeminiSyncError]:
    return lambda: ServerError(f"{code}", code=code, reason=reason)


def denied(reason: Optional[str] = None) -> Callable[[], GeminiSyncError]:
    return lambda: PermissionDeniedError("403", code=403, reason=reason, link="https://example.com/appeal")


def deadline(name: str) -> Callable[[], GeminiSyncError]:
    return lambda: DeadlineExceeded(f"The {name} deadline passed.", deadline=name, seconds=1)


TABLE = {
    "no credentials": Row(lambda: CredentialsError("No such file."), 1, "api_key", "api_key"),
    "refresh refused": Row(lambda: RefreshError("Log in.", reason="invalid_grant"), 1, "api_key", "api_key"),
    "refresh failed in transit": Row(lambda: RefreshError("503", code=503), 1, "api_key", "api_key"),
    "no OAuth client": Row(lambda: ConfigError("Set one.", reason="OAUTH_CLIENT_REQUIRED"), 1, "api_key", "api_key"),
    "no project": Row(lambda: ConfigError("Set one.", reason="PROJECT_REQUIRED"), 1, "api_key", "api_key"),
    **{reason: Row(lambda reason=reason: ConfigError("No.", reason=reason), 1, None, "oauth")  # type: ignore[misc]
       for reason in ("PROXY_INVALID", "PROXY_REFUSED", "TLS_FILE_INVALID", "SESSION_INVALID")},
    "validation required": Row(denied("VALIDATION_REQUIRED"), 1, "api_key", "api_key"),
    "unsupported client": Row(denied("UNSUPPORTED_CLIENT"), 1, "api_key", "api_key"),
    "terms of service": Row(denied("TOS_VIOLATION"), 1, "api_key", "api_key"),
    "401": Row(lambda: AuthError("401", code=401), 1, "api_key", "oauth"),
    "403": Row(denied(), 1, "api_key", "api_key"),
    "403 inside a perimeter": Row(denied("SECURITY_POLICY_VIOLATED"), 1, None, "oauth"),
    "404": Row(lambda: NotFoundError("404", code=404), 1, "model", "model"),
    "429 with a short hint": Row(quota(retry_after=10.0), TRIES, "api_key", "oauth"),
    "429 with a long hint": Row(quota(retry_after=10.1), 1, "api_key", "api_key"),
    "429 without a hint": Row(quota(), TRIES, "api_key", "oauth"),
    "429 QUOTA_EXHAUSTED": Row(quota(reason="QUOTA_EXHAUSTED", retry_after=1.0), 1, "api_key", "api_key"),
    "429 out of credits": Row(quota(reason="INSUFFICIENT_G1_CREDITS_BALANCE"), 1, "api_key", "api_key"),
    "429 per day": Row(per_day, 1, "api_key", "api_key"),
    "429 limit: 0": Row(quota(message="quota metric x, limit: 0, model: y"), 1, "api_key", "api_key"),
    "402": Row(quota(code=402), 1, "api_key", "api_key"),
    "429 no capacity": Row(quota(reason="MODEL_CAPACITY_EXHAUSTED"), TRIES, "model", "oauth"),
    "503 no capacity": Row(server(503, "MODEL_CAPACITY_EXCEEDED"), TRIES, "model", "oauth"),
    "499 no capacity": Row(server(499, "MODEL_CAPACITY_EXHAUSTED"), TRIES, "model", "oauth"),
    "429 no capacity for long": Row(quota(reason="MODEL_CAPACITY_EXHAUSTED", retry_after=60.0), 1, "model", "oauth"),
    "429 rate limit": Row(quota(reason="RATE_LIMIT_EXCEEDED"), 1, "api_key", "api_key"),
    "429 rate limit with a hint": Row(quota(reason="RATE_LIMIT_EXCEEDED", retry_after=2.0), TRIES, "api_key", "oauth"),
    "503 rate limit": Row(server(503, "RATE_LIMIT_EXCEEDED"), 1, "api_key", "api_key"),
    "503 QUOTA_EXHAUSTED": Row(server(503, "QUOTA_EXHAUSTED"), 1, "api_key", "api_key"),
    **{str(code): Row(server(code), TRIES, "api_key", "oauth") for code in (408, 499, 500, 502, 503, 504)},
    "connection": Row(lambda: TransportError("The connection failed."), TRIES, "api_key", "oauth"),
    "malformed stream": Row(lambda: ProtocolError("Event 1 is not JSON."), TRIES, "api_key", "oauth"),
    "no stream": Row(lambda: ProtocolError("Came text/html.", code=200), TRIES, "api_key", "oauth"),
    "connect deadline": Row(deadline("connect"), TRIES, "api_key", "oauth"),
    "idle deadline": Row(deadline("idle"), TRIES, "api_key", "oauth"),
    "first_token deadline": Row(deadline("first_token"), 1, "api_key", "api_key"),
    "total deadline": Row(deadline("total"), 1, None, "oauth"),
    "certificate": Row(lambda: TransportError("No.", reason="CERTIFICATE_VERIFY_FAILED"), 1, None, "oauth"),
    "3xx": Row(lambda: ProtocolError("A redirect.", code=307), 1, None, "oauth"),
    "400": Row(lambda: InvalidRequestError("400", code=400), 1, None, "oauth"),
    "any other status": Row(lambda: ApiError("302", code=302), 1, None, "oauth"),
    "blocked": Row(lambda: BlockedError("No.", reason="SAFETY", partial=Reply(iter(()))), 1, None, "oauth"),
    "failed": Row(lambda: FinishReasonError("No.", reason="OTHER", partial=Reply(iter(()))), 1, None, "oauth"),
    "empty": Row(lambda: EmptyResponseError("No.", reason="STOP", partial=Reply(iter(()))), 1, None, "oauth"),
    "cancel()": Row(lambda: StreamInterrupted("Cancelled.", cancelled=True), 1, None, "oauth"),
}  # fmt: skip
every_row = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)


@every_row
def test_row__before_the_first_chunk(row: Row) -> None:
    table = Table(row.make, BY_OAUTH)
    table.oauth.steps[:1] *= row.tries
    if row.serves is None:
        with pytest.raises(type(row.make())) as caught:
            list(table.stream())
        assert kept(caught.value.attempts) == [gist(caught.value)]
        assert caught.value.__cause__ is None
    else:
        reply = table.stream()
        assert list(reply) == BY_KEY
        assert reply.route == "api_key"
        assert [attempt.route for attempt in reply.attempts] == ["oauth"] * row.tries + ["api_key"]
    assert table.counts == (row.tries, row.serves is not None)
    assert len(table.slept) == row.tries - 1
    assert len(table.events) == (row.serves is not None)
    assert table.router.fallback_active == (row.serves == "api_key")
    assert table.route() == ("api_key" if row.serves else "oauth")
    assert table.route("other-model") == ("api_key" if row.serves == "api_key" else "oauth")
    assert len(table.events) == (row.serves is not None)


@every_row
def test_row__after_the_first_chunk(row: Row) -> None:
    table = Table(["by", row.make, "never"], BY_OAUTH)
    reply, made = table.stream(), []
    with pytest.raises(StreamInterrupted) as caught:
        made.extend(reply)
    error = caught.value
    assert made == ["by"]
    assert error.partial is not None
    assert (error.partial.text, error.partial.content["parts"]) == ("by", [{"text": "by"}])
    assert error.cancelled == (row is TABLE["cancel()"])
    assert error.cancelled or isinstance(error.__cause__, type(row.make()))
    assert [attempt.outcome for attempt in error.attempts] == ["cancelled" if error.cancelled else "interrupted"]
    assert kept(error.attempts) == [gist(error if error.cancelled else error.__cause__)]
    assert (error.route, error.attempts[0].trace_id) == ("oauth", "trace of by")
    assert table.counts == (1, 0)
    assert (table.slept, table.events, table.router.fallback_active) == ([], [], False)
    assert table.route() == ("oauth" if row.after == "oauth" else "api_key")
    assert table.route("other-model") == ("api_key" if row.after == "api_key" else "oauth")
    assert len(table.events) == (row.after != "oauth")


@every_row
@pytest.mark.parametrize("settings", [{"api_key": None}, {"fallback": False}], ids=["OAuth alone", "fallback=False"])
def test_row__without_fallback(row: Row, settings: dict[str, Any]) -> None:
    table = Table(row.make, **settings)
    with pytest.raises(type(row.make())) as caught:
        list(table.stream())
    assert caught.value.__cause__ is None
    assert len(caught.value.attempts) == row.tries
    assert table.counts == (row.tries, 0)
    assert (table.events, table.router.fallback_active) == ([], False)


@every_row
def test_row__after_the_first_chunk_without_fallback(row: Row) -> None:
    table = Table(["by", row.make], fallback=False)
    with pytest.raises(StreamInterrupted):
        list(table.stream())
    assert (table.events, table.router.fallback_active, table.router.status().models) == ([], False, {})


@every_row
def test_row__on_the_api_key_route(row: Row) -> None:
    """The same errors are retried, and nothing flips."""
    table = Table(api_key=row.make)
    with pytest.raises(type(row.make())) as caught:
        list(table.stream())
    assert {attempt.route for attempt in caught.value.attempts} == {"api_key"}
    assert table.counts == (0, row.tries)
    assert (table.events, table.router.fallback_active) == ([], False)
    assert table.router.status().preferred == "api_key"


@every_row
def test_row__on_both_routes(row: Row) -> None:
    table = Table(row.make, api_key=row.make)
    with pytest.raises(type(row.make())) as caught:
        list(table.stream())
    if row.serves is None:
        assert table.counts == (1, 0)
        return
    error, cause = caught.value, caught.value.__cause__
    assert isinstance(cause, type(error))
    assert (error.route, cause.route) == ("api_key", "oauth")
    assert table.counts == (row.tries, row.tries)
    assert [attempt.route for attempt in error.attempts] == ["oauth"] * row.tries + ["api_key"] * row.tries
    assert kept(error.attempts)[row.tries - 1 :: row.tries] == [gist(cause), gist(error)]
    assert len(cause.attempts) == row.tries
    assert (table.events, table.router.fallback_active, table.router.status().models) == ([], False, {})
    if row.make().reason not in ACCOUNT_SAFETY_REASONS:
        table.oauth.steps[:] = [BY_OAUTH]
        assert table.route() == "oauth"


def test_retry__until_there_is_an_answer() -> None:
    table = Table(server(503), server(500), BY_OAUTH)
    reply = table.stream()
    assert "".join(reply) == "by OAuth"
    assert [(a.route, a.outcome == "answered", a.trace_id) for a in reply.attempts] == [
        ("oauth", False, None),
        ("oauth", False, None),
        ("oauth", True, "trace of by"),
    ]
    assert [str(attempt.error) for attempt in reply.attempts] == ["503", "500", "None"]
    assert [failure.error for failure in table.router.status().failures] == ["ServerError: 503", "ServerError: 500"]
    assert table.events == []


@pytest.mark.parametrize("make", [server(503), quota(reason="QUOTA_EXHAUSTED"), lambda: NotFoundError("404", code=404)])
def test_count_tokens__asks_the_other_route_and_flips_nothing(make: Callable[[], GeminiSyncError]) -> None:
    table = Table(make)
    assert table.router.count_tokens(ask(), Timeouts()) == 2
    assert table.counts == (TRIES if isinstance(make(), ServerError) else 1, 1)
    assert (table.events, table.router.fallback_active, table.router.status().models) == ([], False, {})
    table.oauth.steps[:] = [BY_OAUTH]
    assert table.route() == "oauth"


def test_count_tokens__asks_oauth_if_the_key_fails() -> None:
    table = Table(denied(), BY_OAUTH, api_key=BY_KEY)
    assert table.route() == "api_key"
    table.api_key.steps[:] = [denied()]
    assert table.router.count_tokens(ask(), Timeouts()) == len(BY_OAUTH)
    assert (len(table.events), table.router.fallback_active) == (1, True)


def test_count_tokens__of_which_both_routes_fail_raises_the_error_of_the_key() -> None:
    table = Table(denied(), api_key=quota(reason="QUOTA_EXHAUSTED"))
    with pytest.raises(QuotaError) as caught:
        table.router.count_tokens(ask(), Timeouts())
    assert isinstance(caught.value.__cause__, PermissionDeniedError)
    table.api_key.steps[:] = [BY_KEY]
    assert table.route() == "api_key"
    table.api_key.steps[:] = [quota(reason="QUOTA_EXHAUSTED")]
    with pytest.raises(QuotaError) as caught:
        table.router.count_tokens(ask(), Timeouts())
    assert [attempt.route for attempt in caught.value.attempts] == ["api_key", "oauth"]


@pytest.mark.parametrize("make", [lambda: InvalidRequestError("400", code=400), deadline("total")])
def test_count_tokens__surfaces_what_no_route_can_mend(make: Callable[[], GeminiSyncError]) -> None:
    table = Table(make)
    with pytest.raises(type(make())):
        table.router.count_tokens(ask(), Timeouts())
    assert table.counts == (1, 0)


def test_count_tokens__of_a_blocked_account_asks_oauth_once() -> None:
    table = Table(denied("TOS_VIOLATION"))
    assert [table.router.count_tokens(ask(), Timeouts()) for _ in range(3)] == [2, 2, 2]
    assert (table.counts, table.events) == ((1, 3), [])
    assert table.route() == "api_key"
    assert (len(table.oauth.asked), len(table.events)) == (1, 1)


@pytest.mark.parametrize("tries", [1, 2, 10])
def test_capacity__gets_at_most_two_tries_more(tries: int) -> None:
    table = Table(quota(reason="MODEL_CAPACITY_EXHAUSTED"), retry=Retry(max_attempts=tries))
    assert table.route() == "api_key"
    assert len(table.oauth.asked) == min(tries, 3)
    assert table.router.status().models == {"some-model": "api_key"}
