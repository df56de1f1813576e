"""The state of the fallback at one moment, as values; only ``fallback`` replaces it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

from gemini_sync.errors import GeminiSyncError


class Failure(NamedTuple):
    """One failure: its route, its time in seconds since the epoch, and the error in one line."""

    route: str
    at: float
    error: str


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


class PendingFlip(NamedTuple):
    """A flip that is made as soon as the other route answers. It is compared by identity.

    Attributes:
        reason: why, in one line.
        error: a copy of what failed.
        model: the model that flips, or None for all.
        cool_down: seconds after the flip until the first route is tried again; None for never.
    """

    reason: str
    error: GeminiSyncError
    model: Optional[str] = None
    cool_down: Optional[float] = None


class Choice(NamedTuple):
    """The route of one call, which the call hands back with its outcome.

    Attributes:
        route: ``"oauth"`` or ``"api_key"``.
        generation: how many decisions about all models came before it.
        probe: True if this call finds out whether the first route works again.
        flip: the flip that an answer of this call makes, if an earlier call broke off after its first chunk.
        model: the model that the probe is for, or None for all.
    """

    route: str
    generation: int
    probe: bool = False
    flip: Optional[PendingFlip] = None
    model: Optional[str] = None


class Standing(NamedTuple):
    """A flip that stands, of all models or of one. It is compared by identity.

    Attributes:
        event: what people were told.
        cool_down: seconds from a failed probe to the next.
        probe_at: when a call may probe, in monotonic seconds.
        remind_at: when people are told again, in monotonic seconds.
        probe: the choice of the probe that is running. It is compared by identity, as earlier ones may be equal.
    """

    event: Any
    cool_down: float
    probe_at: float
    remind_at: float
    probe: Optional[Choice] = None


class Unsaid(NamedTuple):
    """An event that people have to be told. It is compared by identity.

    Attributes:
        event: the event.
        message: gives the event once. The thread that gets it tells people.
    """

    event: Any
    message: Iterator[Any]


class Snapshot(NamedTuple):
    """The state at one moment. Only ``failures`` changes: appending to it and copying it are atomic.

    Attributes:
        choice: the choice of calls whose model has no flip of its own.
        since: when it was made, seconds since the epoch.
        reason: why, or None.
        failures: the most recent failures since the last reset.
        standing: the flips that stand, by their model, or None for the flip of all models.
        pending: the flips that wait for an answer of the other route, by their ``model``.
        unsaid: the events that people have to be told, or are being told.
        account_error: an answer after which no further OAuth request is made, because the account is at stake.
        counting_error: the same for counting tokens, which decides nothing about other calls.
        account_cleared: the generation that the last forced reset began.
    """

    choice: Choice
    since: float
    reason: Optional[str]
    failures: deque[Failure]
    standing: Mapping[Optional[str], Standing] = {}
    pending: Mapping[Optional[str], PendingFlip] = {}
    unsaid: tuple[Unsaid, ...] = ()
    account_error: Optional[GeminiSyncError] = None
    counting_error: Optional[GeminiSyncError] = None
    account_cleared: int = 0
