"""The options for programs that run for weeks, on real sockets; the clock is set by hand."""

from __future__ import annotations

import threading

import pytest

from gemini_sync import Retry, notify_stderr
from tests.adapter_kit import Rig
from tests.auth.credentials_kit import Clock, together

DAY = 86400.0
MANY = 20


def test_quota__comes_back_at_its_reset(rig: Rig) -> None:
    clock = Clock(0.0)
    adapter = rig.adapter(sticky_for="hint", clock=clock)
    rig.emulator.oauth.fail(429, reason="QUOTA_EXHAUSTED", metadata={"quotaResetDelay": "13h8m5.2s"})
    assert [adapter.generate("Hi").route for _ in range(2)] == ["api_key", "api_key"]
    clock.advance(13 * 3600)
    assert adapter.generate("Hi").route == "api_key"
    clock.advance(8 * 60 + 6)
    assert adapter.generate("Hi").route == "oauth"
    assert [event.to_route for event in rig.flips] == ["api_key", "oauth"]
    assert rig.counts == (2, 3)


def test_quota__of_one_model_moves_it_alone_and_comes_back(rig: Rig) -> None:
    clock = Clock(0.0)
    adapter = rig.adapter(sticky_for="hint", quota_by_model=True, clock=clock)
    metadata = {"quotaResetDelay": "1h", "model": "gemini-3-pro"}
    rig.emulator.oauth.fail(429, reason="QUOTA_EXHAUSTED", metadata=metadata)
    models = ["gemini-3-pro", "gemini-3-flash", "gemini-3-pro"]
    assert [adapter.generate("Hi", model=model).route for model in models] == ["api_key", "oauth", "api_key"]
    assert (adapter.fallback_active, adapter.route_status().models) == (False, {"gemini-3-pro": "api_key"})
    clock.advance(3600)
    assert [adapter.generate("Hi", model=model).route for model in models] == ["oauth"] * 3
    assert [event.model for event in rig.flips] == ["gemini-3-pro", "gemini-3-pro"]


def test_reminder__is_a_line_a_day(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(0.0)
    adapter = rig.adapter(remind_every=DAY, clock=clock, on_fallback=notify_stderr)
    rig.emulator.oauth.fail(403, times=None)
    assert adapter.generate("Hi").route == "api_key"
    assert "OAuth failed" in capsys.readouterr().err
    for _ in range(3):
        for _ in range(3):
            clock.advance(DAY / 3)
            assert adapter.generate("Hi").route == "api_key"
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("gemini-sync: the API key still serves, since ")
        assert "because OAuth failed (PermissionDeniedError: 403 PERMISSION_DENIED" in line
    assert rig.counts == (1, 10)


def test_hint__of_many_threads_at_once_is_spread_above_it(rig: Rig) -> None:
    adapter, barrier = rig.adapter(retry=Retry(hint_spread=10)), threading.Barrier(MANY)
    rig.emulator.oauth.fail(429, retry_delay="1s", times=MANY, before=lambda: barrier.wait(20))
    assert together(MANY, lambda: adapter.generate("Hi").text != "") == [True] * MANY
    assert len(rig.slept) == MANY
    assert min(rig.slept) >= 1
    assert max(rig.slept) - min(rig.slept) > 1  # by chance less in one of 10**17 runs
