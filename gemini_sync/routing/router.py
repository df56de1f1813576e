"""The router: it chooses a route for each call, tries it, and may fall back until the first chunk with content."""

from __future__ import annotations

import copy
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from operator import attrgetter
from typing import Any, Optional, TypeVar

from gemini_sync.config import Retry, Timeouts
from gemini_sync.errors import Attempt, AuthError, ConfigError, GeminiSyncError, InvalidRequestError, cancelled_error
from gemini_sync.fork import register_after_fork
from gemini_sync.interruptions import drop_frames
from gemini_sync.messages.call_record import CallRecord
from gemini_sync.messages.chunks import Chunk, has_content
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.request import Request
from gemini_sync.network.cancelling import Call
from gemini_sync.network.deadlines import Clock, monotonic
from gemini_sync.redaction import redacted_name
from gemini_sync.retrying import RetryPolicy
from gemini_sync.routing.events import FallbackEvent, notify_stderr
from gemini_sync.routing.fallback import FallbackState
from gemini_sync.routing.flips import Flips, Sticky, in_one_line
from gemini_sync.routing.holding import HeldStream, hold
from gemini_sync.routing.policy import Decision, Policy, ask, decide, most_tries
from gemini_sync.routing.snapshot import Choice, PendingFlip, RouteStatus
from gemini_sync.services.base import API_KEY, OAUTH, Service

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_TRACE_ID = re.compile("[0-9a-f-]{0,64}")  # other names of requests are redacted, which costs time


class Router:
    """Serves calls over one or two services; shared by any number of threads.

    With both services, calls begin with OAuth. For the other arguments see ``GeminiDualAdapter``.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        *,
        retry: Retry = Retry(),
        policy: Policy = decide,
        fallback: bool = True,
        sticky_for: Sticky = None,
        remind_every: Optional[float] = None,
        quota_by_model: bool = False,
        on_fallback: Callable[[FallbackEvent], Any] = notify_stderr,
        require_finish: bool = True,
        clock: Clock = monotonic,
        sleep: Optional[Callable[[float], Any]] = None,
    ) -> None:
        self._services = dict(services)
        self._falls_back = fallback and len(services) > 1
        self._clock, self._sleep, self._require_finish = clock, sleep, require_finish
        # The default policy needs the caller's limit. A policy of the caller's own can read the hint from the error.
        chosen = partial(decide, wait_limit=retry.wait_limit) if policy is decide else partial(ask, policy)
        self._policy: Policy = chosen
        # The function does not use self, because a circle would keep the credentials after the last call.
        self._retrying = RetryPolicy(retry, lambda error: chosen(error) is Decision.RETRY, most_tries)
        home = OAUTH if OAUTH in services else API_KEY
        self._state = FallbackState(home, remind_every=remind_every, clock=clock)
        self._flips = Flips(self._state, on_fallback, sticky_for, quota_by_model)
        self._closed = False
        # No lock: set.add, set.discard and set.copy are atomic. A lock could deadlock, because a signal handler or the
        # garbage collector may run in the thread that holds it.
        self._calls: set[Call] = set()
        register_after_fork(self)

    def stream(self, request: Request, timeouts: Timeouts) -> Reply:
        """A reply whose first ``next()`` sends ``request``."""
        routed = self._begin(request, timeouts)
        return Reply(
            routed.chunks(),
            record=routed.record,
            cancel=routed.call.cancel,
            require_finish=self._require_finish,
            secrets=routed.call.secrets,
        )

    def count_tokens(self, request: Request, timeouts: Timeouts) -> int:
        """The number of tokens in ``request``, from the route that serves it."""
        return self._begin(request, timeouts).count_tokens()

    @property
    def fallback_active(self) -> bool:
        return self._state.fallback_active

    def status(self) -> RouteStatus:
        return self._state.status()

    def reset(self, *, force: bool = False) -> None:
        self._state.reset(force=force)

    def close(self) -> None:
        """Cancel the calls that are running and refuse new ones. Idempotent."""
        self._closed = True
        for call in self._calls.copy():
            call.cancel()

    def after_fork(self) -> None:
        calls, self._calls = self._calls, set()  # these calls belong to threads of the parent process
        for call in calls:
            call.after_fork()

    def _begin(self, request: Request, timeouts: Timeouts) -> _RoutedCall:
        if self._closed:
            raise ConfigError("The adapter is closed. Make a new one.")
        return _RoutedCall(self, request, timeouts)

    @contextmanager
    def _running(self, call: Call) -> Iterator[None]:
        """Let ``close()`` cancel ``call`` while it runs."""
        self._calls.add(call)
        try:
            # This check comes after the call was added: close() sets the flag first and looks at the calls second.
            if self._closed:
                call.cancel()
            yield
        finally:
            self._calls.discard(call)


class _RoutedCall:
    """One call, from the choice of its route to the end of the answer."""

    def __init__(self, router: Router, request: Request, timeouts: Timeouts) -> None:
        self._router, self._state, self._request = router, router._state, request
        self.call = Call(timeouts, clock=router._clock, sleep=router._sleep)
        self.record = CallRecord(model=request.model)
        self._choice: Choice  # _serve() sets it
        self._flip: Optional[PendingFlip] = None  # what an answer of the API key makes
        self._counting = False  # its failures then decide nothing about other calls

    def chunks(self) -> Iterator[Chunk]:
        with self._router._running(self.call):
            held, rest = self._serve(self._open)
            with closing(rest):
                now = self._state.snapshot
                if self._flip is not None or now.standing or now.unsaid:
                    self._router._flips.answered(self._choice, self._flip, self.record.model)
                try:
                    try:
                        while held:
                            yield held.popleft()  # no name refers to it, so it is freed while the stream goes on
                        yield from rest
                    except GeminiSyncError as exc:
                        _raise_if_cancelled(self.call, exc)
                        raise
                except GeminiSyncError as exc:
                    self._interrupted(exc)
                    drop_frames(exc)
                    raise exc

    def _open(self, service: Service) -> HeldStream:
        stream = service.open(self._request, self.call)
        held, rest = deque(stream[:1]), stream[1]
        if not has_content(held[0], thoughts=False):
            held, rest = hold(stream, self._request, self.record)
        name = next(filter(None, map(attrgetter("trace_id"), held)), "")
        is_plain = _TRACE_ID.fullmatch(name) and name not in self.call.secrets
        self.record.trace_id = (name if is_plain else redacted_name(name, self.call.secrets)) or None
        return held, rest

    def count_tokens(self) -> int:
        """The count of the first route that answers. It flips nothing: an account may count and yet not generate.

        If both fail, the error is that of the API key.
        """

        def count(service: Service) -> int:
            return service.count_tokens(self._request, self.call)

        self._counting = True
        with self._router._running(self.call):
            self.call.start()
            self._choice = self._state.choose(self.record.model, may_probe=False)
            try:
                return self._tries(count, self._choice.route)
            except GeminiSyncError as error:
                if self._decide(error) is Decision.SURFACE:
                    raise
                _log.info("the other route is asked to count tokens: %s", in_one_line(error))
                if self._choice.route == OAUTH:
                    return self._serve_other(count, error)
                with suppress(GeminiSyncError):
                    return self._tries(count, OAUTH)
                self.record.label(error, API_KEY)
                _raise_if_cancelled(self.call, error)
                raise

    def _serve(self, operation: Callable[[Service], _T]) -> _T:
        """What ``operation`` returns on the first route that answers.

        Raises the error of the last route tried, from that of the one before.
        """
        self.call.start()
        self._choice = choice = self._state.choose(self.record.model)
        self._flip = choice.flip
        try:
            # Not _tries(): each change of module costs a warm call time.
            result = self._router._retrying.run(partial(self._try, operation, choice.route), self.call)
        except GeminiSyncError as error:
            self.record.label(error, choice.route)
            decision = Decision.SURFACE if choice.route == API_KEY else self._decide(error)
            if choice.flip is not None and not error.cancelled:
                self._state.drop(choice.flip)
            surfaces = decision is Decision.SURFACE
            if choice.probe and not (surfaces and (error.cancelled or isinstance(error, InvalidRequestError))):
                self._router._flips.probe_failed(choice, error)  # otherwise each call that follows would probe
            if surfaces:
                raise
            result = self._serve_other(operation, error)
            if choice.probe:
                _log.info("the probe of OAuth failed, the API key goes on serving: %s", in_one_line(error))
            else:
                self._flip = self._router._flips.flip_for(error, decision, self.record.model)
            return result
        else:
            if choice.probe:
                self._choice = self._router._flips.go_back(choice)
            return result
        finally:
            if choice.probe:
                self._state.release(choice)

    def _serve_other(self, operation: Callable[[Service], _T], error: GeminiSyncError) -> _T:
        """What ``operation`` returns on the API key, after OAuth failed with ``error``."""
        try:
            return self._tries(operation, API_KEY)
        except GeminiSyncError as second:
            if second is error:
                raise
            raise second from error

    def _tries(self, operation: Callable[[Service], _T], route: str) -> _T:
        """What ``operation`` returns on ``route``, which is tried as often as the retry policy allows."""
        try:
            return self._router._retrying.run(partial(self._try, operation, route), self.call)
        except GeminiSyncError as error:
            self.record.label(error, route)
            raise

    def _try(self, operation: Callable[[Service], _T], route: str) -> _T:
        """What ``operation`` returns on ``route``; the try is recorded."""
        record, clock = self.record, self._router._clock
        started, begun = time.time(), clock()
        try:
            now = self._state.snapshot
            account_error = now.account_error or (now.counting_error if self._counting else None)
            if account_error is not None and route == OAUTH:
                raise copy.copy(account_error)
            try:
                result = operation(self._router._services[route])
            except GeminiSyncError as exc:
                _raise_if_cancelled(self.call, exc)
                raise
        except GeminiSyncError as exc:
            outcome, kept = "cancelled" if exc.cancelled else "failed", copy.copy(exc)
            attempt = Attempt(route, started, clock() - begun, outcome, kept, exc.retry_after, exc.trace_id)
            record.attempts.append(attempt)
            self._router._flips.remember(route, self._choice, exc, counting=self._counting)
            drop_frames(exc)
            raise exc
        record.route = route
        record.attempts.append(Attempt(route, started, clock() - begun, "answered", trace_id=record.trace_id))
        return result

    def _interrupted(self, error: GeminiSyncError) -> None:
        """The stream broke after its first chunk. Nothing is sent again; the policy decides about the next call."""
        record, route = self.record, self.record.attempts[-1].route
        record.mark_interrupted("cancelled" if error.cancelled else "interrupted", copy.copy(error))
        self._router._flips.remember(route, self._choice, error, counting=False)
        record.label(error)
        # No flip for a 401: the next call meets it before its first chunk, and refreshes the token then.
        if route == OAUTH and not isinstance(error, AuthError):
            decision = self._decide(error)
            if decision in (Decision.FALL_BACK, Decision.FALL_BACK_MODEL):
                flip = self._router._flips.flip_for(error, decision, self.record.model)
                self._state.fall_back_if_answered(self._choice, flip)

    def _decide(self, error: GeminiSyncError) -> Decision:
        """What ``error`` leads to; it surfaces if there is no other route to fall back to."""
        return Decision.SURFACE if error.cancelled or not self._router._falls_back else self._router._policy(error)


def _raise_if_cancelled(call: Call, error: GeminiSyncError) -> None:
    """A call that was cancelled ends as cancelled, even if it failed with ``error`` meanwhile."""
    if call.cancelled and not error.cancelled:
        raise cancelled_error() from error
