"""The state of the fallback: which route is preferred, since when and why."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Optional

from gemini_sync.errors import GeminiSyncError
from gemini_sync.fork import register_after_fork
from gemini_sync.network.deadlines import Clock, monotonic
from gemini_sync.routing.snapshot import Choice, Failure, PendingFlip, RouteStatus, Snapshot, Standing, Unsaid
from gemini_sync.services.base import API_KEY, OAUTH

_FAILURES_KEPT = 20
# A KeyboardInterrupt can come before a probe is released. After this time another call may probe all the same.
_PROBE_LEASE_SECONDS = 600.0


class FallbackState:
    """The fallback state of one adapter. If many threads report the same failure, it flips once.

    Args:
        home: the route that calls begin with.
        remind_every: seconds after which ``remind`` gives the event of a flip again; None for never.
        clock, wall: monotonic seconds, and seconds since the epoch.

    Attributes:
        snapshot: the state now; reading it needs no lock.
    """

    def __init__(
        self,
        home: str = OAUTH,
        *,
        remind_every: Optional[float] = None,
        clock: Clock = monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._home = home
        self._remind_every = math.inf if remind_every is None else remind_every
        self._clock, self._wall = clock, wall
        self.snapshot = self._first_snapshot(0, None)
        # Guards each assignment of snapshot. Reentrant, because a signal handler may call reset() in the very thread
        # that holds it.
        self._lock = threading.RLock()
        register_after_fork(self)

    def _first_snapshot(self, generation: int, reason: Optional[str]) -> Snapshot:
        return Snapshot(Choice(self._home, generation), self._wall(), reason, deque(maxlen=_FAILURES_KEPT))

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self.snapshot = self.snapshot._replace(unsaid=())  # the parent process tells people
        for standing in self.snapshot.standing.values():
            if standing.probe is not None:
                self.release(standing.probe)  # the thread that probes is in the parent process

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
        """The route for a call; after the cool-down of a flip, one call at a time becomes its probe."""
        now = self.snapshot
        if now.choice.route == self._home and model not in now.standing:
            flip = (now.pending.get(None) or now.pending.get(model)) if now.pending else None
            return Choice(API_KEY, now.choice.generation, flip=flip) if flip else now.choice
        if may_probe and self._is_probe_due(now, model):
            after = self._update(lambda now: self._with_probe(now, model))
            flipped = after and self._flip_of(after, model)
            if flipped and flipped.probe:
                return flipped.probe
        now = self.snapshot
        return Choice(API_KEY, now.choice.generation) if model in now.standing else now.choice

    def _flip_of(self, now: Snapshot, model: str) -> Optional[Standing]:
        """The flip that a call for ``model`` can undo; None if there is none."""
        if now.choice.route == self._home:
            return now.standing.get(model)
        return None if model in now.standing else now.standing.get(None)

    def _is_probe_due(self, now: Snapshot, model: str) -> bool:
        flip = self._flip_of(now, model)
        return flip is not None and self._clock() >= flip.probe_at

    def _with_probe(self, now: Snapshot, model: str) -> Snapshot:
        flip = self._flip_of(now, model)
        if flip is None or not self._is_probe_due(now, model):
            return now  # another thread was faster
        key = model if model in now.standing else None
        probe = Choice(self._home, now.choice.generation, probe=True, model=key)
        flip = flip._replace(probe=probe, probe_at=self._clock() + _PROBE_LEASE_SECONDS)
        return now._replace(standing={**now.standing, key: flip})

    def serves_from_home(self, model: str) -> bool:
        """True if calls for ``model`` go to the first route, whatever flip waits for an answer."""
        now = self.snapshot
        return now.choice.route == self._home and model not in now.standing

    # -- the outcome of a call

    def fall_back(
        self,
        choice: Choice,
        reason: str,
        model: Optional[str] = None,
        event: Optional[object] = None,
        cool_down: Optional[float] = None,
    ) -> bool:
        """Use the other route, which has answered after ``choice`` failed; for ``model`` alone if one is given.

        Returns True if this call made the flip, False if it was decided before. Then ``event`` is unsaid.
        A failed probe flips nothing: it only starts the cool-down again.

        Args:
            cool_down: seconds after which the first route is tried again; None for never, and after a failed probe
                for the same time again.
        """

        def decide(now: Snapshot) -> Snapshot:
            flip = choice.flip
            waits = choice.route == self._home if flip is None else now.pending.get(flip.model) is flip
            if choice.generation != now.choice.generation or not waits or model in now.standing:
                return now
            seconds, clock = math.inf if cool_down is None else cool_down, self._clock()
            flipped = Standing(event, seconds, clock + seconds, clock + self._remind_every)
            now = _with_unsaid(now._replace(standing={**now.standing, model: flipped}), event)
            if model is not None:
                return now._replace(pending={key: flip for key, flip in now.pending.items() if key != model})
            now = now._replace(choice=Choice(API_KEY, choice.generation + 1), pending={})
            return now._replace(since=self._wall(), reason=reason)

        if choice.probe:
            flip = self.snapshot.standing.get(choice.model)
            if flip is not None:
                self.release(choice, flip.cool_down if cool_down is None else cool_down)
            return False
        return self._update(decide) is not None

    def fall_back_if_answered(self, choice: Choice, flip: PendingFlip) -> None:
        """``choice`` broke off after its first chunk: the next calls begin with the other route and may make ``flip``.

        The first of several such failures counts.
        """

        def decide(now: Snapshot) -> Snapshot:
            news = choice.generation == now.choice.generation and choice.route == now.choice.route == self._home
            if not news or flip.model in now.pending or flip.model in now.standing:
                return now
            return now._replace(pending={**now.pending, flip.model: flip})

        self._update(decide)

    def drop(self, flip: PendingFlip) -> None:
        """The other route has failed as well, so ``flip`` is not made and calls begin with the first route again."""

        self._update(lambda now: now._replace(pending={k: v for k, v in now.pending.items() if v is not flip}))

    def go_back(self, choice: Choice, reason: str, event: Optional[object] = None) -> Optional[Choice]:
        """The probe ``choice`` got an answer: use the first route again. Returns the new choice if this flipped."""

        def decide(now: Snapshot) -> Snapshot:
            flip = now.standing.get(choice.model)
            if flip is None or flip.probe is not choice or choice.generation != now.choice.generation:
                return now
            now = _with_unsaid(now, event)
            now = now._replace(standing={key: flip for key, flip in now.standing.items() if key != choice.model})
            if choice.model is not None:
                return now
            return now._replace(choice=Choice(self._home, choice.generation + 1), since=self._wall(), reason=reason)

        after = self._update(decide)
        return after and after.choice

    def release(self, choice: Choice, pause: float = 0.0) -> None:
        """The probe ``choice`` has ended, perhaps without an outcome. The next may begin ``pause`` seconds from now."""

        def decide(now: Snapshot) -> Snapshot:
            flip = now.standing.get(choice.model)
            if flip is None or flip.probe is not choice:
                return now
            flip = flip._replace(probe=None, probe_at=self._clock() + pause)
            return now._replace(standing={**now.standing, choice.model: flip})

        self._update(decide)

    # -- what people are told

    def remind(self, model: str, again: Callable[[Any], Any]) -> None:
        """If it is time, the event that ``again`` makes of the event of the flip for ``model`` is unsaid."""
        now = self.snapshot
        key = model if None not in now.standing else None
        flip = now.standing.get(key)
        if flip is None or self._clock() < flip.remind_at:
            return
        event = again(flip.event)

        def decide(now: Snapshot) -> Snapshot:
            if now.standing.get(key) is not flip:
                return now  # another thread was faster, or a probe has begun
            later = flip._replace(remind_at=self._clock() + self._remind_every)
            return _with_unsaid(now._replace(standing={**now.standing, key: later}), event)

        self._update(decide)

    def say(self, event: object) -> None:
        """``event`` is unsaid, perhaps because telling it was interrupted."""
        self._update(lambda now: _with_unsaid(now, event))

    def said(self, unsaid: Unsaid) -> None:
        """Forget ``unsaid``, because a thread has taken its message."""
        self._update(lambda now: now._replace(unsaid=tuple(other for other in now.unsaid if other is not unsaid)))

    # -- failures

    def record(self, route: str, error: str) -> None:
        """Remember a failure for ``status()``."""
        self.snapshot.failures.append(Failure(route, self._wall(), error))

    def block_account(self, choice: Choice, error: GeminiSyncError, *, counting: bool = False) -> None:
        """The account is at stake: keep a copy of ``error`` as ``snapshot.account_error`` until a forced reset.

        After ``counting`` tokens it is kept as ``snapshot.counting_error``. The answer to a call that began before
        the last forced reset changes nothing.
        """

        def decide(now: Snapshot) -> Snapshot:
            if choice.generation < now.account_cleared:
                return now
            if counting:
                return now if now.counting_error else now._replace(counting_error=copy.copy(error))
            return now if now.account_error else now._replace(account_error=copy.copy(error))

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
            models={name.removeprefix("models/"): API_KEY for name in now.standing if name is not None},
        )

    def reset(self, *, force: bool = False) -> None:
        """Use the first route again, for all models. Failures of calls that began before no longer count.

        ``account_error`` stays unless ``force`` is given. What is unsaid is said.
        """

        def decide(now: Snapshot) -> Snapshot:
            first = self._first_snapshot(now.choice.generation + 1, "reset()")._replace(unsaid=now.unsaid)
            if force:
                return first._replace(account_cleared=first.choice.generation)
            return first._replace(
                account_error=now.account_error,
                counting_error=now.counting_error,
                account_cleared=now.account_cleared,
            )

        self._update(decide)


def _with_unsaid(now: Snapshot, event: Optional[object]) -> Snapshot:
    return now if event is None else now._replace(unsaid=(*now.unsaid, Unsaid(event, iter((event,)))))
