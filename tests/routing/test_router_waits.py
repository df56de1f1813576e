"""The router's waits and deadlines, and how calls end; the clock is set by hand."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gemini_sync.config import Retry, Timeouts
from gemini_sync.errors import (
    ConfigError,
    DeadlineExceeded,
    GeminiSyncError,
    PermissionDeniedError,
    QuotaError,
    StreamInterrupted,
)
from gemini_sync.routing.policy import Decision, decide
from tests.adapter_kit import BY_KEY, BY_OAUTH, Table, ask, forbidden, gist, in_thread, kept, unavailable
from tests.auth.credentials_kit import Clock, Slept


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: low)


# -- waits and deadlines


def test_wait__grows_with_jitter_up_to_a_cap(caplog: pytest.LogCaptureFixture) -> None:
    table = Table(unavailable, retry=Retry(7, backoff_base=0.5, backoff_cap=3.0))
    with caplog.at_level(logging.INFO):
        table.route()
    assert len(table.slept) == 6
    for wait, most in zip(table.slept, (0.5, 1.0, 2.0, 3.0, 3.0, 3.0)):
        assert most / 2 <= wait <= most
    lines = [record.getMessage() for record in caplog.records if "the next in" in record.getMessage()]
    assert lines[0] == f"try 1 failed, the next in {table.slept[0]:.2f} s: 503 UNAVAILABLE."


def test_wait__is_at_least_what_the_server_asks_for() -> None:
    for hint, least in ((9.5, 9.5), (0.001, 0.25)):
        table = Table(lambda hint=hint: QuotaError("429", code=429, retry_after=hint), BY_OAUTH)
        assert table.route() == "oauth"
        assert len(table.slept) == 1
        assert least <= table.slept[0] <= max(hint * 1.2, 0.5)


def test_wait__after_a_thousand_tries() -> None:
    table = Table(unavailable, retry=Retry(1100))
    assert table.route() == "api_key"
    assert len(table.slept) == 1099


@pytest.mark.parametrize("key_seconds", [1.0, 4.0])
def test_total__covers_retries_and_fallback(no_jitter: None, key_seconds: float) -> None:
    """If the next wait would take longer than what is left, the other route is asked at once."""
    clock = Clock(0.0)

    def slow() -> GeminiSyncError:
        clock.advance(4.0)
        return QuotaError("429", code=429, retry_after=3.0)

    by_key = [lambda: clock.advance(key_seconds), "by key"]
    table = Table(slow, api_key=by_key, clock=clock, sleep=Slept(clock), retry=Retry(9, backoff_base=0))
    reply = table.stream(timeouts=Timeouts(total=13.0))
    if key_seconds < 2.0:
        assert list(reply) == ["by key"]
        attempts = reply.attempts
    else:
        with pytest.raises(DeadlineExceeded) as caught:
            list(reply)
        assert (caught.value.deadline, caught.value.seconds, caught.value.route) == ("total", 13.0, "api_key")
        assert isinstance(caught.value.__cause__, QuotaError)
        attempts = caught.value.attempts
    assert clock() == 4 + 3 + 4 + key_seconds
    assert [(attempt.route, attempt.seconds) for attempt in attempts] == [
        ("oauth", 4.0),
        ("oauth", 4.0),
        ("api_key", key_seconds),
    ]


def test_total__that_passes_during_a_wait_surfaces_with_its_attempts() -> None:
    clock = Clock(0.0)

    def oversleep(seconds: float) -> None:
        clock.advance(100.0)

    table = Table(unavailable, clock=clock, sleep=oversleep)
    with pytest.raises(DeadlineExceeded) as caught:
        list(table.stream(timeouts=Timeouts(total=60.0)))
    assert (caught.value.deadline, caught.value.route) == ("total", "oauth")
    assert kept(caught.value.attempts) == [gist(unavailable())]
    assert table.counts == (1, 0)
    assert not table.router.fallback_active


def test_total__starts_with_the_first_next() -> None:
    clock = Clock(0.0)
    table = Table(BY_OAUTH, clock=clock)
    reply = table.stream(timeouts=Timeouts(total=1.0))
    clock.advance(100.0)
    assert "".join(reply) == "by OAuth"


def test_retrying__each_call_sleeps_in_its_own_way(no_jitter: None) -> None:
    """Two calls of each of two routers wait at the same time."""
    together, of_thread = threading.Barrier(4, timeout=20), threading.local()

    def stream(table: Table, hint: float) -> Callable[[], Any]:
        def work() -> tuple[list[str], list[Any]]:
            of_thread.slept, of_thread.hint = [], hint
            return list(table.stream()), of_thread.slept

        return in_thread(work)

    def busy() -> GeminiSyncError:
        return QuotaError("429", code=429, retry_after=of_thread.hint)

    def sleep_of(name: str) -> Callable[[float], None]:
        def sleep(seconds: float) -> None:
            together.wait()
            of_thread.slept.append((name, seconds))
            together.wait()

        return sleep

    tables = {name: Table(busy, sleep=sleep_of(name)) for name in ("a", "b")}
    calls = {(name, hint): stream(tables[name], hint) for name in tables for hint in (5.0, 7.0)}
    assert {key: result() for key, result in calls.items()} == {key: (BY_KEY, [key, key]) for key in calls}


def test_retrying__with_a_call_inside_a_policy() -> None:
    """A policy runs in the thread of the call and may use the router, and so may a log handler."""
    inner: list[Any] = []

    def policy(error: BaseException) -> Decision:
        if not inner:
            inner.append(None)
            inner.append(table.router.count_tokens(ask(), Timeouts()))
        return decide(error)

    table = Table(unavailable, BY_OAUTH, policy=policy)
    assert list(table.stream()) == BY_OAUTH
    assert inner == [None, len(BY_OAUTH)]


# -- cancelling and closing


def test_cancel__before_the_first_chunk_never_flips() -> None:
    table = Table([lambda: reply.cancel(), "never"])
    reply = table.stream()
    with pytest.raises(StreamInterrupted) as caught:
        list(reply)
    assert caught.value.cancelled
    assert [attempt.outcome for attempt in caught.value.attempts] == ["cancelled"]
    assert (table.counts, table.events, table.router.status().failures) == ((1, 0), [], ())


def test_cancel__during_a_wait_never_flips() -> None:
    table = Table(unavailable, sleep=lambda seconds: reply.cancel())
    reply = table.stream()
    with pytest.raises(StreamInterrupted) as caught:
        list(reply)
    assert caught.value.cancelled
    assert (caught.value.route, [attempt.outcome for attempt in caught.value.attempts]) == ("oauth", ["failed"])
    assert kept(caught.value.attempts) == [gist(unavailable())]
    assert (table.counts, table.events) == ((1, 0), [])


def test_cancel__on_the_second_route_keeps_the_first_error() -> None:
    table = Table(forbidden, api_key=[lambda: reply.cancel(), "never"])
    reply = table.stream()
    with pytest.raises(StreamInterrupted) as caught:
        list(reply)
    assert caught.value.cancelled
    assert isinstance(caught.value.__cause__, PermissionDeniedError)
    assert [attempt.outcome for attempt in caught.value.attempts] == ["failed", "cancelled"]


@pytest.mark.parametrize("when", ["before the first chunk", "after it"])
def test_cancelled__never_flips_if_the_call_fails_as_well(when: str) -> None:
    def fails() -> GeminiSyncError:
        reply.cancel()
        return forbidden()

    table = Table(fails if when == "before the first chunk" else ["by", fails], BY_OAUTH)
    reply = table.stream()
    with pytest.raises(StreamInterrupted) as caught:
        list(reply)
    assert caught.value.cancelled
    assert caught.value.attempts[-1].outcome == "cancelled"
    assert (table.events, table.router.fallback_active, table.router.status().failures) == ([], False, ())
    assert table.route() == "oauth"


def test_close__refuses_new_calls_and_cancels_old_ones() -> None:
    table = Table(BY_OAUTH)
    early = table.stream()
    table.router.close()
    table.router.close()
    with pytest.raises(ConfigError, match="closed"):
        table.stream()
    with pytest.raises(ConfigError, match="closed"):
        table.router.count_tokens(ask(), Timeouts())
    with pytest.raises(StreamInterrupted) as caught:
        next(early)
    assert caught.value.cancelled
    assert table.events == []


def test_fork__leaves_the_calls_of_the_parent_alone() -> None:
    table = Table(BY_OAUTH)
    reply = table.stream()
    assert next(reply) == "by"
    table.router.after_fork()
    table.router.close()
    assert list(reply) == [" OAuth"]


def test_reply__that_is_closed_closes_the_stream_below() -> None:
    ended: list[str] = []

    class Watched(list[str]):
        def __iter__(self) -> Any:
            try:
                yield from super().__iter__()
            finally:
                ended.append("closed")

    table = Table(Watched(BY_OAUTH), BY_KEY)
    with table.stream() as reply:
        assert next(reply) == "by"
        assert ended == []
    assert ended == ["closed"]
    assert [attempt.outcome for attempt in reply.attempts] == ["answered"]
