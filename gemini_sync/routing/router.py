"""The way of one call: choose a route, open, retry, commit at the first chunk, fall back."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any, Optional, TypeVar

from gemini_sync.config import Retry, Timeouts
from gemini_sync.errors import Attempt, AuthError, ConfigError, GeminiSyncError, InvalidRequestError
from gemini_sync.messages.call_record import CallRecord
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.request import Request
from gemini_sync.messages.response import Chunk
from gemini_sync.network.deadlines import Call
from gemini_sync.redaction import redacted_excerpt
from gemini_sync.retrying import RetryPolicy
from gemini_sync.routing.events import FallbackEvent, notify_stderr
from gemini_sync.routing.fallback import AccountBlock, Choice, FallbackState, RouteStatus
from gemini_sync.routing.open_calls import OpenCalls
from gemini_sync.routing.policy import ACCOUNT_SAFETY_REASONS, Decision, decide
from gemini_sync.services.base import API_KEY, OAUTH, OpenStream, Service

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

Policy = Callable[[BaseException], Decision]


class Router:
    """Serves calls over one or two services; shared by any number of threads.

    Args:
        services: by route; with both, calls begin with OAuth.
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
        services: Mapping[str, Service],
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
        self._services = dict(services)
        retry = retry or Retry()
        # Our own policy goes by the caller's limit; a policy of theirs sees the hint on the error.
        self._policy: Policy = partial(decide, wait_limit=retry.wait_limit) if policy is decide else policy
        self._retrying = RetryPolicy(retry, lambda error: self._decide(error) is Decision.RETRY)
        self._on_fallback = on_fallback
        self._require_finish = require_finish
        self._clock, self._sleep = clock, sleep
        self._falls_back = fallback and len(self._services) > 1
        home = OAUTH if OAUTH in self._services else API_KEY
        self._state = FallbackState(home, sticky_for=sticky_for, clock=clock)
        self._block = AccountBlock()
        self._open_calls = OpenCalls()

    # -- the operations

    def stream(self, request: Request, timeouts: Timeouts) -> Reply:
        """A reply whose first ``next()`` sends ``request``."""
        call, record = self._new_call(timeouts), CallRecord(model=request.model)
        return Reply(
            self._chunks(request, call, record),
            record=record,
            cancel=call.cancel,
            require_finish=self._require_finish,
            secrets=call.secrets,
        )

    def count_tokens(self, request: Request, timeouts: Timeouts) -> int:
        """The number of tokens in ``request``, from whichever route serves it."""
        call = self._new_call(timeouts)
        with self._open_calls.include(call):
            # No probe: an account may be able to count and yet not to generate, so the routes would go back and forth.
            count = partial(_count, request, call)
            return self._serve(count, call, CallRecord(model=request.model), may_probe=False)[0]

    def _new_call(self, timeouts: Timeouts) -> Call:
        self._open_calls.check()
        return Call(timeouts, clock=self._clock, sleep=self._sleep)

    def _chunks(self, request: Request, call: Call, record: CallRecord) -> Iterator[Chunk]:
        with self._open_calls.include(call):
            (first, rest), choice = self._serve(partial(_open, request, call, record), call, record)
            with closing(rest):  # type: ignore[type-var]
                try:
                    with call.cancelled_first():
                        yield first
                        del first
                        yield from rest
                except GeminiSyncError as exc:
                    self._after_commit(choice, record, exc)
                    raise

    # -- one call

    def _serve(
        self, operation: Callable[[Service], _T], call: Call, record: CallRecord, *, may_probe: bool = True
    ) -> tuple[_T, Choice]:
        """What ``operation`` gives on the first route that answers, and the choice that led there.

        Raises the error of the last route tried, from that of the one before.
        """
        call.start()
        choice: Optional[Choice] = None
        try:
            choice = self._state.choose(record.model, may_probe=may_probe)
            try:
                result = self._try_route(choice.route, choice, operation, call, record)
            except GeminiSyncError as error:
                decision = self._fallback_decision(choice.route, error)
                if decision is not None:
                    return self._serve_other(choice, decision, error, operation, call, record), choice
                if choice.probe and not error.cancelled and not isinstance(error, InvalidRequestError):
                    self._state.fall_back(choice, _line(error))  # without it each call that follows would probe
                raise
            promoted = self._state.go_back(choice, "a probe succeeded") if choice.probe else None
            if promoted is not None:
                self._notify(FallbackEvent(API_KEY, OAUTH, "a probe succeeded", None, time.time()))
            return result, promoted or choice
        finally:
            if choice is not None and choice.probe:
                self._state.release(choice)

    def _fallback_decision(self, route: str, error: GeminiSyncError) -> Optional[Decision]:
        """How to fall back after ``error``; None if the caller gets to see it."""
        if not self._falls_back or route != OAUTH or error.cancelled:
            return None
        decision = self._decide(error)
        if decision is Decision.RETRY:  # the tries are used up
            decision = Decision.FALL_BACK
        return None if decision is Decision.SURFACE else decision

    def _serve_other(
        self,
        choice: Choice,
        decision: Decision,
        error: GeminiSyncError,
        operation: Callable[[Service], _T],
        call: Call,
        record: CallRecord,
    ) -> _T:
        model = record.model if decision is Decision.FALL_BACK_MODEL else None
        flips = model is None and self._fall_back(choice, error)
        try:
            result = self._try_route(API_KEY, choice, operation, call, record)
        except GeminiSyncError as second:
            if second is error:
                raise
            raise second from error
        if model is not None:  # only an answer shows that the model is served there
            flips = self._fall_back(choice, error, model)
        if choice.probe:
            _log.info("the probe of OAuth failed, the API key goes on serving: %s", _line(error))
        elif not flips and self._state.is_outdated(choice):
            # No flip, yet this call goes another way than the caller was told: that must not be silent either.
            _log.warning("the API key serves one call, OAuth stays preferred: %s", _line(error))
        return result

    def _try_route(
        self, route: str, choice: Choice, operation: Callable[[Service], _T], call: Call, record: CallRecord
    ) -> _T:
        """What ``operation`` gives on ``route``, tried as often as the retry policy allows."""
        try:
            return self._retrying.run(partial(self._try_once, route, choice, operation, call, record), call)
        except GeminiSyncError as exc:  # of the last try, or of the wait for another
            record.label(exc, route)
            raise

    def _try_once(
        self, route: str, choice: Choice, operation: Callable[[Service], _T], call: Call, record: CallRecord
    ) -> _T:
        started, begun = time.time(), self._clock()
        try:
            blocked = self._block.error() if route == OAUTH else None
            if blocked is not None:
                raise blocked
            with call.cancelled_first():
                result = operation(self._services[route])
        except GeminiSyncError as exc:
            blocked = None  # or the error and this frame would keep each other alive
            outcome, kept = "cancelled" if exc.cancelled else "failed", copy.copy(exc)
            attempt = Attempt(route, started, self._clock() - begun, outcome, kept, exc.retry_after, exc.trace_id)
            record.attempts.append(attempt)
            self._note(route, choice, exc)
            raise
        record.answered(Attempt(route, started, self._clock() - begun, "answered", trace_id=record.trace_id))
        return result

    def _note(self, route: str, choice: Choice, exc: GeminiSyncError) -> None:
        """Remember a failure, and what it means for the account."""
        if not exc.cancelled:
            self._state.record(route, _line(exc))
        if route == OAUTH and exc.reason in ACCOUNT_SAFETY_REASONS:
            self._block.note(choice, exc)

    def _after_commit(self, choice: Choice, record: CallRecord, exc: GeminiSyncError) -> None:
        """The stream broke after its first chunk: nothing is sent again; the table says where the next call goes."""
        route = record.attempts[-1].route
        record.mark_interrupted("cancelled" if exc.cancelled else "interrupted", copy.copy(exc))
        self._note(route, choice, exc)
        record.label(exc)
        # No flip for a 401: the next call meets it before its first chunk, and refreshes the token then.
        if route != OAUTH or not self._falls_back or exc.cancelled or isinstance(exc, AuthError):
            return
        decision = self._decide(exc)
        if decision in (Decision.FALL_BACK, Decision.FALL_BACK_MODEL):
            self._fall_back(choice, exc, record.model if decision is Decision.FALL_BACK_MODEL else None)

    # -- deciding and telling

    def _decide(self, error: GeminiSyncError) -> Decision:
        decision = self._policy(error)
        if not isinstance(decision, Decision):
            raise ConfigError(f"policy must return a Decision, not {decision!r}.") from error
        return decision

    def _fall_back(self, choice: Choice, error: GeminiSyncError, model: Optional[str] = None) -> bool:
        """Fall back, with one model or all, and say so; False if that was decided before."""
        line = _line(error)
        flips = self._state.fall_back(choice, line, model)
        if flips:
            name = model and model.removeprefix("models/")
            self._notify(FallbackEvent(OAUTH, API_KEY, line, error, time.time(), model=name, link=error.link))
        return flips

    def _notify(self, event: FallbackEvent) -> None:
        _log.debug("%s", event)  # the callback is what people see; a second line of the same would confuse them
        try:
            self._on_fallback(event)
        except Exception:
            _log.exception("on_fallback failed; the call goes on")

    # -- state

    @property
    def fallback_active(self) -> bool:
        return self._state.fallback_active

    def status(self) -> RouteStatus:
        return self._state.status()

    def reset(self, *, force: bool = False) -> None:
        if force:
            self._block.lift(self._state.reset)
        else:
            self._state.reset()

    def close(self) -> None:
        """Cancel the calls that are running and refuse new ones. Idempotent."""
        self._open_calls.close()


def _open(request: Request, call: Call, record: CallRecord, service: Service) -> OpenStream:
    stream = service.open(request, call)
    record.trace_id = stream[0].trace_id
    return stream


def _count(request: Request, call: Call, service: Service) -> int:
    return service.count_tokens(request, call)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {redacted_excerpt(str(error))}"
