"""``replay``, which answers the requests of a block of code from a cassette."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, Union

from gemini_sync.testing import mocks
from gemini_sync.testing.cassette.storing import AnyPath, load
from gemini_sync.testing.cassette.values import Body, Cassette, Exchange, Failure, Request, Response
from gemini_sync.testing.matching import (
    DEFAULT_MATCH,
    TOKEN_ENDPOINT,
    Matcher,
    Matching,
    as_recorded,
    differences,
    is_loose,
    key_of,
    target_of,
)
from gemini_sync.testing.recorder import plain_function
from gemini_sync.testing.scrub.scrubber import OwnScrubber, Scrubber
from gemini_sync.testing.streaming import ReplayError, Sleep, make_error, make_response

_MOST_DIFFERENCES = 8
_TOKEN = Response(
    headers={"Content-Type": "application/json"},
    body=Body((b'{"access_token": "ACCESS-TOKEN-1", "expires_in": 3599, "token_type": "Bearer"}',)),
)
_F = TypeVar("_F", bound=Callable[..., Any])


class UnmatchedRequest(ReplayError):
    """No exchange of the cassette answers a request; the message tells the nearest one and what differs."""


class replay(contextlib.ContextDecorator):
    """Answers the requests of this process, in all threads, from a cassette.

    It is a context manager and a decorator. No request reaches the network, and pauses between tries end at once.
    Mocks of ``responses`` that a test has registered answer first. A request that nothing answers fails with
    ``UnmatchedRequest``, which is not retried. Credentials do not matter; a refresh that is not recorded succeeds.

    Args:
        cassette: the file, of this package, of vcrpy or of the recorder of ``responses``; or a ``Cassette``.
        match: what must be equal: names in ``matching.MATCHERS``, or functions of a recorded and a sent request.
        pace: 1 waits between the segments of a body as long as the recorded server did; 0 does not wait.
        allow_repeats: if all exchanges that match are used up, answer with the last of them again.
        scrub: the scrubbers of the recording, so that what they changed still matches.
        environ, sleep: for tests; the variables whose secrets are known, and how to wait.

    Raises:
        CassetteError: the file cannot be read.

    Attributes:
        cassette: what is replayed; it is loaded as the block begins.
        misses: the errors of the requests that nothing answered.
    """

    def __init__(
        self,
        cassette: Union[AnyPath, Cassette],
        *,
        match: Sequence[Matcher] = DEFAULT_MATCH,
        pace: float = 0,
        allow_repeats: bool = False,
        scrub: Iterable[OwnScrubber] = (),
        environ: Mapping[str, str] = os.environ,
        sleep: Sleep = time.sleep,
    ) -> None:
        self._settings: dict[str, Any] = {
            "match": match,
            "pace": pace,
            "allow_repeats": allow_repeats,
            "scrub": tuple(scrub),
            "environ": environ,
            "sleep": sleep,
        }
        self._source, self._matching = cassette, Matching(match)
        self._pace, self._allow_repeats, self._sleep = pace, allow_repeats, sleep
        self._own, self._environ = self._settings["scrub"], environ
        self.cassette = cassette if isinstance(cassette, Cassette) else Cassette((), os.fspath(cassette))
        self.misses: list[UnmatchedRequest] = []
        self._lock = threading.Lock()  # guards _used, misses and _scrubber
        self._used: set[int] = set()  # the positions of the exchanges that have answered
        self._fields: list[dict[str, Any]] = []
        self._by_key: dict[str, list[int]] = {}
        self._loose: list[int] = []

    def _recreate_cm(self) -> replay:
        return replay(self._source, **self._settings)  # each call of a decorated function replays from the start

    def __call__(self, func: _F) -> _F:
        return super().__call__(plain_function(func))

    def __enter__(self) -> replay:
        if not isinstance(self._source, Cassette):
            self.cassette = load(self._source)
        self._used, self.misses, self._by_key, self._loose = set(), [], {}, []
        self._scrubber = Scrubber(self._own, self._environ)
        self._fields = [self._matching.fields(exchange.request) for exchange in self.cassette.exchanges]
        for position, fields in enumerate(self._fields):
            self._by_key.setdefault(key_of(fields), []).append(position)
            if is_loose(fields):
                self._loose.append(position)
        mocks.add_player(self)
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        mocks.remove_player(self)

    @property
    def unused(self) -> list[Exchange]:
        """The exchanges that no request has asked for yet."""
        with self._lock:
            return [exchange for at, exchange in enumerate(self.cassette.exchanges) if at not in self._used]

    # -- what the mocks ask

    def can_answer(self, request: Any) -> bool:
        """True if an exchange that is left matches ``request``; it stays there for ``answer``."""
        with self._lock:
            sent = self._recorded(request)
            return self._position(sent) is not None or self._is_refresh(sent)

    def answer(self, request: Any) -> Any:
        """The response to ``request``, as urllib3 would give it. Raises ``UnmatchedRequest``, or a recorded failure."""
        with self._lock:
            sent = self._recorded(request)
            position = self._position(sent)
            if position is not None:
                self._used.add(position)
        if position is None and not self._is_refresh(sent):
            raise self.refuse(request)
        response = _TOKEN if position is None else self.cassette.exchanges[position].response
        if isinstance(response, Failure):
            raise make_error(response)
        return make_response(response, pace=self._pace, sleep=self._sleep, method=request.method)

    def refuse(self, request: Any, others: str = "") -> UnmatchedRequest:
        """The error for a request that nothing answers; ``others`` says what the mocks of the user made of it."""
        with self._lock:
            sent = self._recorded(request)
            error = UnmatchedRequest(self._message(sent) + others)
            self.misses.append(error)
        return error

    def _recorded(self, request: Any) -> Request:
        body = request.body
        if body is None or isinstance(body, str):
            body = (body or "").encode("utf-8", "surrogateescape")
        return as_recorded(request, body if isinstance(body, bytes) else b"", self._scrubber)

    def _is_refresh(self, sent: Request) -> bool:
        """True for a refresh if none was recorded: by now, the token that was valid then may have expired."""
        is_refresh = target_of(sent.url).service == TOKEN_ENDPOINT and b"grant_type=" in (sent.body or b"")
        services = (target_of(exchange.request.url).service for exchange in self.cassette.exchanges)
        return is_refresh and TOKEN_ENDPOINT not in services

    def _position(self, sent: Request) -> Optional[int]:
        matching = self._all_matching(sent)
        repeated = matching[-1] if matching and self._allow_repeats else None
        return next((position for position in matching if position not in self._used), repeated)

    def _all_matching(self, sent: Request) -> list[int]:
        fields = self._matching.fields(sent)
        found = {at for at in self._loose if not any(differences(self._fields[at], fields))}
        found.update(self._by_key.get(key_of(fields), ()))
        return [at for at in sorted(found) if self._matching.agree(self.cassette.exchanges[at].request, sent)]

    def _message(self, sent: Request) -> str:
        name, exchanges = self.cassette.path or "the cassette", self.cassette.exchanges
        head = f"{name} answers no request {sent.method} {sent.url}"
        if not exchanges:
            return f"{head}: it is empty. Record it again."
        used_up = self._all_matching(sent)
        if used_up:
            numbers = ", ".join(str(position + 1) for position in used_up)
            return (
                f"{head} any more: exchange {numbers} of it has been replayed already. Record as many requests as "
                "the code sends, or replay with allow_repeats=True."
            )
        fields = self._matching.fields(sent)
        told = [
            [*differences(recorded, fields), *self._matching.refusals(exchange.request, sent)]
            for recorded, exchange in zip(self._fields, exchanges)
        ]
        nearest = min(range(len(told)), key=lambda position: (len(told[position]), position in self._used, position))
        lines = told[nearest][:_MOST_DIFFERENCES]
        if len(told[nearest]) > len(lines):
            lines.append(f"and {len(told[nearest]) - len(lines)} more")
        differs = "".join(f"\n  - {line}" for line in lines)
        again = "Record it again, or choose with match= what is compared."
        return f"{head}. The nearest is exchange {nearest + 1}, which differs in:{differs}\n{again}"
