"""Waits and deadlines on real sockets: each kind of hint, first_token, idle and total, on both routes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any, Optional

import pytest

from gemini_sync import DeadlineExceeded, QuotaError, Retry, StreamInterrupted, Timeouts
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import TIMEOUTS, Rig
from tests.auth.credentials_kit import Clock

RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
# What the server says, and how long the call waits at least; None if the other route is asked at once.
HINTS: dict[str, tuple[dict[str, Any], Optional[float]]] = {
    "RetryInfo": ({"retry_delay": "2s"}, 2.0),
    "RetryInfo with a fraction": ({"retry_delay": "3.25s"}, 3.25),
    "RetryInfo in milliseconds": ({"retry_delay": "4500ms"}, 4.5),
    "RetryInfo as an object": ({"retry_delay": {"seconds": 2, "nanos": 500_000_000}}, 2.5),
    "RetryInfo at the limit": ({"retry_delay": "10s"}, 10.0),
    "RetryInfo beyond": ({"retry_delay": "10.1s"}, None),
    "RetryInfo that is garbage": ({"retry_delay": "soon"}, 0.0),
    "Retry-After": ({"headers": {"Retry-After": "3"}}, 3.0),
    "Retry-After beyond": ({"headers": {"Retry-After": "3600"}}, None),
    "Retry-After as a date": ({"headers": {"Retry-After": formatdate(time.time() + 3600, usegmt=True)}}, None),
    "Retry-After as a date gone by": ({"headers": {"Retry-After": formatdate(0, usegmt=True)}}, 0.0),
    "Retry-After that is garbage": ({"headers": {"Retry-After": "after lunch"}}, 0.0),
    "Retry-After that is negative": ({"headers": {"Retry-After": "-5"}}, 0.0),
    "RetryInfo before Retry-After": ({"retry_delay": "2s", "headers": {"Retry-After": "3600"}}, 2.0),
    "quotaResetDelay": ({"reason": "RATE_LIMIT_EXCEEDED", "metadata": {"quotaResetDelay": "4s"}}, 4.0),
    "quotaResetDelay beyond": ({"reason": "RATE_LIMIT_EXCEEDED", "metadata": {"quotaResetDelay": "1h2m3s"}}, None),
    "text": ({"message": "You exceeded your quota. Please retry in 5.5s."}, 5.5),
    "text beyond": ({"message": "Your quota will reset after 1h2m3s."}, None),
    "no hint": ({}, 0.0),
}  # fmt: skip


@pytest.fixture
def rig(emulator: Emulator, tmp_path: Path) -> Iterator[Rig]:
    with Rig(emulator, tmp_path) as rig:
        yield rig


@pytest.mark.parametrize(("told", "least"), HINTS.values(), ids=HINTS)
@pytest.mark.parametrize("route", ["oauth", "api_key"])
def test_429__hint(rig: Rig, route: str, told: dict[str, Any], least: Optional[float]) -> None:
    getattr(rig.emulator, route).fail(429, **told)
    adapter = rig.adapter(**({"oauth_creds_path": None} if route == "api_key" else {}))
    if least is None and route == "api_key":
        with pytest.raises(QuotaError) as caught:
            adapter.generate("Hi")
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 10
        assert (rig.counts, rig.slept) == ((0, 1), [])
        return
    reply = adapter.generate("Hi")
    assert reply.route == (route if least is not None else "api_key")
    assert rig.counts == {("oauth", True): (2, 0), ("oauth", False): (1, 1)}.get((route, least is not None), (0, 2))
    if least is None:
        assert rig.slept == []
        assert (len(rig.flips), reply.attempts[0].retry_after is not None) == (1, True)
    else:
        (wait,) = rig.slept
        assert max(least, 0.25) <= wait <= max(least * 1.2, 0.5)


def test_429__limit_of_the_wait_is_the_callers(rig: Rig) -> None:
    rig.emulator.oauth.fail(429, times=2, retry_delay="60s")
    assert rig.adapter(retry=Retry(wait_limit=60.0)).generate("Hi").route == "oauth"
    assert [60.0 <= seconds <= 72.0 for seconds in rig.slept] == [True, True]
    rig.emulator.oauth.fail(429, retry_delay="2s")
    assert rig.adapter(retry=Retry(wait_limit=0.0)).generate("Hi").route == "api_key"
    assert len(rig.slept) == 2


def test_429__short_hint_has_bounded_attempts(rig: Rig) -> None:
    rig.emulator.oauth.fail(429, times=None, retry_delay="2s")
    reply = rig.adapter(retry=Retry(5)).generate("Hi")
    assert [(attempt.route, attempt.retry_after) for attempt in reply.attempts] == [("oauth", 2.0)] * 5 + [
        ("api_key", None)
    ]
    assert rig.counts == (5, 1)
    assert [2.0 <= seconds <= 4.0 for seconds in rig.slept] == [True] * 4


@pytest.mark.parametrize(
    ("fault", "arguments"), [("stall", {}), ("stall", {"after": 0})], ids=["no headers", "headers and no event"]
)
def test_first_token__flips_without_another_try(rig: Rig, fault: str, arguments: dict[str, Any]) -> None:
    adapter = rig.adapter()
    adapter.generate("Hi")
    rig.emulator.oauth.fail(fault, times=None, **arguments)
    reply = adapter.generate("Hi", timeouts=Timeouts(first_token=0.3))
    assert (reply.text, reply.route) == (default_text("Hi"), "api_key")
    failed = reply.attempts[0].error
    assert isinstance(failed, DeadlineExceeded)
    assert (failed.deadline, failed.seconds) == ("first_token", 0.3)
    assert rig.counts == (2, 1)
    assert adapter.generate("Hi").route == "api_key"
    assert len(rig.flips) == 1
    assert "first_token deadline" in rig.flips[0].reason


@pytest.mark.parametrize(
    ("fault", "arguments"),
    [("drip_headers", {}), ("drip", {"data": b":\n"}), ("drip", {"data": b"d"})],
    ids=["a header that never ends", "only pings", "an event that never ends"],
)
def test_first_token__holds_while_bytes_drip_in(rig: Rig, fault: str, arguments: dict[str, Any]) -> None:
    """The clock jumps as the request arrives, so the deadline has passed at the next byte."""
    clock = Clock(0.0)
    adapter = rig.adapter(clock=clock)
    rig.emulator.oauth.fail(fault, interval=0.001, before=lambda: clock.advance(TIMEOUTS.first_token), **arguments)
    reply = adapter.generate("Hi")
    assert reply.route == "api_key"
    assert isinstance(reply.attempts[0].error, DeadlineExceeded)
    assert reply.attempts[0].error.deadline == "first_token"
    assert reply.attempts[0].seconds == TIMEOUTS.first_token
    assert rig.counts == (1, 1)


@pytest.mark.parametrize("data", [b":\n", b"d"], ids=["pings", "an event that never ends"])
def test_idle__holds_while_bytes_drip_in(rig: Rig, data: bytes) -> None:
    """The clock moves each time it is read, so with each byte that arrives."""
    ticks = itertools.count()
    rig.emulator.oauth.answer(text="one two")
    rig.emulator.oauth.fail("drip", after=2, interval=0.001, data=data)
    adapter = rig.adapter(clock=lambda: float(next(ticks)), timeouts=Timeouts(None, None, idle=50.0))
    with pytest.raises(StreamInterrupted) as caught:
        adapter.generate("Hi")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one two"
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    assert caught.value.__cause__.deadline == "idle"
    assert rig.counts == (1, 0)
    assert adapter.generate("Hi").route == "oauth"


@pytest.mark.parametrize("where", ["token", "load_code_assist", "oauth", "api_key"])
def test_total__surfaces_wherever_it_passes(rig: Rig, where: str) -> None:
    """No other route is asked after it."""
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
    if where == "api_key":
        rig.path.unlink()
    getattr(rig.emulator, where).fail("drip_headers", times=None, interval=0.001)
    ticks = itertools.count()
    adapter = rig.adapter(clock=lambda: next(ticks) / 100, timeouts=Timeouts(total=1.5))
    with pytest.raises(DeadlineExceeded) as caught:
        adapter.generate("Hi")
    assert (caught.value.deadline, caught.value.seconds) == ("total", 1.5)
    assert rig.emulator.requests[-1].route == where
    assert (rig.flips, adapter.fallback_active) == ([], False)
    assert [attempt.route for attempt in caught.value.attempts] == (
        ["oauth", "api_key"] if where == "api_key" else ["oauth"]
    )


def test_total__in_the_middle_of_an_answer(rig: Rig) -> None:
    ticks = itertools.count()
    rig.emulator.oauth.answer(text="one two")
    rig.emulator.oauth.fail("drip", after=1, interval=0.001)
    adapter = rig.adapter(clock=lambda: float(next(ticks)), timeouts=Timeouts(None, None, None, total=100.0))
    with pytest.raises(StreamInterrupted) as caught:
        adapter.generate("Hi")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one"
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    assert caught.value.__cause__.deadline == "total"
    assert rig.counts == (1, 0)
    assert not adapter.fallback_active
