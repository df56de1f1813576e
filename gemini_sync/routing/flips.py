"""Makes flips from one route to the other, and tells people about each of them once."""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Optional, TypeVar, Union

from gemini_sync.config import LONGEST_SECONDS
from gemini_sync.errors import GeminiSyncError
from gemini_sync.interruptions import interruption_in, raise_interruption
from gemini_sync.messages.api_errors import names_quota_of_model, quota_reset
from gemini_sync.redaction import redacted_excerpt
from gemini_sync.routing.events import FallbackEvent, notify_stderr
from gemini_sync.routing.fallback import FallbackState
from gemini_sync.routing.policy import ACCOUNT_SAFETY_REASONS, Decision, explain, is_about_quota
from gemini_sync.routing.snapshot import Choice, PendingFlip
from gemini_sync.services.base import API_KEY, OAUTH

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: When OAuth is tried again after a flip: a number of seconds, when the quota is reset, or never.
Sticky = Union[float, Literal["hint"], None]


class Flips:
    """The flips of one adapter.

    Args:
        state: what the flips change.
        on_fallback: called once per flip and per reminder, mostly by the thread that flips.
        sticky_for, quota_by_model: as for ``GeminiDualAdapter``.
    """

    def __init__(
        self,
        state: FallbackState,
        on_fallback: Callable[[FallbackEvent], Any],
        sticky_for: Sticky = None,
        quota_by_model: bool = False,
    ) -> None:
        self._state, self._on_fallback = state, on_fallback
        self._sticky_for, self._quota_by_model = sticky_for, quota_by_model

    # -- what an error leads to

    def flip_for(self, error: GeminiSyncError, decision: Decision, model: str) -> PendingFlip:
        """The flip that an answer of the API key makes, after ``error`` of a call for ``model`` led to ``decision``."""
        if decision is Decision.RETRY:
            decision = explain(error).at_last
        quota = self._quota_by_model and is_about_quota(error) and names_quota_of_model(error)
        one_model = decision is Decision.FALL_BACK_MODEL or (quota and decision is Decision.FALL_BACK)
        name = model if one_model else None
        # The copy has no traceback. That of the error holds the frames of the call, and the call keeps the flip.
        return PendingFlip(in_one_line(error), copy.copy(error), name, self._cool_down(error, name))

    def _cool_down(self, error: GeminiSyncError, model: Optional[str]) -> Optional[float]:
        """Seconds until OAuth is tried again; None if ``error`` names no time and no number was given."""
        quota = is_about_quota(error)
        if model is not None and not quota:
            return None  # a missing model stays missing, and no time is known for one that is overloaded
        if self._sticky_for != "hint":
            return self._sticky_for
        return (quota_reset(error) if quota else None) or None

    def remember(self, route: str, choice: Choice, error: GeminiSyncError, *, counting: bool) -> None:
        """Keep a failure for ``status()``, unless it is of ``counting`` tokens, and what it means for the account."""
        if not error.cancelled and not counting:
            self._state.record(route, in_one_line(error))
        if route == OAUTH and error.reason in ACCOUNT_SAFETY_REASONS:
            self._state.block_account(choice, error, counting=counting)

    # -- flips and reminders

    def answered(self, choice: Choice, flip: Optional[PendingFlip], model: str) -> None:
        """A call for ``model`` has its answer: make ``flip``, if there is one, and say what people have to be told."""
        if flip is not None:
            self._fall_back(choice, flip, model)
        elif choice.route == API_KEY:
            self._announce(partial(self._state.remind, model, _again))
        else:
            self._announce(lambda: None)

    def _fall_back(self, choice: Choice, flip: PendingFlip, model: str) -> None:
        name, now, seconds = flip.model and flip.model.removeprefix("models/"), time.time(), flip.cool_down
        until = now + seconds if seconds and seconds <= LONGEST_SECONDS else None
        event = FallbackEvent(OAUTH, API_KEY, flip.reason, flip.error, now, name, flip.error.link, until=until)
        flips = self._announce(
            partial(self._state.fall_back, choice, flip.reason, flip.model, event, flip.cool_down), event
        )
        if not flips and self._state.serves_from_home(model):
            # Nothing flips, so people believe that OAuth serves. It does not serve this call, which must not be silent.
            _log.warning("the API key serves one call, OAuth stays preferred: %s", flip.reason)

    def go_back(self, choice: Choice) -> Choice:
        """The probe ``choice`` got an answer: use OAuth again and say so. Returns the choice that counts from here."""
        reason, name = "a probe succeeded", choice.model and choice.model.removeprefix("models/")
        event = FallbackEvent(API_KEY, OAUTH, reason, None, time.time(), model=name)
        return self._announce(partial(self._state.go_back, choice, reason, event), event) or choice

    def probe_failed(self, choice: Choice, error: GeminiSyncError) -> None:
        """The probe ``choice`` failed with ``error``: the cool-down begins again."""
        self._state.fall_back(choice, in_one_line(error), cool_down=self._cool_down(error, choice.model))

    def _announce(self, change: Callable[[], _T], event: Optional[FallbackEvent] = None) -> _T:
        """What ``change()`` returns. If it makes news, people are told, even if Ctrl-C comes before that is done."""
        try:
            result = change()
            self._say()
        except BaseException:
            self._say()
            raise
        if result:
            _log.debug("%s", event)  # the callback is what people see; a second line of the same would confuse them
        return result

    def _say(self) -> None:
        """Call ``on_fallback`` with each event that is unsaid.

        Any thread may do this for all. ``map`` takes the event and calls ``on_fallback`` in one step of C, where no
        other thread and no signal handler comes between. So an event is never lost, and it is given once.
        """
        for unsaid in self._state.snapshot.unsaid:
            try:
                for _ in map(self._on_fallback, unsaid.message):
                    continue
            except BaseException as exc:
                if self._on_fallback is notify_stderr and _interrupted(exc):
                    self._state.say(unsaid.event)  # the line may not be out
                if not isinstance(exc, Exception):
                    raise
                raise_interruption(exc)
                _log.exception("on_fallback failed; the call goes on")
            self._state.said(unsaid)


def _interrupted(exc: BaseException) -> bool:
    """True if ``exc`` is an interrupt that came while ``notify_stderr`` ran."""
    step = exc.__traceback__
    while step is not None and step.tb_frame.f_code is not notify_stderr.__code__:
        step = step.tb_next
    return step is not None and (not isinstance(exc, Exception) or interruption_in(exc) is not None)


def _again(event: FallbackEvent) -> FallbackEvent:
    """The reminder of ``event``."""
    return dataclasses.replace(event, at=time.time(), since=event.at)


def in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {redacted_excerpt(str(error))}"
