"""The state of the fallback: which route is preferred, since when and why."""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Optional, TypeVar

from gemini_sync.errors import GeminiSyncError
from gemini_sync.fork import register_after_fork
from gemini_sync.services.base import API_KEY, OAUTH

_FAILURES_KEPT = 20
# A KeyboardInterrupt at an unlucky moment can leave a probe without an end; after this time another call may probe.
_PROBE_LEASE_SECONDS = 600.0

_T = TypeVar("_T")


class Failure(NamedTuple):
    """A failure that was seen: on which route, when (seconds since the epoch), and what it was."""

    route: str
    at: float
    error: str


@dataclass(frozen=True)
class RouteStatus:
    """Where calls go.

    Attributes:
        preferred: the route of the next call, ``"oauth"`` or ``"api_key"``.
        fallback_active: True when that is not the route the adapter began with.
        since: when that was decided, seconds since the epoch.
        reason: why, or None if nothing has happened.
        failures: the most recent failures, oldest first.
        models: models that go another way than the rest, named as callers name them, with their route.
    """

    preferred: str
    fallback_active: bool
    since: float
    reason: Optional[str]
    failures: tuple[Failure, ...]
    models: Mapping[str, str]


class Choice(NamedTuple):
    """A decision of ``choose()``, to be handed back with the outcome; ``generation`` tells whether it is still news."""

    route: str
    generation: int
    probe: bool = False


class _Snapshot(NamedTuple):
    choice: Choice
    since: float
    reason: Optional[str]
    models: Mapping[str, str]
    flipped_at: float  # monotonic, for the cool-down
    probing: Optional[Choice]  # the probe under way, told from earlier ones by identity
    probed_at: float  # monotonic, when that began
    failures: deque[Failure]  # shared with the snapshots since the last reset(); append and copy are atomic


class FallbackState:
    """The only fallback state: flips at most once per generation, whichever threads report.

    Args:
        home: the route that calls begin with.
        other: the route they fall back to.
        sticky_for: seconds after which one call probes ``home`` again; None for never.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        home: str = OAUTH,
        other: str = API_KEY,
        *,
        sticky_for: Optional[float] = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._home, self._other = home, other
        self._sticky_for = sticky_for
        self._clock, self._wall = clock, wall
        self._snapshot = self._begin(0, None)
        # Guards every assignment of _snapshot. Reading a snapshot, and its failures, needs no lock.
        # Reentrant, because a signal handler may reset in the very thread that holds it.
        self._lock = threading.RLock()
        register_after_fork(self)

    def _begin(self, generation: int, reason: Optional[str]) -> _Snapshot:
        failures: deque[Failure] = deque(maxlen=_FAILURES_KEPT)
        return _Snapshot(Choice(self._home, generation), self._wall(), reason, {}, 0.0, None, 0.0, failures)

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self._snapshot = self._snapshot._replace(probing=None)  # the probing thread is not in this process

    @property
    def fallback_active(self) -> bool:
        return self._snapshot.choice.route != self._home

    def _update(self, decide: Callable[[_Snapshot], tuple[_Snapshot, _T]]) -> _T:
        """Replace the snapshot: ``decide`` makes the new one of the old one, and what this method returns."""
        with self._lock:
            while True:
                before = self._snapshot
                after, outcome = decide(before)
                # One statement, because a signal handler may decide in this very thread; then its decision stands.
                self._snapshot = after if self._snapshot is before else self._snapshot
                if self._snapshot is after:
                    return outcome

    def choose(self, model: str, *, may_probe: bool = True) -> Choice:
        """The route for a call; at most one caller at a time gets a probe after the cool-down."""
        snapshot = self._snapshot
        choice = snapshot.choice
        if choice.route == self._home:
            if snapshot.models and model in snapshot.models:
                return Choice(snapshot.models[model], choice.generation)
        elif may_probe and self._is_probe_due(snapshot, model):
            return self._update(lambda now: self._begin_probe(now, model))
        return choice

    def _is_probe_due(self, now: _Snapshot, model: str) -> bool:
        if self._sticky_for is None or model in now.models:
            return False
        if now.probing is not None and self._clock() - now.probed_at < _PROBE_LEASE_SECONDS:
            return False
        return self._clock() - now.flipped_at >= self._sticky_for

    def _begin_probe(self, now: _Snapshot, model: str) -> tuple[_Snapshot, Choice]:
        if now.choice.route == self._home or not self._is_probe_due(now, model):
            return now, now.choice
        probe = Choice(self._home, now.choice.generation, probe=True)
        return now._replace(probing=probe, probed_at=self._clock()), probe

    def fall_back(self, choice: Choice, reason: str, model: Optional[str] = None) -> bool:
        """``choice`` failed for good: use the other route, for ``model`` alone if one is given.

        Returns True if this call made the flip, False if it was decided before. A failed probe flips nothing: it only
        starts the cool-down again.
        """

        def decide(now: _Snapshot) -> tuple[_Snapshot, bool]:
            if choice.probe:
                return self._cooled_down(now, choice), False
            if choice.generation != now.choice.generation or choice.route != self._home or model in now.models:
                return now, False
            if model is not None:
                return now._replace(models={**now.models, model: self._other}), True
            away = Choice(self._other, choice.generation + 1)
            return now._replace(choice=away, since=self._wall(), reason=reason, flipped_at=self._clock()), True

        return self._update(decide)

    def _cooled_down(self, now: _Snapshot, probe: Choice) -> _Snapshot:
        """``probe`` failed: the next one waits for the whole cool-down."""
        return now._replace(flipped_at=self._clock(), probing=None) if now.probing is probe else now

    def go_back(self, choice: Choice, reason: str) -> Optional[Choice]:
        """The probe ``choice`` got an answer: back to the first route. Returns the choice in force if this flipped."""

        def decide(now: _Snapshot) -> tuple[_Snapshot, Optional[Choice]]:
            if now.probing is not choice:
                return now, None
            home = Choice(self._home, choice.generation + 1)
            return now._replace(choice=home, since=self._wall(), reason=reason, probing=None), home

        return self._update(decide)

    def release(self, choice: Choice) -> None:
        """The probe ``choice`` ended without an outcome (cancelled): another call may probe."""
        self._update(lambda now: (now._replace(probing=None) if now.probing is choice else now, None))

    def is_outdated(self, choice: Choice) -> bool:
        """True if the first route was chosen again after ``choice`` was: the failure of ``choice`` is old news then."""
        current = self._snapshot.choice
        return current.route == self._home and current.generation > choice.generation

    def record(self, route: str, error: str) -> None:
        """Remember a failure for ``status()``."""
        self._snapshot.failures.append(Failure(route, self._wall(), error))

    def reset(self) -> int:
        """Go back to the first route for all models; failures of calls that began before no longer count.

        Returns the generation that begins with it.
        """

        def decide(now: _Snapshot) -> tuple[_Snapshot, int]:
            generation = now.choice.generation + 1
            return self._begin(generation, "reset()"), generation

        return self._update(decide)

    def status(self) -> RouteStatus:
        snapshot = self._snapshot
        return RouteStatus(
            preferred=snapshot.choice.route,
            fallback_active=snapshot.choice.route != self._home,
            since=snapshot.since,
            reason=snapshot.reason,
            failures=tuple(snapshot.failures.copy()),  # others may append while a tuple is made
            models={name.removeprefix("models/"): route for name, route in snapshot.models.items()},
        )


class AccountBlock:
    """An answer that puts the account at stake; after it no OAuth request is made until ``lift()``.

    No lock: each attribute is replaced in one assignment.
    """

    def __init__(self) -> None:
        self._blocked: tuple[int, Optional[GeminiSyncError]] = (0, None)  # with the generation of the call it answered
        self._lifted_at = 0  # answers to calls of older generations do not count

    def error(self) -> Optional[GeminiSyncError]:
        """A copy of the answer in force, to be raised; None if there is none."""
        generation, error = self._blocked
        return copy.copy(error) if error is not None and generation >= self._lifted_at else None

    def note(self, choice: Choice, error: GeminiSyncError) -> None:
        """Block OAuth because of ``error``, unless it is blocked."""
        if self.error() is None:
            self._blocked = (choice.generation, copy.copy(error))

    def lift(self, reset: Callable[[], int]) -> None:
        """Lift the block together with ``reset``, which returns the generation that begins with it."""
        self._blocked = (0, None)  # first, so that calls which begin with the reset do not find it
        self._lifted_at = reset()
