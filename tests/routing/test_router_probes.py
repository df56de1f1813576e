"""Probes: after the cool-down one call tries OAuth again. The clock is set by hand."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest

from gemini_sync.config import Timeouts
from gemini_sync.errors import (
    DeadlineExceeded,
    GeminiSyncError,
    InvalidRequestError,
    ProtocolError,
    StreamInterrupted,
    TransportError,
    cancelled_error,
)
from tests.adapter_kit import BY_OAUTH, Table, ask, bad_request, forbidden, not_found, validation
from tests.auth.credentials_kit import Clock


def probing(*oauth: Any, **settings: Any) -> tuple[Table, Clock]:
    """A table that has fallen back, with a cool-down of a minute, and its clock."""
    clock = Clock(0.0)
    table = Table(forbidden, *oauth, clock=clock, sticky_for=60.0, **settings)
    assert table.route() == "api_key"
    return table, clock


def test_probe__waits_for_the_cool_down_and_flips_back_visibly() -> None:
    table, clock = probing(BY_OAUTH)
    clock.advance(59.9)
    assert table.route() == "api_key"
    clock.advance(0.1)
    assert table.route() == "oauth"
    assert not table.router.fallback_active
    back = table.events[-1]
    assert (back.from_route, back.to_route, back.error) == ("api_key", "oauth", None)
    assert str(back) == "gemini-sync: the API key hands back to OAuth: a probe succeeded; OAuth serves from now on."
    assert len(table.events) == 2
    assert table.router.status().reason == "a probe succeeded"


def test_probe__that_fails_starts_the_cool_down_again_silently(caplog: pytest.LogCaptureFixture) -> None:
    table, clock = probing(forbidden, BY_OAUTH)
    clock.advance(60.0)
    with caplog.at_level(logging.INFO):
        assert table.route() == "api_key"
    assert "the probe of OAuth failed" in caplog.text
    clock.advance(59.9)
    assert table.route() == "api_key"
    assert table.counts == (2, 3)
    assert len(table.events) == 1
    clock.advance(0.1)
    assert table.route() == "oauth"


@pytest.mark.parametrize(
    "interrupt", [KeyboardInterrupt, bad_request, cancelled_error], ids=["interrupted", "surfaced", "cancelled"]
)
def test_probe__without_an_outcome_lets_another_begin(interrupt: Any) -> None:
    table, clock = probing(interrupt, BY_OAUTH)
    clock.advance(60.0)
    with pytest.raises((KeyboardInterrupt, InvalidRequestError, StreamInterrupted)):
        table.route()
    assert table.router.fallback_active
    assert table.route() == "oauth"


@pytest.mark.parametrize(
    "error",
    [
        DeadlineExceeded("total", deadline="total", seconds=1),
        TransportError("certificate", reason="CERTIFICATE_VERIFY_FAILED"),
        ProtocolError("redirect", code=302),
    ],
    ids=str,
)
def test_probe__that_surfaces_starts_the_cool_down_again(error: GeminiSyncError) -> None:
    """Otherwise each call that follows would probe and fail, although the API key could serve it."""
    table, clock = probing(lambda: copy.copy(error), BY_OAUTH)
    clock.advance(60.0)
    with pytest.raises(type(error)):
        table.route()
    assert [table.route() for _ in range(5)] == ["api_key"] * 5
    clock.advance(60.0)
    assert table.route() == "oauth"


def test_probe__never_counts_tokens() -> None:
    """An account may be able to count and yet not to generate, so the routes would go back and forth."""
    table, clock = probing(BY_OAUTH)
    clock.advance(60.0)
    table.router.count_tokens(ask("some-model"), Timeouts())
    assert (table.counts, table.router.fallback_active) == ((1, 2), True)
    assert table.route() == "oauth"


def test_probe__that_breaks_after_its_first_chunk_flips_again() -> None:
    table, clock = probing(["by", validation])
    clock.advance(60.0)
    with pytest.raises(StreamInterrupted):
        table.route()
    assert not table.router.fallback_active
    assert table.route() == "api_key"
    assert [event.to_route for event in table.events] == ["api_key", "oauth", "api_key"]
    assert table.router.fallback_active


def test_probe__for_an_unknown_model_starts_the_cool_down_again() -> None:
    table, clock = probing(not_found, BY_OAUTH)
    clock.advance(60.0)
    assert [table.route(), table.route()] == ["api_key", "api_key"]
    assert table.counts == (2, 3)
    assert table.router.status().models == {}
    clock.advance(60.0)
    assert table.route() == "oauth"


def test_probe__of_a_blocked_account_sends_nothing() -> None:
    clock = Clock(0.0)
    table = Table(validation, BY_OAUTH, clock=clock, sticky_for=1.0)
    for _ in range(3):
        assert table.route() == "api_key"
        clock.advance(60.0)
    assert len(table.oauth.asked) == 1
    assert len(table.events) == 1


def test_probe__without_a_cool_down_is_made_by_each_call() -> None:
    table = Table(forbidden, forbidden, BY_OAUTH, sticky_for=0)
    assert [table.route(), table.route(), table.route()] == ["api_key", "api_key", "oauth"]
    assert [event.to_route for event in table.events] == ["api_key", "oauth"]


def test_probe__is_off_by_default() -> None:
    clock = Clock(0.0)
    table = Table(forbidden, BY_OAUTH, clock=clock)
    table.route()
    clock.advance(1e9)
    assert table.route() == "api_key"
