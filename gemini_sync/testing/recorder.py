"""``record``, which writes the exchanges of a block of code to a cassette."""

from __future__ import annotations

import contextlib
import http.client
import inspect
import logging
import os
import threading
import time
import zlib
from collections.abc import Collection, Iterable, Mapping
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, Union

import requests
import urllib3.exceptions

from gemini_sync.interruptions import causes_of
from gemini_sync.testing import hook
from gemini_sync.testing.cassette.foreign import FRAMING_HEADERS
from gemini_sync.testing.cassette.storing import AnyPath, load, locked, read_bytes, save
from gemini_sync.testing.cassette.values import (
    CUT,
    FAILURES,
    Body,
    Cassette,
    CassetteError,
    Exchange,
    Failure,
    Request,
    Response,
    portable_url,
)
from gemini_sync.testing.cassette.writing import dumps
from gemini_sync.testing.scrub.leaks import leaks
from gemini_sync.testing.scrub.scrubber import OwnScrubber, Scrubber
from gemini_sync.testing.tee import BodyTee, Clock

# The headers that this package reads, and those that tell a reader which credential was sent.
_KEPT = frozenset(
    (
        *("content-type", "retry-after", "www-authenticate", "location", "x-goog-api-key", "authorization"),
        *("x-goog-user-project", "x-goog-request-id", "x-cloudaicompanion-trace-id"),
    )
)
_MOST_LEAKS_NAMED = 3
_log = logging.getLogger(__name__)
_F = TypeVar("_F", bound=Callable[..., Any])
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class record(contextlib.ContextDecorator):
    """Records every request that this process sends with the requests library, in all threads.

    It is a context manager and a decorator. The file is written as the block ends, in one step, unless an exception
    leaves the block. It replaces an older recording. If another process has written to the same file since the block
    began, both recordings are kept.

    Args:
        path: the cassette file.
        keep: add to the file instead.
        scrub: scrubbers of your own: ``(text or pattern, name)``, or a function that takes an ``Exchange`` and returns
            another, or None to leave it out.
        keep_headers: names of headers to record, besides those that matter to this package.
        environ, clock: for tests; the variables whose secrets are known, and a clock in seconds.

    Raises:
        CassetteError: the file cannot be written, or would hold a secret.
    """

    def __init__(
        self,
        path: AnyPath,
        *,
        keep: bool = False,
        scrub: Iterable[OwnScrubber] = (),
        keep_headers: Collection[str] = (),
        environ: Mapping[str, str] = os.environ,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._settings: dict[str, Any] = {
            "path": path,
            "keep": keep,
            "scrub": tuple(scrub),
            "keep_headers": keep_headers,
            "environ": environ,
            "clock": clock,
        }
        self.path, self._keep, self._own, self._clock, self._environ = path, keep, tuple(scrub), clock, environ
        self._kept = _KEPT | {name.lower() for name in keep_headers}
        self._environ_before: dict[str, str] = {}
        self._lock = threading.Lock()  # guards _entries
        self._entries: list[_Entry] = []
        self._before: Optional[bytes] = None

    def _recreate_cm(self) -> record:
        return record(**self._settings)  # each call of a decorated function records by itself

    def __call__(self, func: _F) -> _F:
        return super().__call__(plain_function(func))

    def __enter__(self) -> record:
        self._before, self._entries = read_bytes(self.path), []
        self._environ_before = dict(self._environ)
        hook.listen(self)
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        hook.stop_listening(self)
        if kind is None:
            self._save()
        else:
            _log.warning("%s was not recorded, because %s left the block", os.fspath(self.path), kind.__name__)

    def carry(self, send: Callable[[], Any], request: Any) -> Any:
        entry = _Entry(request, self._clock)
        with self._lock:
            self._entries.append(entry)
        return entry.carry(send)

    def _save(self) -> None:
        with self._lock:
            found = [entry.exchange() for entry in self._entries]
        scrubber = Scrubber(self._own, self._environ_before, self._environ)
        exchanges = tuple(map(self._without_headers, scrubber.scrub(filter(None, found))))
        if not exchanges and self._before is None:
            return
        with locked(self.path):
            now = read_bytes(self.path)
            # If another recording has saved to this file in the meantime, its exchanges stay.
            if now is not None and (self._keep or now != self._before):
                exchanges = (*load(self.path).exchanges, *exchanges)
            cassette = Cassette(exchanges, os.fspath(self.path))
            found_leaks = list(leaks(cassette, dumps(cassette), scrubber.secrets))
            if found_leaks:
                raise CassetteError(
                    f"The cassette {os.fspath(self.path)} was not saved, because it would hold secrets: "
                    f"{'; '.join(found_leaks[:_MOST_LEAKS_NAMED])}. Remove them with scrub=[(text, name)]."
                )
            save(cassette, self.path)

    def _without_headers(self, exchange: Exchange) -> Exchange:
        request, response = exchange.request, exchange.response
        request = Request(request.method, request.url, self._kept_of(request.headers), request.body)
        if isinstance(response, Response):
            response = Response(response.status, self._kept_of(response.headers), response.body)
        return Exchange(request, response)

    def _kept_of(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in headers.items() if name.lower() in self._kept}


def plain_function(func: _F) -> _F:
    """``func``, unless it only prepares work that would run after the block has ended."""
    later = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_later(func) for is_later in later):
        raise TypeError(f"{func.__qualname__} is no plain function: use a with block inside it.")
    return func


class _Entry:
    """One request, and what has come of it so far."""

    def __init__(self, request: Any, clock: Clock) -> None:
        headers = {str(name): _text(value) for name, value in request.headers.items()}
        self._request = Request(str(request.method), portable_url(str(request.url)), headers, _sent(request.body))
        self._tee = BodyTee(clock)
        self._response: Union[Response, Failure, None] = None

    def carry(self, send: Callable[[], Any]) -> Any:
        try:
            response = send()
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as exc:
            self._response = _failure(exc)
            raise
        self._tee.attach(response)
        headers = {str(name): _text(value) for name, value in response.headers.items()}
        self._response = Response(response.status_code, headers)
        return response

    def exchange(self) -> Optional[Exchange]:
        """The exchange; None if its response has not begun."""
        response = self._response
        if isinstance(response, Response):
            response = _decompressed(response.headers, Response(response.status, {}, self._tee.body()))
        return None if response is None else Exchange(self._request, response)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _sent(body: Any) -> Optional[bytes]:
    """The body of a request; None for one that can be read only once."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode("utf-8", "surrogateescape")
    return bytes(body) if isinstance(body, (bytes, bytearray)) else None


def _decompressed(headers: Mapping[str, str], response: Response) -> Response:
    """The response as it reads without compression, which would hide secrets and the text."""
    kept = {name: value for name, value in headers.items() if name.lower() not in FRAMING_HEADERS}
    encoding = next((value for name, value in kept.items() if name.lower() == "content-encoding"), "").strip().lower()
    body = response.body
    if encoding in ("gzip", "x-gzip", "deflate"):
        state, segments = zlib.decompressobj(_GZIP_OR_ZLIB), []
        with contextlib.suppress(zlib.error):
            segments = [state.decompress(segment) for segment in body.segments]
            delays = tuple(delay for delay, segment in zip(body.delays, segments) if segment)
            end = body.end if state.eof or not body.segments else CUT
            whole = Body(tuple(filter(None, segments)), delays, end)
            kept = {name: value for name, value in kept.items() if name.lower() != "content-encoding"}
            return Response(response.status, kept, whole)
    return Response(response.status, kept, body)


def _failure(exc: BaseException) -> Failure:
    names = [cls.__name__ for cls in type(exc).__mro__]
    kind = next((name for name in names if name in FAILURES), "ConnectionError")
    for cause in reversed(list(causes_of(exc))):
        if isinstance(cause, (OSError, http.client.HTTPException)) and not isinstance(cause, requests.RequestException):
            number = getattr(cause, "errno", None)
            words = getattr(cause, "strerror", None) or str(cause)
            return Failure(kind, str(words), (type(cause).__name__, number or 0))
    return Failure(kind, type(exc).__name__)
