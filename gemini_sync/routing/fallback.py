"""The state of the fallback: which route is preferred, since when and why."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Optional

from gemini_sync.errors import GeminiSyncError
from gemini_sync.fork import register_after_fork
from gemini_sync.network.deadlines import Clock, monotonic
from gemini_sync.routing.snapshot import Choice, Failure, PendingFlip, Snapshot
from gemini_sync.services.base import API_KEY, OAUTH

_FAILURES_KEPT = 20
# A KeyboardInterrupt can come before a probe is released. After this time another call may probe all the same.
_PROBE_LEASE_SECONDS = 600.0


@dataclass(frozen=True)
class RouteStatus:
    """Where calls go.

    Attributes:
        preferred: the route that calls begin with, ``"oauth"`` or ``"api_key"``; a call after one that broke off may
            begin with the other one, and this changes as soon as that answers.
        fallback_active: True if that is not the route the adapter began with.
        since: when that was decided, seconds since the epoch.
        reason: why, or None if nothing has happened.
        failures: the most recent failures, oldest first.
        models: the models that have a route of their own, by the name that callers use.
    """

    preferred: str
    fallback_active: bool
    since: float
    reason: Optional[str]
    failures: tuple[Failure, ...]
    models: Mapping[str, str]


class FallbackState:
    """The fallback state of one adapter. If many threads report the same failure, it flips once.

    Args:
        home: the route that calls begin with.
        sticky_for: seconds after which one call probes ``home`` again; None for never.
        clock, wall: monotonic seconds, and seconds since the epoch.

    Attributes:
        snapshot: the state now; reading it needs no lock.
    """

    def __init__(
        self,
        home: str = OAUTH,
        *,
        sticky_for: Optional[float] = None,
        clock: Clock = monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._home = home
        self._cool_down = math.inf if sticky_for is None else sticky_for
        self._clock, self._wall = clock, wall
        self.snapshot = self._first_snapshot(0, None)
        # Guards each assignment of snapshot. Reentrant, because a signal handler may call reset() in the very thread
        # that holds it.
        self._lock = threading.RLock()
        register_after_fork(self)

    def _first_snapshot(self, generation: int, reason: Optional[str]) -> Snapshot:
        return Snapshot(Choice(self._home, generation), self._wall(), reason, deque(maxlen=_FAILURES_KEPT), {})

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        if self.snapshot.probe is not None:
            self.release(self.snapshot.probe)  # the thread that probes is in the parent process

    def _update(self, decide: Callable[[Snapshot], Snapshot]) -> Optional[Snapshot]:
        """Replace the snapshot by what ``decide`` makes of it, and return the new one; None if it stays as it is.

        The lock keeps other threads out, but not a signal handler that runs in this thread. If a handler replaces the
        snapshot meanwhile, its decision stands, and ``decide`` is called again with its snapshot.
        """
        with self._lock:
            while True:
                before = self.snapshot
                after = decide(before)
                # One statement: if a handler ran between a test and an assignment, its decision would be lost.
                self.snapshot = after if self.snapshot is before else self.snapshot
                if self.snapshot is after:
                    return None if after is before else after

    # -- choosing a route

    def choose(self, model: str, *, may_probe: bool = True) -> Choice:
        """The route for a call; after the cool-down, one call at a time becomes the probe."""
        now = self.snapshot
        if now.choice.route == self._home:
            if model in now.models:
                return Choice(now.models[model], now.choice.generation)
            flip = (now.pending.get(None) or now.pending.get(model)) if now.pending else None
            return Choice(API_KEY, now.choice.generation, flip=flip) if flip else now.choice
        if may_probe and self._is_probe_due(now, model):
            after = self._update(lambda now: self._with_probe(now, model))
            return (after and after.probe) or self.snapshot.choice
        return now.choice

    def _is_probe_due(self, now: Snapshot, model: str) -> bool:
        return self._clock() >= now.next_probe_at and model not in now.models

    def _with_probe(self, now: Snapshot, model: str) -> Snapshot:
        if now.choice.route == self._home or not self._is_probe_due(now, model):
            return now  # another thread was faster
        probe = Choice(self._home, now.choice.generation, probe=True)
        return now._replace(probe=probe, next_probe_at=self._clock() + _PROBE_LEASE_SECONDS)

    def serves_from_home(self, model: str) -> bool:
        """True if calls for ``model`` go to the first route, whatever flip waits for an answer."""
        now = self.snapshot
        return now.models.get(model, now.choice.route) == self._home

    # -- the outcome of a call

    def fall_back(
        self, choice: Choice, reason: str, model: Optional[str] = None, event: Optional[object] = None
    ) -> bool:
        """Use the other route, which has answered after ``choice`` failed; for ``model`` alone if one is given.

        Returns True if this call made the flip, False if it was decided before. ``snapshot.event`` is ``event`` then.
        A failed probe flips nothing: it only starts the cool-down again.
        """

        def decide(now: Snapshot) -> Snapshot:
            flip = choice.flip
            waits = choice.route == self._home if flip is None else now.pending.get(flip.model) is flip
            if choice.generation != now.choice.generation or not waits or model in now.models:
                return now
            if model is not None:
                models, pending = {**now.models, model: API_KEY}, {**now.pending}
                pending.pop(model, None)
                return now._replace(models=models, pending=pending, event=event)
            now = now._replace(choice=Choice(API_KEY, choice.generation + 1), pending={}, event=event)
            probe_at = self._clock() + self._cool_down
            return now._replace(since=self._wall(), reason=reason, next_probe_at=probe_at)

        if choice.probe:
            self.release(choice, self._cool_down)
            return False
        return self._update(decide) is not None

    def fall_back_if_answered(self, choice: Choice, flip: PendingFlip) -> None:
        """``choice`` broke off after its first chunk: the next calls begin with the other route and may make ``flip``.

        The first of several such failures counts.
        """

        def decide(now: Snapshot) -> Snapshot:
            news = choice.generation == now.choice.generation and choice.route == now.choice.route == self._home
            if not news or flip.model in now.pending or flip.model in now.models:
                return now
            return now._replace(pending={**now.pending, flip.model: flip})

        self._update(decide)

    def drop(self, flip: PendingFlip) -> None:
        """The other route has failed as well, so ``flip`` is not made and calls begin with the first route again."""

        self._update(lambda now: now._replace(pending={k: v for k, v in now.pending.items() if v is not flip}))

    def go_back(self, choice: Choice, reason: str, event: Optional[object] = None) -> Optional[Choice]:
        """The probe ``choice`` got an answer: use the first route again. Returns the new choice if this flipped."""

        def decide(now: Snapshot) -> Snapshot:
            if now.probe is not choice:
                return now
            home = Choice(self._home, choice.generation + 1)
            return now._replace(choice=home, since=self._wall(), reason=reason, probe=None, event=event)

        after = self._update(decide)
        return after and after.choice

    def release(self, choice: Choice, pause: float = 0.0) -> None:
        """The probe ``choice`` has ended, perhaps without an outcome. The next may begin ``pause`` seconds from now."""

        def decide(now: Snapshot) -> Snapshot:
            return now._replace(probe=None, next_probe_at=self._clock() + pause) if now.probe is choice else now

        self._update(decide)

    def record(self, route: str, error: str) -> None:
        """Remember a failure for ``status()``."""
        self.snapshot.failures.append(Failure(route, self._wall(), error))

    def block_account(self, choice: Choice, error: GeminiSyncError) -> None:
        """The account is at stake: keep a copy of ``error`` as ``snapshot.account_error`` until a forced reset.

        The answer to a call that began before the last forced reset changes nothing.
        """

        def decide(now: Snapshot) -> Snapshot:
            if now.account_error is not None or choice.generation < now.account_cleared:
                return now
            return now._replace(account_error=copy.copy(error))

        self._update(decide)

    # -- what callers ask

    @property
    def fallback_active(self) -> bool:
        return self.snapshot.choice.route != self._home

    def status(self) -> RouteStatus:
        now = self.snapshot
        return RouteStatus(
            preferred=now.choice.route,
            fallback_active=now.choice.route != self._home,
            since=now.since,
            reason=now.reason,
            failures=tuple(now.failures.copy()),  # another thread may append while the tuple is made
            models={name.removeprefix("models/"): route for name, route in now.models.items()},
        )

    def reset(self, *, force: bool = False) -> None:
        """Use the first route again, for all models. Failures of calls that began before no longer count.

        ``account_error`` stays unless ``force`` is given.
        """

        def decide(now: Snapshot) -> Snapshot:
            first = self._first_snapshot(now.choice.generation + 1, "reset()")
            if force:
                return first._replace(account_cleared=first.choice.generation)
            return first._replace(account_error=now.account_error, account_cleared=now.account_cleared)

        self._update(decide)
