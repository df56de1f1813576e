"""The fallback state beside a much simpler model, with random calls that report in random order."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from gemini_sync.errors import GeminiSyncError
from gemini_sync.routing.fallback import FallbackState
from gemini_sync.routing.snapshot import Choice, PendingFlip
from gemini_sync.services.base import API_KEY, OAUTH

_MODELS = st.sampled_from(["a", "b"])


class Interleavings(RuleBasedStateMachine):
    """Any number of callers keep their choices as long as they like, and report in any order."""

    choices = Bundle("choices")
    sticky_for: Optional[float] = None

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.state = FallbackState(clock=lambda: self.now, wall=lambda: 5000 + self.now)
        # The model.
        self.epoch = 0  # counts the decisions
        self.fallen = False
        self.cool_since = 0.0
        self.probe: Optional[Choice] = None  # the probe that is running
        self.models: set[str] = set()
        self.pending: dict[Optional[str], PendingFlip] = {}
        self.failures: list[tuple[str, str]] = []
        self.since, self.reason = 5000.0, None  # type: tuple[float, Optional[str]]

    def decide(self, fallen: bool, reason: str) -> None:
        self.epoch += 1
        self.fallen, self.probe, self.cool_since, self.pending = fallen, None, self.now, {}
        self.since, self.reason = 5000 + self.now, reason

    @rule(target=choices, model=_MODELS)
    def choose(self, model: str) -> tuple[Choice, str]:
        choice = self.state.choose(model)
        cool = self.sticky_for is not None and self.now - self.cool_since >= self.sticky_for
        probes = self.fallen and cool and self.probe is None and model not in self.models
        if probes:
            self.probe = choice
        own = self.fallen or model in self.models
        flip = None if own else self.pending.get(None, self.pending.get(model))
        away = model in self.models or flip is not None or (self.fallen and not probes)
        assert choice == Choice(API_KEY if away else OAUTH, self.epoch, probe=probes, flip=flip)
        assert choice.flip is flip
        return choice, model

    @rule(made=choices, reason=st.sampled_from(["401", "503"]))
    def fall_back(self, made: tuple[Choice, str], reason: str) -> None:
        choice, _ = made
        flips = self.is_open(choice) and not choice.probe and choice.generation == self.epoch
        assert self.state.fall_back(choice, reason, cool_down=self.sticky_for) is flips
        if flips:
            self.decide(True, reason)
        elif choice is self.probe:
            self.probe, self.cool_since = None, self.now

    @rule(made=choices)
    def fall_back_for_a_model(self, made: tuple[Choice, str]) -> None:
        choice, model = made
        news = not choice.probe and choice.generation == self.epoch and model not in self.models
        flips = self.is_open(choice) and news
        assert self.state.fall_back(choice, "404", model) is flips
        if flips:
            self.models.add(model)
            self.pending.pop(model, None)
        elif choice is self.probe:
            self.probe, self.cool_since = None, self.now

    def is_open(self, choice: Choice) -> bool:
        if choice.flip is None:
            return choice.route == OAUTH
        return self.pending.get(choice.flip.model) is choice.flip

    @rule(made=choices, alone=st.booleans())
    def break_off(self, made: tuple[Choice, str], alone: bool) -> None:
        choice, model = made
        flip = PendingFlip("403", GeminiSyncError("403"), model if alone else None)
        self.state.fall_back_if_answered(choice, flip)
        news = choice.route == OAUTH and choice.generation == self.epoch and not self.fallen
        if news and flip.model not in {*self.pending, *self.models}:
            self.pending[flip.model] = flip

    @rule(made=choices)
    def drop(self, made: tuple[Choice, str]) -> None:
        flip = made[0].flip
        if flip is not None:
            self.state.drop(flip)
            self.pending = {model: kept for model, kept in self.pending.items() if kept is not flip}

    @rule(made=choices)
    def go_back(self, made: tuple[Choice, str]) -> None:
        choice, _ = made
        flips = choice is self.probe
        if flips:
            self.decide(False, "answered")
        assert self.state.go_back(choice, "answered") == (Choice(OAUTH, self.epoch) if flips else None)

    @rule(made=choices)
    def release(self, made: tuple[Choice, str]) -> None:
        self.state.release(made[0])
        if made[0] is self.probe:
            self.probe = None

    @rule()
    def reset(self) -> None:
        self.state.reset()
        self.decide(False, "reset()")
        self.models, self.failures = set(), []

    @rule(seconds=st.sampled_from([1.0, 5.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(route=st.sampled_from([OAUTH, API_KEY]), times=st.sampled_from([1, 15]))
    def record(self, route: str, times: int) -> None:
        for number in range(times):
            self.state.record(route, str(number))
            self.failures.append((route, str(number)))

    @rule(made=choices)
    def serves_from_home(self, made: tuple[Choice, str]) -> None:
        assert self.state.serves_from_home(made[1]) is not (self.fallen or made[1] in self.models)

    @invariant()
    def status_agrees(self) -> None:
        status = self.state.status()
        assert self.state.fallback_active is status.fallback_active is self.fallen
        assert (status.preferred, status.since, status.reason) == (
            API_KEY if self.fallen else OAUTH,
            self.since,
            self.reason,
        )
        assert status.models == dict.fromkeys(self.models, API_KEY)
        assert [(failure.route, failure.error) for failure in status.failures] == self.failures[-20:]


class InterleavingsWithProbes(Interleavings):
    sticky_for = 10.0


@pytest.mark.parametrize("machine", [Interleavings, InterleavingsWithProbes])
def test_any_interleaving(machine: Any) -> None:
    case = machine.TestCase
    case.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
    case("runTest").runTest()
