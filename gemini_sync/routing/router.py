"""Knows the way of one call: choose a route, open, retry, commit at the first chunk, fall back; knows no protocol."""

from __future__ import annotations

import copy
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Generic, Optional, TypeVar

from gemini_sync.config import Retry, Timeouts
from gemini_sync.errors import Attempt, AuthError, ConfigError, GeminiSyncError, InvalidRequestError
from gemini_sync.fork import register_after_fork
from gemini_sync.messages.reply import Journey, Reply
from gemini_sync.messages.request import Request
from gemini_sync.messages.response import Chunk
from gemini_sync.network.deadlines import Call
from gemini_sync.redaction import redacted_excerpt
from gemini_sync.retrying import RetryPolicy
from gemini_sync.routing.fallback import API_KEY, OAUTH, Choice, FallbackEvent, RouteStatus, Sticky
from gemini_sync.routing.policy import ACCOUNT_SAFETY_REASONS, Decision, decide
from gemini_sync.services.backends import Backend

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

Policy = Callable[[BaseException], Decision]


def notify_stderr(event: FallbackEvent) -> None:
    """The default ``on_fallback``: one line on stderr."""
    if sys.stderr is not None:  # a program without a console has none
        sys.stderr.write(f"{event}\n")
        sys.stderr.flush()


class _Trip(Generic[_T]):
    """What one call takes along: ``operate`` does what it wants on one backend."""

    def __init__(self, model: str, call: Call, journey: Journey, operate: Callable[[Backend], _T]) -> None:
        self.model, self.call, self.journey, self.operate = model, call, journey, operate


class Router:
    """Serves calls over one or two backends; shared by any number of threads.

    Args:
        backends: by route; with both, calls begin with OAuth.
        retry: how often and how long one route is tried.
        policy: what a failure leads to.
        fallback: False keeps every call on OAuth.
        sticky_for: seconds after which a fallback is probed; None for never.
        on_fallback: called once per flip, by the thread that flips.
        require_finish: False takes a clean end without a finish reason for complete.
        clock, sleep: for tests; monotonic seconds, and a wait that replaces the cancellable one.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        *,
        retry: Optional[Retry] = None,
        policy: Policy = decide,
        fallback: bool = True,
        sticky_for: Optional[float] = None,
        on_fallback: Callable[[FallbackEvent], Any] = notify_stderr,
        require_finish: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Optional[Callable[[float], Any]] = None,
    ) -> None:
        self._backends = dict(backends)
        self._retry = retry or Retry()
        self._policy: Policy = partial(decide, wait_limit=self._retry.wait_limit) if policy is decide else policy
        self._on_fallback = on_fallback
        self._require_finish = require_finish
        self._clock, self._sleep = clock, sleep
        self._falls_back = fallback and len(self._backends) > 1
        home = OAUTH if OAUTH in self._backends else API_KEY
        self._sticky = Sticky(home, sticky_for=sticky_for, clock=clock)
        self._retrying = RetryPolicy(self._retry, lambda error: self._decide(error) is Decision.RETRY)
        # The error after which the account must not be used for OAuth any more, with the generation of its call; and
        # the generation from which on that counts. One assignment each, so no lock.
        self._bar: tuple[int, Optional[GeminiSyncError]] = (0, None)
        self._lifted_at = 0
        self._closed = False
        # Its methods are atomic, so there is no lock, which a signal handler that closes the adapter, or the end of a
        # dropped reply whenever garbage is collected, could ask for in the very thread that holds it.
        self._running: set[Call] = set()
        register_after_fork(self)

    def after_fork(self) -> None:
        self._running = set()  # calls of the parent's other threads

    # -- the operations

    def stream(self, request: Request, timeouts: Timeouts) -> Reply:
        """A reply whose first ``next()`` sends ``request``."""
        call, journey = self._call(timeouts), Journey()
        return Reply(
            self._chunks(request, call, journey),
            journey=journey,
            cancel=call.cancel,
            require_finish=self._require_finish,
            secrets=call.secrets,
        )

    def count_tokens(self, request: Request, timeouts: Timeouts) -> int:
        """The number of tokens in ``request``, from whichever route serves it."""
        call = self._call(timeouts)
        trip = _Trip(request.model, call, Journey(), lambda backend: backend.count_tokens(request, call))
        with self._registered(call):
            # An account may count and yet not generate: no probe, which would go back and forth.
            return self._serve(trip, may_probe=False)[0]

    def _call(self, timeouts: Timeouts) -> Call:
        if self._closed:
            raise ConfigError("The adapter is closed. Make a new one.")
        return Call(timeouts, clock=self._clock, sleep=self._sleep)

    def _chunks(self, request: Request, call: Call, journey: Journey) -> Iterator[Chunk]:
        trip = _Trip(request.model, call, journey, lambda backend: backend.open(request, call))
        with self._registered(call):
            (first, rest), choice = self._serve(trip)
            with closing(rest):  # type: ignore[type-var]
                try:
                    with call.cancelled_first():
                        yield first
                        del first
                        yield from rest
                except GeminiSyncError as exc:
                    self._after_commit(choice, trip, exc)
                    raise

    # -- one call

    def _serve(self, trip: _Trip[_T], *, may_probe: bool = True) -> tuple[_T, Choice]:
        """What the operation gives on the first route that answers, and the choice that led there.

        Raises the error of the last route tried, from that of the one before.
        """
        trip.call.start()
        choice: Optional[Choice] = None
        try:
            choice = self._sticky.choose(trip.model, may_probe=may_probe)
            try:
                result = self._try_route(choice.route, choice, trip)
            except GeminiSyncError as error:
                decision = self._fallback_decision(choice.route, error)
                if decision is not None:
                    return self._serve_other(choice, decision, error, trip), choice
                if choice.probe and not error.cancelled and not isinstance(error, InvalidRequestError):
                    self._sticky.demote(choice, _line(error))  # or each call that follows would probe, and fail
                raise
            promoted = self._sticky.promote(choice, "a probe succeeded") if choice.probe else None
            if promoted is not None:
                self._notify(FallbackEvent(API_KEY, OAUTH, "a probe succeeded", None, time.time()))
            return result, promoted or choice
        finally:
            if choice is not None and choice.probe:
                self._sticky.release(choice)

    def _fallback_decision(self, route: str, error: GeminiSyncError) -> Optional[Decision]:
        """How to fall back after ``error``; None where it is the caller's to see."""
        if not self._falls_back or route != OAUTH or error.cancelled:
            return None
        decision = self._decide(error)
        if decision is Decision.RETRY:  # the tries are used up
            decision = Decision.FALL_BACK
        return None if decision is Decision.SURFACE else decision

    def _serve_other(self, choice: Choice, decision: Decision, error: GeminiSyncError, trip: _Trip[_T]) -> _T:
        model = trip.model if decision is Decision.FALL_BACK_MODEL else None
        flips = model is None and self._demote(choice, error)
        try:
            result = self._try_route(API_KEY, choice, trip)
        except GeminiSyncError as second:
            if second is error:
                raise
            raise second from error
        if model is not None:  # only an answer shows that the model is served there
            flips = self._demote(choice, error, model)
        if choice.probe:
            _log.info("the probe of OAuth failed, the API key goes on serving: %s", _line(error))
        elif not flips and self._sticky.overtaken(choice):
            # No flip, yet this call goes another way than the caller was told: that must not be silent either.
            _log.warning("the API key serves one call, OAuth stays preferred: %s", _line(error))
        return result

    def _demote(self, choice: Choice, error: GeminiSyncError, model: Optional[str] = None) -> bool:
        """Fall back, with one model or all, and say so; False where that has been decided before."""
        line = _line(error)
        flips = self._sticky.demote(choice, line) if model is None else self._sticky.demote_model(choice, model)
        if flips:
            name = model and model.removeprefix("models/")
            self._notify(FallbackEvent(OAUTH, API_KEY, line, error, time.time(), model=name, link=error.link))
        return flips

    def _try_route(self, route: str, choice: Choice, trip: _Trip[_T]) -> _T:
        backend, journey = self._backends[route], trip.journey

        def once() -> _T:
            started, begun = time.time(), self._clock()
            try:
                barred = self._bar_in_force() if route == OAUTH else None
                if barred is not None:
                    raise copy.copy(barred)
                with trip.call.cancelled_first():
                    result = trip.operate(backend)
            except GeminiSyncError as exc:
                outcome = "cancelled" if exc.cancelled else "failed"
                seconds = self._clock() - begun
                kept = copy.copy(exc)  # without the traceback, which would keep all frames of the caller alive
                journey.attempts.append(Attempt(route, started, seconds, outcome, kept, exc.retry_after, exc.trace_id))
                self._note(route, choice, exc)
                raise
            journey.route = route
            trace_id = result[0].trace_id if isinstance(result, tuple) else None
            journey.attempts.append(Attempt(route, started, self._clock() - begun, "answered", trace_id=trace_id))
            return result

        try:
            return self._retrying.run(once, trip.call)
        except GeminiSyncError as exc:  # of the last try, or what ended the wait for another
            exc.route, exc.attempts = route, tuple(journey.attempts)
            raise

    def _note(self, route: str, choice: Choice, exc: GeminiSyncError) -> None:
        """Remember a failure, and what it means for the account."""
        if not exc.cancelled:
            self._sticky.record(route, _line(exc))
        if route == OAUTH and exc.reason in ACCOUNT_SAFETY_REASONS and self._bar_in_force() is None:
            self._bar = (choice.generation, copy.copy(exc))

    def _bar_in_force(self) -> Optional[GeminiSyncError]:
        """The answer that bars OAuth; not one to a call that began before ``reset(force=True)``."""
        generation, error = self._bar
        return error if generation >= self._lifted_at else None

    def _after_commit(self, choice: Choice, trip: _Trip[Any], exc: GeminiSyncError) -> None:
        """The stream broke under the caller: nothing is sent again, but the table says where the next call goes."""
        journey = trip.journey
        route = journey.attempts[-1].route
        journey.broke("cancelled" if exc.cancelled else "interrupted", copy.copy(exc))
        self._note(route, choice, exc)
        exc.route, exc.attempts = route, tuple(journey.attempts)
        # A 401 has dropped its token: the next call refreshes and is right again.
        if route != OAUTH or not self._falls_back or exc.cancelled or isinstance(exc, AuthError):
            return
        decision = self._decide(exc)
        if decision in (Decision.FALL_BACK, Decision.FALL_BACK_MODEL):
            self._demote(choice, exc, trip.model if decision is Decision.FALL_BACK_MODEL else None)

    # -- the retry policy

    def _decide(self, error: GeminiSyncError) -> Decision:
        decision = self._policy(error)
        if not isinstance(decision, Decision):
            raise ConfigError(f"policy must return a Decision, not {decision!r}.") from error
        return decision

    # -- state

    @property
    def fallback_active(self) -> bool:
        return self._sticky.fallback_active

    def status(self) -> RouteStatus:
        return self._sticky.status()

    def reset(self, *, force: bool = False) -> None:
        if force:
            self._bar = (0, None)  # before the calls that the reset begins
        generation = self._sticky.reset()
        if force:
            self._lifted_at = generation

    def close(self) -> None:
        """Cancel the calls that are running and refuse new ones. Idempotent."""
        self._closed = True
        for call in self._running.copy():
            call.cancel()

    @contextmanager
    def _registered(self, call: Call) -> Iterator[None]:
        """Lets ``close()`` find the call while it runs."""
        self._running.add(call)
        try:
            if self._closed:  # looked at last: close() looks at the calls last
                call.cancel()
            yield
        finally:
            self._running.discard(call)

    def _notify(self, event: FallbackEvent) -> None:
        _log.debug("%s", event)  # the callback is what people see; a second line of the same would confuse them
        try:
            self._on_fallback(event)
        except Exception:
            _log.exception("on_fallback failed; the call goes on")


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {redacted_excerpt(str(error))}"
