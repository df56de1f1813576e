"""How long a fallback lasts, for whom, and how often it is said. The clock is set by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Optional

import pytest

from gemini_sync.errors import GeminiSyncError, NotFoundError
from gemini_sync.messages.api_errors import api_error
from gemini_sync.routing.events import FallbackEvent
from gemini_sync.routing.policy import Decision
from tests.adapter_kit import BY_OAUTH, Table, forbidden, not_found, unavailable
from tests.auth.credentials_kit import Clock, together

RPC = "type.googleapis.com/google.rpc."
DAY, NOW = 86400.0, 1_700_000_000.0
MANY = 20


def quota(
    reason: str = "QUOTA_EXHAUSTED",
    code: int = 429,
    delay: Optional[str] = None,
    dimensions: Optional[list[dict[str, str]]] = None,
    **metadata: str,
) -> Callable[[], GeminiSyncError]:
    """Makes an error as Google's services answer it."""
    details: list[dict[str, Any]] = [{"@type": RPC + "ErrorInfo", "reason": reason, "metadata": metadata}]
    if delay is not None:
        details.append({"@type": RPC + "RetryInfo", "retryDelay": delay})
    if dimensions is not None:
        violations = [{"quotaId": "GenerateRequestsPerDay", "quotaDimensions": names} for names in dimensions]
        details.append({"@type": RPC + "QuotaFailure", "violations": violations})
    return lambda: api_error(code, {"error": {"code": code, "message": "Used up.", "details": details}})


@pytest.fixture(autouse=True)
def wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 2023-11-14 22:13:20 UTC."""
    monkeypatch.setattr(time, "time", lambda: NOW)


# -- sticky_for="hint"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (quota(delay="3600s"), 3600),
        (quota(quotaResetDelay="1h0m0s"), 3600),
        (quota(quotaResetDelay="13h8m5.5s", delay="30s"), 13 * 3600 + 8 * 60 + 5.5),
        (quota(quotaResetTimeStamp="2023-11-14T23:13:20Z"), 3600),
        (quota(quotaResetTimeStamp="2023-11-15T00:13:20.123456789+01:00"), 3600),
        (quota("RATE_LIMIT_EXCEEDED", delay="60s"), 60),
        (quota("RATE_LIMIT_EXCEEDED", 503, delay="60s"), 60),
        (quota("RATE_LIMIT_EXCEEDED", delay="2s"), 2),
    ],
)
def test_hint__oauth_is_tried_again_at_the_reset(error: Callable[[], GeminiSyncError], seconds: float) -> None:
    clock = Clock(0.0)
    table = Table(error, error, error, BY_OAUTH, clock=clock, sticky_for="hint")
    while not table.events:
        assert table.route() == "api_key"
    asked = len(table.oauth.asked)
    table.oauth.steps[:] = [BY_OAUTH]
    clock.advance(seconds - 0.5)
    assert (table.route(), len(table.oauth.asked)) == ("api_key", asked)
    clock.advance(0.5)
    assert (table.route(), len(table.events), table.router.fallback_active) == ("oauth", 2, False)
    assert table.events[0].until == NOW + seconds


@pytest.mark.parametrize(
    "error",
    [
        quota(),
        quota("RATE_LIMIT_EXCEEDED"),
        quota(quotaResetDelay="soon", quotaResetTimeStamp="tomorrow"),
        quota(quotaResetTimeStamp="2026-02-31T08:00:00Z"),
        forbidden,
        unavailable,
        lambda: api_error(503, {"error": {"code": 503}}, headers={"Retry-After": "1"}),
    ],
)
def test_hint__without_a_named_reset_oauth_is_never_tried_again(error: Callable[[], GeminiSyncError]) -> None:
    clock = Clock(0.0)
    table = Table(error, clock=clock, sticky_for="hint")
    assert table.route() == "api_key"
    table.oauth.steps[:] = [BY_OAUTH]
    clock.advance(1e8)
    assert table.route() == "api_key"
    assert [event.until for event in table.events] == [None]
    assert "the rest of this session" in str(table.events[0])


def test_hint__of_a_failed_probe_is_the_next_pause_and_without_one_it_is_the_pause_before() -> None:
    clock = Clock(0.0)
    steps = [quota(delay="60s"), quota(delay="100s"), forbidden, BY_OAUTH]
    table = Table(*steps, clock=clock, sticky_for="hint")
    assert table.route() == "api_key"
    asked = []
    for seconds in (60, 99, 1, 59, 1):
        clock.advance(seconds)
        asked.append((table.route(), len(table.oauth.asked)))
    assert asked == [("api_key", 2), ("api_key", 2), ("api_key", 3), ("api_key", 3), ("oauth", 4)]
    assert len(table.events) == 2


def test_hint__one_call_of_many_probes_at_the_reset() -> None:
    clock = Clock(0.0)
    table = Table(quota(delay="60s"), clock=clock, sticky_for="hint")
    assert together(MANY, table.route) == ["api_key"] * MANY
    before = len(table.oauth.asked)
    clock.advance(61)
    assert together(MANY, table.route) == ["api_key"] * MANY
    assert len(table.oauth.asked) == before + 1
    assert len(table.events) == 1


def test_line__says_until_when() -> None:
    error = forbidden()
    event = FallbackEvent("oauth", "api_key", "429", error, 0.0, until=86400.0 * 365)
    assert str(event) == (
        "gemini-sync: OAuth failed (429); the API key serves until 1971-01-01 00:00:00 UTC. "
        "To go back, fix this, then call reset()."
    )
    event = FallbackEvent("oauth", "api_key", "429", error, 0.0, model="m", until=86400.0 * 365)
    assert str(event) == (
        "gemini-sync: OAuth does not serve model m (429); the API key serves it until 1971-01-01 00:00:00 UTC."
    )


def test_line__with_a_number_of_seconds_says_until_when() -> None:
    table = Table(forbidden, sticky_for=3600)
    table.route()
    assert table.events[0].until == NOW + 3600


# -- a quota of one model


BY_MODEL = {
    "metadata of Code Assist": quota(model="gemini-3-pro", quotaResetDelay="1h"),
    "dimensions": quota(dimensions=[{"model": "gemini-3-pro", "location": "global"}], quotaResetDelay="1h"),
    "dimensions of Vertex AI": quota(dimensions=[{"base_model": "gemini-3-pro"}], quotaResetDelay="1h"),
    "a rate": quota("RATE_LIMIT_EXCEEDED", model="gemini-3-pro", quotaResetDelay="1h"),
    "503": quota(code=503, model="gemini-3-pro", quotaResetDelay="1h"),
}
NOT_BY_MODEL = {
    "no names": quota(quotaResetDelay="1h"),
    "one of two dimensions": quota(dimensions=[{"model": "m"}, {"location": "global"}]),
    "no dimensions": quota(dimensions=[{}], model="gemini-3-pro"),
    "no quota": lambda: api_error(
        403, {"error": {"code": 403, "details": [{"@type": RPC + "ErrorInfo", "metadata": {"model": "m"}}]}}
    ),
}


@pytest.mark.parametrize("name", BY_MODEL)
def test_quota__of_a_model_moves_that_model_alone(name: str) -> None:
    table = Table(BY_MODEL[name], BY_OAUTH, quota_by_model=True)
    assert [table.route("m"), table.route("n"), table.route("m")] == ["api_key", "oauth", "api_key"]
    assert (table.router.fallback_active, table.router.status().models) == (False, {"m": "api_key"})
    assert [event.model for event in table.events] == ["m"]
    assert table.counts == (2, 2)


@pytest.mark.parametrize("name", [*BY_MODEL, *NOT_BY_MODEL])
def test_quota__moves_all_models_if_it_names_none_or_the_option_is_off(name: str) -> None:
    error = {**BY_MODEL, **NOT_BY_MODEL}[name]
    table = Table(error, BY_OAUTH, quota_by_model=name in NOT_BY_MODEL)
    assert [table.route("m"), table.route("n")] == ["api_key", "api_key"]
    assert (table.router.fallback_active, table.router.status().models) == (True, {})


def test_quota__of_a_model_in_a_stream_that_has_begun() -> None:
    table = Table(["by", BY_MODEL["dimensions"]], BY_OAUTH, quota_by_model=True)
    with pytest.raises(GeminiSyncError):
        list(table.stream("m"))
    assert [table.route("n"), table.route("m")] == ["oauth", "api_key"]
    assert [event.model for event in table.events] == ["m"]


def test_quota__that_is_retried_moves_the_model_in_the_end() -> None:
    error = quota("OTHER", delay="1s", model="gemini-3-pro")
    table = Table(error, error, error, BY_OAUTH, quota_by_model=True)
    assert [table.route("m"), table.route("n")] == ["api_key", "oauth"]
    assert table.router.status().models == {"m": "api_key"}


def test_quota__of_a_model__under_a_policy_of_the_callers_own() -> None:
    error, moved = BY_MODEL["dimensions"], []
    for decision in (Decision.FALL_BACK, Decision.FALL_BACK_MODEL, Decision.SURFACE):
        table = Table(error, quota_by_model=True, policy=lambda error, decision=decision: decision)
        if decision is Decision.SURFACE:
            with pytest.raises(GeminiSyncError):
                table.route("m")
        else:
            table.route("m")
        moved.append(table.router.status().models)
    assert moved == [{"m": "api_key"}, {"m": "api_key"}, {}]


@pytest.mark.parametrize("sticky_for", ["hint", 3600])
def test_quota__of_a_model_comes_back_at_its_reset(sticky_for: Any) -> None:
    clock = Clock(0.0)
    table = Table(BY_MODEL["dimensions"], BY_OAUTH, clock=clock, quota_by_model=True, sticky_for=sticky_for)
    assert [table.route("m"), table.route("n")] == ["api_key", "oauth"]
    clock.advance(3599)
    assert table.route("m") == "api_key"
    clock.advance(2)
    assert [table.route("n"), table.route("m"), table.route("m")] == ["oauth"] * 3
    assert table.router.status().models == {}
    assert str(table.events[-1]) == (
        "gemini-sync: the API key hands model m back to OAuth: a probe succeeded; OAuth serves it from now on."
    )
    assert len(table.events) == 2


def test_quota__of_a_model_whose_probe_fails_stays_moved() -> None:
    clock = Clock(0.0)
    error = BY_MODEL["dimensions"]
    table = Table(error, error, BY_OAUTH, clock=clock, quota_by_model=True, sticky_for="hint")
    routes = [table.route("m")]
    for seconds in (3600, 3599, 1):
        clock.advance(seconds)
        routes.append(table.route("m"))
    assert routes == ["api_key", "api_key", "api_key", "oauth"]
    assert (len(table.oauth.asked), len(table.events)) == (3, 2)


def test_quota__of_two_models__each_has_its_own_probe() -> None:
    clock = Clock(0.0)
    steps = [quota(model="x", quotaResetDelay="100s"), quota(model="x", quotaResetDelay="200s"), BY_OAUTH]
    table = Table(*steps, clock=clock, quota_by_model=True, sticky_for="hint")
    assert [table.route("m"), table.route("n")] == ["api_key", "api_key"]
    clock.advance(100)
    assert [table.route("n"), table.route("m")] == ["api_key", "oauth"]
    clock.advance(100)
    assert table.route("n") == "oauth"
    assert table.router.status().models == {}


def test_quota__of_a_model_is_not_probed_while_all_models_have_moved() -> None:
    clock = Clock(0.0)
    table = Table(BY_MODEL["dimensions"], forbidden, BY_OAUTH, clock=clock, quota_by_model=True, sticky_for="hint")
    assert [table.route("m"), table.route("n")] == ["api_key", "api_key"]
    clock.advance(4000)
    assert [table.route("m"), table.route("n")] == ["api_key", "api_key"]
    assert table.counts == (2, 4)
    table.router.reset()
    assert table.route("m") == "oauth"


def test_quota__of_a_model_whose_probe_ends_after_all_models_have_moved(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(0.0)
    probe = [lambda: table.route("n") and None, *BY_OAUTH]
    table = Table(BY_MODEL["dimensions"], probe, forbidden, clock=clock, quota_by_model=True, sticky_for="hint")
    assert table.route("m") == "api_key"
    clock.advance(3600)
    assert table.route("m") == "oauth"
    assert [event.model for event in table.events] == ["m", None]
    assert (table.router.fallback_active, table.router.status().models) == (True, {"m": "api_key"})
    assert [table.route("m"), table.route("n")] == ["api_key", "api_key"]


@pytest.mark.parametrize("error", [not_found, quota("MODEL_CAPACITY_EXHAUSTED", model="m", quotaResetDelay="5s")])
def test_model__that_is_missing_or_overloaded_stays_moved(error: Callable[[], GeminiSyncError]) -> None:
    for sticky_for in (5, "hint"):
        clock = Clock(0.0)
        table = Table(error, clock=clock, sticky_for=sticky_for, quota_by_model=True)
        assert table.route("m") == "api_key"
        table.oauth.steps[:] = [BY_OAUTH]
        clock.advance(1e8)
        assert [table.route("m"), table.route("n")] == ["api_key", "oauth"]


# -- reminders


def test_reminder__comes_once_a_day_while_the_fallback_stands() -> None:
    clock = Clock(0.0)
    table = Table(forbidden, BY_OAUTH, clock=clock, remind_every=DAY)
    assert table.route() == "api_key"
    for _ in range(10 * 24):
        clock.advance(3600)
        assert table.route() == "api_key"
    first, *reminders = table.events
    assert len(reminders) == 10
    for event in reminders:
        assert (event.since, event.reason, event.link) == (first.at, first.reason, first.link)
        assert type(event.error) is type(first.error)
    table.router.reset()
    clock.advance(10 * DAY)
    assert table.route() == "oauth"
    assert len(table.events) == 11


def test_reminder__says_since_when_and_why() -> None:
    event = FallbackEvent("oauth", "api_key", "AuthError: 401", forbidden(), 1e9, since=0.0)
    assert str(event) == (
        "gemini-sync: the API key still serves, since 1970-01-01 00:00:00 UTC, because OAuth failed (AuthError: 401). "
        "To go back, fix this, then call reset()."
    )
    event = FallbackEvent("oauth", "api_key", "404", NotFoundError("404"), 1e9, "m", since=0.0)
    assert "the API key still serves model m, since 1970-01-01 00:00:00 UTC, because OAuth failed (404)." in str(event)


def test_reminder__is_off_by_default() -> None:
    clock = Clock(0.0)
    table = Table(forbidden, clock=clock)
    for _ in range(3):
        assert table.route() == "api_key"
        clock.advance(1000 * DAY)
    assert len(table.events) == 1


def test_reminder__comes_once_for_many_threads() -> None:
    clock = Clock(0.0)
    table = Table(forbidden, clock=clock, remind_every=DAY)
    assert table.route() == "api_key"
    clock.advance(DAY)
    assert together(MANY, table.route) == ["api_key"] * MANY
    assert [event.since is not None for event in table.events] == [False, True]


def test_reminder__of_one_model_comes_with_its_calls() -> None:
    clock = Clock(0.0)
    table = Table(not_found, BY_OAUTH, clock=clock, remind_every=DAY)
    assert table.route("m") == "api_key"
    clock.advance(DAY)
    assert table.route("n") == "oauth"
    assert len(table.events) == 1
    assert table.route("m") == "api_key"
    assert [event.model for event in table.events] == ["m", "m"]
    assert "still serves model m" in str(table.events[1])


def test_reminder__is_not_given_by_a_call_that_fails() -> None:
    clock = Clock(0.0)
    table = Table(forbidden, clock=clock, remind_every=DAY)
    assert table.route() == "api_key"
    clock.advance(DAY)
    table.api_key.steps[:] = [forbidden]
    with pytest.raises(GeminiSyncError):
        table.route()
    assert len(table.events) == 1


def test_reminder__and_a_probe_that_goes_back() -> None:
    clock = Clock(0.0)
    table = Table(forbidden, BY_OAUTH, clock=clock, remind_every=DAY, sticky_for=DAY)
    assert table.route() == "api_key"
    clock.advance(DAY)
    assert table.route() == "oauth"
    assert [event.to_route for event in table.events] == ["api_key", "oauth"]
