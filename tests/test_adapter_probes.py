"""One call probes OAuth after the cool-down, while the API key serves all other threads."""

from __future__ import annotations

from typing import Any

import pytest

from gemini_sync import Reply, StreamInterrupted
from tests.adapter_kit import Asker, Gate, Rig, in_thread
from tests.auth.credentials_kit import Clock, together

# -- probes


class Probing:
    """An adapter that has fallen back and may probe OAuth now, and a gate for that probe."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.clock, self.gate = rig, Clock(0.0), Gate()
        self.adapter = rig.adapter(sticky_for=60.0, clock=self.clock)
        self.ask = Asker(self.adapter)
        rig.emulator.oauth.fail(403)
        assert self.ask() == "api_key"
        self.clock.advance(60.0)

    def probe_beside_others(self) -> Any:
        """The route that a probe gives; while it runs, the key serves all other calls."""
        probe = in_thread(self.ask)
        self.gate.await_arrivals()
        assert together(8, self.ask) == ["api_key"] * 8
        assert self.rig.counts == (2, 9)
        self.gate.open()
        return probe()


def test_probe__success_goes_back_to_oauth(rig: Rig) -> None:
    probing = Probing(rig)
    rig.emulator.oauth.answer(times=1, before=probing.gate)
    assert probing.probe_beside_others() == "oauth"
    assert not probing.adapter.fallback_active
    assert together(8, probing.ask) == ["oauth"] * 8
    assert [(event.from_route, event.to_route) for event in rig.flips] == [("oauth", "api_key"), ("api_key", "oauth")]
    assert "OAuth serves from now on" in str(rig.flips[-1])


def test_probe__failure_starts_the_cool_down_again(rig: Rig) -> None:
    probing = Probing(rig)
    rig.emulator.oauth.fail(403, before=probing.gate)
    assert probing.probe_beside_others() == "api_key"
    probing.clock.advance(59.0)
    assert together(8, probing.ask) == ["api_key"] * 8
    assert (rig.counts, len(rig.flips)) == ((2, 18), 1)
    probing.clock.advance(1.0)
    assert probing.ask() == "oauth"


def test_probe__cancelled_lets_the_next_call_probe(rig: Rig) -> None:
    probing = Probing(rig)
    rig.emulator.oauth.fail("stall", before=probing.gate)
    reply: Reply = probing.adapter.stream("Hi")
    probe = in_thread(lambda: list(reply))
    probing.gate.await_arrivals()
    assert probing.ask() == "api_key"
    reply.cancel()
    with pytest.raises(StreamInterrupted) as caught:
        probe()
    assert caught.value.cancelled
    probing.gate.open()
    assert probing.adapter.fallback_active
    assert probing.ask() == "oauth"
    assert len(rig.flips) == 2


def test_probe__outdated_by_a_reset_changes_nothing(rig: Rig) -> None:
    probing = Probing(rig)
    rig.emulator.oauth.answer(times=1, before=probing.gate)
    probe = in_thread(probing.ask)
    probing.gate.await_arrivals()
    probing.adapter.reset()
    rig.emulator.oauth.fail(403)
    assert probing.ask() == "api_key"
    probing.gate.open()
    assert probe() == "oauth"
    assert probing.adapter.fallback_active
    assert [event.to_route for event in rig.flips] == ["api_key", "api_key"]
