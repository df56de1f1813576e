"""The state of the fallback at one moment, as values; only ``fallback`` replaces it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, Optional

from gemini_sync.errors import GeminiSyncError


class Failure(NamedTuple):
    """One failure: its route, its time in seconds since the epoch, and the error in one line."""

    route: str
    at: float
    error: str


class PendingFlip(NamedTuple):
    """A flip that is made as soon as the other route answers. It is compared by identity.

    Attributes:
        reason: why, in one line.
        error: a copy of what failed.
        model: the model that flips, or None for all.
    """

    reason: str
    error: GeminiSyncError
    model: Optional[str] = None


class Choice(NamedTuple):
    """The route of one call, which the call hands back with its outcome.

    Attributes:
        route: ``"oauth"`` or ``"api_key"``.
        generation: how many decisions about all models came before it.
        probe: True if this call finds out whether the first route works again.
        flip: the flip that an answer of this call makes, if an earlier call broke off after its first chunk.
    """

    route: str
    generation: int
    probe: bool = False
    flip: Optional[PendingFlip] = None


class Snapshot(NamedTuple):
    """The state at one moment. Only ``failures`` changes: appending to it and copying it are atomic.

    Attributes:
        choice: the choice of calls whose model is not in ``models``.
        since: when it was made, seconds since the epoch.
        reason: why, or None.
        failures: the most recent failures since the last reset.
        models: the models that have a route of their own.
        pending: the flips that wait for an answer of the other route, by their ``model``.
        event: what the flip that led to this snapshot was made with, if its caller gave it.
        account_error: an answer after which no further OAuth request is made, because the account is at stake.
        account_cleared: the generation that the last forced reset began.
        probe: the choice of the probe that is running. It is compared by identity, as earlier ones may be equal.
        next_probe_at: when a call may probe, in monotonic seconds.
    """

    choice: Choice
    since: float
    reason: Optional[str]
    failures: deque[Failure]
    models: Mapping[str, str]
    pending: Mapping[Optional[str], PendingFlip] = {}
    event: Optional[object] = None
    account_error: Optional[GeminiSyncError] = None
    account_cleared: int = 0
    probe: Optional[Choice] = None
    next_probe_at: float = math.inf
