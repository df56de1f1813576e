"""What the router says and remembers: single models, account errors, events, status, and policies of callers."""

from __future__ import annotations

import io
import logging
import pickle
from typing import Any

import pytest

from gemini_sync.config import Retry
from gemini_sync.errors import (
    ConfigError,
    GeminiSyncError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    ServerError,
    StreamInterrupted,
)
from gemini_sync.routing.events import FallbackEvent, notify_stderr
from gemini_sync.routing.policy import Decision
from tests.adapter_kit import BY_OAUTH, LINK, Table, forbidden, not_found, unavailable, validation


def causes(error: BaseException) -> list[BaseException]:
    cause = error.__cause__
    return [] if cause is None else [cause, *causes(cause)]


# -- one model


def test_unknown_model__is_announced_once_when_its_answer_begins() -> None:
    table = Table(not_found, BY_OAUTH)
    reply = table.stream("models/new-model")
    assert table.events == []
    assert next(reply) == "by"
    (event,) = table.events
    assert (event.model, event.from_route, event.to_route) == ("new-model", "oauth", "api_key")
    assert "OAuth does not serve model new-model" in str(event)
    assert "the API key serves it from now on" in str(event)
    assert table.router.status().models == {"new-model": "api_key"}
    assert (table.router.fallback_active, table.router.status().preferred) == (False, "oauth")
    assert [table.route("new-model"), table.route("old-model")] == ["api_key", "oauth"]
    assert table.counts == (2, 2)
    assert len(table.events) == 1
    table.router.reset()
    assert table.route("new-model") == "oauth"


def test_unknown_model__that_the_key_does_not_serve_changes_nothing() -> None:
    table = Table(not_found, BY_OAUTH, api_key=unavailable)
    with pytest.raises(ServerError) as caught:
        list(table.stream())
    assert isinstance(caught.value.__cause__, NotFoundError)
    assert (table.events, table.router.status().models) == ([], {})
    assert table.route() == "oauth"


# -- account safety


@pytest.mark.parametrize("mid_stream", [False, True])
def test_account_safety__stops_all_oauth_even_after_reset(mid_stream: bool) -> None:
    table = Table(["by", validation] if mid_stream else validation, BY_OAUTH)
    if mid_stream:
        with pytest.raises(StreamInterrupted) as caught:
            list(table.stream())
        assert caught.value.link == LINK
        assert table.events == []
    assert table.route() == "api_key"
    for flips in (2, 3, 4):
        table.router.reset()
        assert not table.router.fallback_active
        assert table.route() == "api_key"
        assert len(table.events) == flips
    assert len(table.oauth.asked) == 1
    assert all(event.link == LINK and LINK in str(event) for event in table.events)
    table.router.reset(force=True)
    assert table.route() == "oauth"


def test_account_safety__with_oauth_alone_gives_each_call_an_error_of_its_own() -> None:
    table = Table(validation, api_key=None)
    errors = []
    for _ in range(5):
        with pytest.raises(PermissionDeniedError) as caught:
            list(table.stream())
        errors.append(caught.value)
    assert len(table.oauth.asked) == 1
    assert len(set(map(id, errors))) == 5
    assert all((error.link, len(error.attempts), error.route) == (LINK, 1, "oauth") for error in errors)
    assert [len(causes(error)) for error in errors] == [0] * 5  # the chain of causes does not grow from call to call
    assert isinstance(pickle.loads(pickle.dumps(errors[-1])), PermissionDeniedError)


def test_account_safety__of_a_call_that_began_before_the_forced_reset() -> None:
    """A slow call does not undo the decision of a person."""

    def late() -> GeminiSyncError:
        table.router.reset(force=True)
        return validation()

    table = Table(late, BY_OAUTH)
    assert [table.route(), table.route()] == ["api_key", "oauth"]
    assert table.events == []


def test_account_safety__of_the_account_of_the_key_does_not_stop_oauth() -> None:
    table = Table(forbidden, BY_OAUTH, api_key=validation)
    with pytest.raises(PermissionDeniedError):
        table.route()
    table.router.reset()
    assert table.route() == "oauth"


@pytest.mark.parametrize("fails", [forbidden, not_found])
def test_failure__after_a_reset_is_logged_if_the_key_serves(fails: Any, caplog: pytest.LogCaptureFixture) -> None:
    def late() -> GeminiSyncError:
        table.router.reset()
        return fails()  # type: ignore[no-any-return]

    table = Table(late, BY_OAUTH)
    assert [table.route(), table.route()] == ["api_key", "oauth"]
    assert table.events == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"the API key serves one call, OAuth stays preferred: {type(fails()).__name__}: {fails()}"
    ]


def test_fallback__that_another_call_decided_first_is_not_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    def late() -> GeminiSyncError:
        assert table.route() == "api_key"
        return forbidden()

    table = Table(late, forbidden)
    assert table.route() == "api_key"
    assert len(table.events) == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_error__that_is_the_same_object_on_both_routes() -> None:
    """Test doubles often raise one object again and again."""
    error = PermissionDeniedError("403", code=403)
    table = Table(lambda: error, api_key=lambda: error)
    for _ in range(3):
        with pytest.raises(PermissionDeniedError) as caught:
            table.route()
        assert caught.value is error


# -- what a person sees


def test_on_fallback__that_raises_is_logged_and_the_call_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def explode(event: FallbackEvent) -> None:
        raise RuntimeError("no terminal")

    table = Table(forbidden, on_fallback=explode)
    with caplog.at_level(logging.ERROR):
        assert "".join(table.stream()) == "by key"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "no terminal" in str(record.exc_info[1])
    assert table.router.fallback_active


def test_on_fallback__may_use_the_router() -> None:
    seen: list[Any] = []

    def use(event: FallbackEvent) -> None:
        seen.append((table.router.fallback_active, table.route(), table.router.status().reason))
        table.router.reset()

    table = Table(forbidden, BY_OAUTH, on_fallback=use)
    assert "".join(table.stream()) == "by key"
    assert seen == [(True, "api_key", "PermissionDeniedError: 403 PERMISSION_DENIED.")]
    assert table.route() == "oauth"


def test_line__is_one_short_line_for_a_long_message() -> None:
    def long_message() -> GeminiSyncError:
        return PermissionDeniedError("403: \x1b[31mno\r\n\n" + "x" * 50_000, code=403, link=LINK)

    table = Table(long_message)
    table.route()
    line = str(table.events[0])
    assert line.isprintable()
    assert len(line) < 800
    assert line.endswith(f"See {LINK}")
    assert len(table.router.status().failures[0].error) < 600


def test_notify_stderr__without_a_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    event = FallbackEvent("oauth", "api_key", "it failed", forbidden(), 0.0)
    notify_stderr(event)
    assert capsys.readouterr().err == f"{event}\n"
    monkeypatch.setattr("sys.stderr", None)
    notify_stderr(event)  # a program without a console


def test_notify_stderr__flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(shown))
    notify_stderr(FallbackEvent("oauth", "api_key", "it failed", forbidden(), 0.0))
    assert b"it failed" in shown.getvalue()


def test_status__has_the_reason_and_the_failures() -> None:
    table = Table(unavailable, unavailable, unavailable, BY_OAUTH)
    assert table.router.status().reason is None
    table.route()
    status = table.router.status()
    assert (status.preferred, status.fallback_active) == ("api_key", True)
    assert status.reason == "ServerError: 503 UNAVAILABLE."
    assert [(failure.route, failure.error) for failure in status.failures] == [("oauth", status.reason)] * 3
    assert table.events[0].at >= status.failures[-1].at
    table.router.reset()
    assert (table.router.status().reason, table.router.status().failures) == ("reset()", ())


@pytest.mark.parametrize("step", [forbidden, not_found])
def test_flip__is_logged_for_debugging_only(step: Any, caplog: pytest.LogCaptureFixture) -> None:
    """People see the line of the callback; the same line twice would confuse them."""
    caplog.set_level(logging.DEBUG)
    table = Table(step, BY_OAUTH, sticky_for=0)
    table.route()
    table.route()
    told = [record for record in caplog.records if record.getMessage() in map(str, table.events)]
    assert [record.levelno for record in told] == [logging.DEBUG] * len(table.events)
    assert len(table.events) == (2 if step is forbidden else 1)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


# -- a policy of the caller's own


@pytest.mark.parametrize(
    ("decision", "tries", "serves", "flips"),
    [
        (Decision.RETRY, 3, True, True),
        (Decision.FALL_BACK, 1, True, True),
        (Decision.FALL_BACK_MODEL, 1, True, False),
        (Decision.SURFACE, 1, False, False),
    ],
)
def test_policy__of_the_caller(decision: Decision, tries: int, serves: bool, flips: bool) -> None:
    asked: list[BaseException] = []

    def policy(error: BaseException) -> Decision:
        asked.append(error)
        return decision

    table = Table(unavailable, policy=policy)
    if serves:
        assert table.route() == "api_key"
    else:
        with pytest.raises(ServerError):
            table.route()
    assert table.counts == (tries, serves)
    assert table.router.fallback_active == flips
    assert {type(error) for error in asked} == {ServerError}


@pytest.mark.parametrize("decision", Decision)
@pytest.mark.parametrize("mid_stream", [False, True])
def test_policy__is_not_asked_about_a_call_that_was_cancelled(decision: Decision, mid_stream: bool) -> None:
    def fails() -> GeminiSyncError:
        reply.cancel()
        return forbidden()

    table = Table(["by", fails] if mid_stream else fails, BY_OAUTH, policy=lambda error: decision)
    reply = table.stream()
    with pytest.raises(StreamInterrupted) as caught:
        list(reply)
    assert (caught.value.cancelled, len(caught.value.attempts)) == (True, 1)
    assert (table.counts, table.events, table.router.fallback_active) == ((1, 0), [], False)


def test_policy__keeps_the_wait_limit_of_the_caller() -> None:
    table = Table(lambda: QuotaError("429", code=429, retry_after=30.0), retry=Retry(wait_limit=60))
    assert table.route() == "api_key"
    assert len(table.slept) == 2
    assert all(30.0 <= seconds <= 36.0 for seconds in table.slept)


@pytest.mark.parametrize("answer", ["fall back", None, True])
@pytest.mark.parametrize("mid_stream", [False, True])
def test_policy__that_returns_no_decision_is_an_error(answer: Any, mid_stream: bool) -> None:
    table = Table(["by", forbidden] if mid_stream else forbidden, policy=lambda error: answer)
    with pytest.raises(GeminiSyncError) as caught:
        table.route()
    told = caught.value.__cause__ if mid_stream else caught.value
    assert isinstance(told, ConfigError)
    assert "policy must return a Decision" in str(told)
    assert any(isinstance(cause, PermissionDeniedError) for cause in causes(told))
    assert table.counts == (1, 0)
