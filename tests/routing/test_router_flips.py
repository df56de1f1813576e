"""When a flip stands: once the other route has answered, with one message, whatever comes in between."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gemini_sync.config import Timeouts
from gemini_sync.errors import (
    GeminiSyncError,
    PermissionDeniedError,
    QuotaError,
    ServerError,
    StreamInterrupted,
)
from gemini_sync.routing import fallback, flips, router
from tests.adapter_kit import BY_KEY, BY_OAUTH, Table, ask, bad_request, forbidden, in_thread, not_found, unavailable
from tests.auth.credentials_kit import Clock, together

MANY = 20


def break_off(table: Table, model: str = "some-model") -> None:
    with pytest.raises(StreamInterrupted):
        list(table.stream(model))


# -- before the first chunk


@pytest.mark.parametrize("by_key", [unavailable, forbidden, bad_request])
def test_both_routes_fail__nothing_has_changed(by_key: Callable[[], GeminiSyncError]) -> None:
    table = Table(forbidden, forbidden, BY_OAUTH, api_key=by_key)
    for _ in range(2):
        with pytest.raises(type(by_key())) as caught:
            table.route()
        assert isinstance(caught.value.__cause__, PermissionDeniedError)
        assert (table.events, table.router.fallback_active) == ([], False)
    assert table.route() == "oauth"


def test_flip__is_told_with_the_first_chunk_of_the_other_route() -> None:
    told: list[int] = []
    table = Table(forbidden, api_key=[lambda: told.append(len(table.events)), "by", " key"])
    reply = table.stream()
    assert next(reply) == "by"
    assert (told, len(table.events), table.router.fallback_active) == ([0], 1, True)
    assert list(reply) == [" key"]
    assert len(table.events) == 1


def test_threads__whose_keys_fail_do_not_flip_and_the_first_answer_does() -> None:
    """All fail on OAuth at the same time; then the key fails all but one of them."""
    barrier, numbers, lock = threading.Barrier(MANY), iter(range(MANY)), threading.Lock()

    def refuse() -> GeminiSyncError:
        barrier.wait(20)
        return forbidden()

    def by_key() -> None:
        with lock:
            if next(numbers) != MANY - 1:
                raise forbidden()

    table = Table(refuse, api_key=[by_key, *BY_KEY])

    def call() -> Any:
        try:
            return table.route()
        except PermissionDeniedError:
            return None

    routes = together(MANY, call)
    assert sorted(map(str, routes)) == ["None"] * (MANY - 1) + ["api_key"]
    assert (len(table.events), table.router.fallback_active) == (1, True)


# -- after the first chunk


def test_break__the_next_call_begins_with_the_key_and_its_answer_flips() -> None:
    table = Table(["by", forbidden], BY_OAUTH)
    break_off(table)
    assert (table.events, table.router.fallback_active, table.router.status().preferred) == ([], False, "oauth")
    reply = table.stream("other-model")
    assert next(reply) == "by"
    (event,) = table.events
    assert (event.model, event.reason) == (None, "PermissionDeniedError: 403 PERMISSION_DENIED.")
    assert isinstance(event.error, PermissionDeniedError)
    assert table.router.fallback_active
    assert table.counts == (1, 1)
    assert [table.route(), len(table.events)] == ["api_key", 1]


@pytest.mark.parametrize("by_key", [unavailable, forbidden, bad_request])
def test_break__if_the_key_fails_as_well_oauth_is_next_again(by_key: Callable[[], GeminiSyncError]) -> None:
    table = Table(["by", forbidden], BY_OAUTH, api_key=by_key)
    break_off(table)
    with pytest.raises(type(by_key())):
        table.route()
    assert len(table.oauth.asked) == 1
    assert (table.events, table.router.fallback_active) == ([], False)
    assert table.route() == "oauth"


def test_break__if_the_call_is_cancelled_the_key_is_still_next() -> None:
    table = Table(["by", forbidden], BY_OAUTH, api_key=[lambda: reply.cancel(), "never"])
    break_off(table)
    reply = table.stream()
    with pytest.raises(StreamInterrupted):
        list(reply)
    table.api_key.steps[:] = [BY_KEY]
    assert table.events == []
    assert (table.route(), len(table.events)) == ("api_key", 1)


def test_break__for_one_model() -> None:
    table = Table(["by", not_found], BY_OAUTH)
    break_off(table)
    assert table.route("other-model") == "oauth"
    assert (table.events, table.router.status().models) == ([], {})
    assert table.route() == "api_key"
    assert [event.model for event in table.events] == ["some-model"]
    assert table.router.status().models == {"some-model": "api_key"}


def test_break__before_a_reset_is_old_news() -> None:
    table = Table(["by", forbidden], BY_OAUTH)
    break_off(table)
    table.router.reset()
    assert (table.route(), table.events) == ("oauth", [])


def test_break__while_the_key_answers_a_reset_keeps_oauth(caplog: pytest.LogCaptureFixture) -> None:
    table = Table(["by", forbidden], BY_OAUTH, api_key=[lambda: table.router.reset(), *BY_KEY])
    break_off(table)
    assert table.route() == "api_key"
    assert (table.events, table.router.fallback_active) == ([], False)
    assert "the API key serves one call, OAuth stays preferred" in caplog.text
    assert table.route() == "oauth"


def test_break__counting_tokens_decides_nothing() -> None:
    table = Table(["by", forbidden], BY_OAUTH)
    break_off(table)
    assert table.router.count_tokens(ask(), Timeouts()) == len(BY_KEY)
    assert (table.counts, table.events) == ((1, 1), [])
    table.api_key.steps[:] = [forbidden]
    assert table.router.count_tokens(ask(), Timeouts()) == len(BY_OAUTH)
    table.api_key.steps[:] = [BY_KEY]
    assert (table.route(), len(table.events)) == ("api_key", 1)


def test_break__of_many_threads_is_one_flip_and_one_message() -> None:
    barrier = threading.Barrier(MANY)

    def refuse() -> GeminiSyncError:
        barrier.wait(20)
        return forbidden()

    table = Table(["by", refuse])
    together(MANY, lambda: break_off(table))
    assert (table.events, table.router.fallback_active) == ([], False)
    assert together(MANY, table.route) == ["api_key"] * MANY
    assert (len(table.events), table.router.fallback_active, table.counts) == (1, True, (MANY, MANY))


def test_break__the_answer_of_another_thread_after_the_key_failed_flips_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two calls begin with the key. One fails, so OAuth is next again; then the other one gets its answer."""
    asked, answer = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        assert answer.wait(20)

    table = Table(["by", forbidden], BY_OAUTH, api_key=[hold, *BY_KEY])
    break_off(table)
    late = in_thread(table.route)
    assert asked.wait(20)
    table.api_key.steps[:] = [forbidden]
    with pytest.raises(PermissionDeniedError):
        table.route()
    answer.set()
    assert late() == "api_key"
    assert (table.events, table.route()) == ([], "oauth")
    assert "the API key serves one call, OAuth stays preferred" in caplog.text


def test_break__of_a_call_from_before_the_flip_changes_nothing() -> None:
    table = Table(["by", lambda: table.route() and forbidden()], forbidden, BY_OAUTH)
    break_off(table)
    assert (len(table.events), table.router.fallback_active) == (1, True)
    table.router.reset()
    assert (table.route(), len(table.events)) == ("oauth", 1)


@pytest.mark.parametrize("error", [unavailable, lambda: QuotaError("429", code=429, reason="MODEL_CAPACITY_EXHAUSTED")])
def test_break__that_would_be_retried_leaves_oauth_next(error: Callable[[], GeminiSyncError]) -> None:
    table = Table(["by", error], BY_OAUTH)
    break_off(table)
    assert (table.route(), table.events) == ("oauth", [])


# -- probes


def test_probe__that_fails_on_both_routes_starts_the_cool_down_again() -> None:
    clock = Clock(0.0)
    table = Table(forbidden, forbidden, BY_OAUTH, clock=clock, sticky_for=60.0)
    assert table.route() == "api_key"
    clock.advance(60.0)
    table.api_key.steps[:] = [unavailable, unavailable, unavailable, BY_KEY]
    with pytest.raises(ServerError):
        table.route()
    assert (table.route(), table.counts, len(table.events)) == ("api_key", (2, 5), 1)
    clock.advance(60.0)
    assert table.route() == "oauth"


# -- Ctrl-C


@pytest.mark.parametrize("story", ["before the first chunk", "after it", "one model", "a probe"])
def test_ctrl_c__at_any_line_loses_no_message_and_flips_once(story: str) -> None:
    files = {module.__file__ for module in (router, flips, fallback)}
    for number in range(1, 1000):
        left = [number]

        def trace(frame: Any, event: str, argument: Any) -> Any:
            return line if frame.f_code.co_filename in files else None

        def line(frame: Any, event: str, argument: Any) -> Any:
            left[0] -= event == "line"  # noqa: B023
            if event == "line" and left[0] == 0:  # noqa: B023
                raise KeyboardInterrupt
            return line

        table = Table(not_found if story == "one model" else forbidden, BY_OAUTH, sticky_for=0)
        if story == "after it":
            table.oauth.steps[0] = ["by", forbidden]
            break_off(table)
        if story == "a probe":
            assert table.route() == "api_key"
        told, stood, reply = len(table.events), table.router.status(), table.stream()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            next(reply)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        stands = table.router.status()
        flipped = (stands.preferred, stands.models) != (stood.preferred, stood.models)
        assert len(table.events) - told == flipped, number
        if left[0] > 0:
            break
    assert number > 20
    assert flipped


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit, RuntimeError])
@pytest.mark.parametrize("step", ["before", "after"])
def test_interrupt__never_flips(interrupt: type[BaseException], step: str) -> None:
    table = Table(interrupt if step == "before" else ["by", interrupt], BY_OAUTH)
    with pytest.raises(interrupt):
        list(table.stream())
    assert (table.counts, table.events, table.slept) == ((1, 0), [], [])
    assert list(table.stream()) == BY_OAUTH
    assert table.router.status().failures == ()
