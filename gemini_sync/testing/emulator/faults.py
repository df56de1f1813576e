"""The failures that can be scripted.

Each public function is one kind of ``Route.fail`` and takes the arguments of that kind. It returns a ``Fault``, which
the server thread calls instead of writing the response. Most faults damage the answer that is due: ``after=n`` counts
the events of that answer. Its pace holds, too: if the pace is a function, it is called with ``n`` just before the
fault happens.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable

from gemini_sync.testing.emulator.messages import JSON_TYPE, SSE_TYPE, Response, oauth_error, sse_event, status_body

if TYPE_CHECKING:
    from gemini_sync.testing.emulator.connection import ResponseWriter

#: Writes a damaged response, or breaks the connection.
Fault = Callable[["ResponseWriter"], None]

_PAGE = b"<!DOCTYPE html>\n<html><body><h1>Sign in to the network</h1></body></html>\n"


def http_error(
    code: int,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    content_type: str = JSON_TYPE,
    as_array: bool = False,
    error: str | None = None,
    error_subtype: str | None = None,
    description: str | None = None,
    **status: Any,
) -> Fault:
    """A response with an error status.

    Its body is ``body`` if that is given. Otherwise ``error`` makes the body of the token endpoint, and without
    ``error``, ``error_bodies.status_body`` makes it from ``status``. ``as_array`` puts the error into a JSON array.
    """
    if body is None:
        value: Any = oauth_error(error, description, error_subtype) if error else status_body(code, **status)
        body = json.dumps([value] if as_array else value, indent=2, ensure_ascii=False).encode() + b"\n"
    response = Response(code, [body], content_type, headers=headers or {})
    return lambda writer: writer.write(response)


def reset(*, after: int | None = None) -> Fault:
    """RST, after the request is read or after that many events."""

    def fault(writer: ResponseWriter) -> None:
        if after is not None:
            _write_start(writer, after)
        writer.connection.reset()

    return fault


def cut(*, after: int = 1, at: int | None = None) -> Fault:
    """FIN after that many events or at that byte of the body; neither the framing nor TLS is ended."""

    def fault(writer: ResponseWriter) -> None:
        if at is None:
            _write_start(writer, after)
        else:
            _write_bytes(writer, at)
        writer.connection.close()

    return fault


def truncate(*, after: int = 1) -> Fault:
    """A response that ends cleanly after that many events."""
    return _with_events(lambda events: events[:after])


def stall(*, after: int | None = None) -> Fault:
    """Silence, before the headers or after that many events, until the client leaves or the emulator stops."""

    def fault(writer: ResponseWriter) -> None:
        if after is not None:
            _write_start(writer, after)
        writer.connection.wait_until_gone()
        writer.connection.close()

    return fault


def half_headers() -> Fault:
    """A status line and half a header, then FIN."""

    def fault(writer: ResponseWriter) -> None:
        writer.connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-st")
        writer.connection.close()

    return fault


def drip_headers(*, interval: float = 0.05) -> Fault:
    """A header that never ends, with one byte in each ``interval`` (seconds)."""

    def fault(writer: ResponseWriter) -> None:
        writer.connection.send(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        _drip(writer, b"x", interval)

    return fault


def drip(*, after: int = 0, interval: float = 0.05, data: bytes = b":") -> Fault:
    """After that many events, ``data`` in each ``interval`` (seconds) without end."""

    def fault(writer: ResponseWriter) -> None:
        response = _write_start(writer, after)
        _drip(writer, response.frame(data), interval)

    return fault


def pings(*, count: int = 3) -> Fault:
    """An event stream that has only comments and ends cleanly."""
    response = Response(200, [b": ping\r\n\r\n"] * count, SSE_TYPE, "chunked")
    return lambda writer: writer.write(response)


def empty() -> Fault:
    """An event stream that has nothing in it and ends cleanly."""
    return pings(count=0)


def error_event(*, after: int = 0, code: int = 503, **status: Any) -> Fault:
    """An error inside the stream as a ``data:`` event; ``status`` are the arguments of ``error_bodies.status_body``."""
    return _insert(after, sse_event(status_body(code, **status)))


def error_json(*, after: int = 0, code: int = 503, as_array: bool = False, **status: Any) -> Fault:
    """An error inside the stream as bare JSON over several lines."""
    value = status_body(code, **status)
    text = json.dumps([value] if as_array else value, indent=2)
    return _insert(after, text.encode() + b"\n")


def garbage_event(*, after: int = 0, data: bytes = b"{bad") -> Fault:
    """A ``data:`` event that is not JSON, instead of the rest of the answer."""
    return _insert(after, b"data: " + data + b"\r\n\r\n")


def html(*, code: int = 200) -> Fault:
    """An HTML page, like the login page of a network."""
    return lambda writer: writer.write(Response(code, [_PAGE], "text/html; charset=utf-8"))


def endless_error(*, code: int = 500) -> Fault:
    """An error with a body that does not end."""

    def fault(writer: ResponseWriter) -> None:
        response = Response(code, [], "text/plain", "chunked")
        writer.write_head(response)
        _drip(writer, response.frame(b"error " * 10_000), 0)

    return fault


def gzip(*, truncate: bool = False) -> Fault:
    """The answer compressed with gzip, even if the client does not accept gzip.

    ``truncate`` leaves out the second half of the events and the end of the gzip data; the HTTP response ends cleanly.
    """

    def fault(writer: ResponseWriter) -> None:
        response = writer.make_response()
        packer = zlib.compressobj(wbits=31)
        kept = response.events[: len(response.events) // 2] if truncate else response.events
        events = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in kept]
        events += [] if truncate else [packer.flush()]
        headers = {**response.headers, "Content-Encoding": "gzip"}
        writer.write(replace(response, events=events, headers=headers))

    return fault


def close_idle_then_reset() -> Fault:
    """The undamaged answer, and then RST when the next request arrives on this connection.

    The next request is not recorded, because a server that has dropped a connection never sees it.
    """

    def fault(writer: ResponseWriter) -> None:
        writer.write(writer.make_response())
        writer.connection.reset_on_next_request = True

    return fault


KINDS: Mapping[str, Callable[..., Fault]] = {
    kind.__name__: kind
    for kind in (
        reset, cut, truncate, stall, half_headers, drip_headers, drip, pings, empty, error_event, error_json,
        garbage_event, html, endless_error, gzip, close_idle_then_reset,
    )
}  # fmt: skip


def make_fault(kind: int | str, **arguments: Any) -> Fault:
    """The fault of a kind; raises ValueError for an unknown kind, TypeError for arguments it does not take."""
    if isinstance(kind, int):
        return http_error(kind, **arguments)
    if kind not in KINDS:
        raise ValueError(f"no fault {kind!r}: give an HTTP status or one of {', '.join(KINDS)}")
    return KINDS[kind](**arguments)


def _write_start(writer: ResponseWriter, count: int) -> Response:
    response = writer.make_response()
    writer.write_start(response, count)
    writer.keep_pace(response, count)
    return response


def _write_bytes(writer: ResponseWriter, left: int) -> None:
    response = writer.make_response()
    writer.write_head(response)
    for index, event in enumerate(response.events):
        writer.keep_pace(response, index)
        if left < len(event):
            writer.connection.send(response.frame(event, torn_at=left))
            return
        writer.connection.send(response.frame(event))
        left -= len(event)


def _drip(writer: ResponseWriter, data: bytes, interval: float) -> None:
    while True:  # an OSError ends it when the client leaves or the emulator stops
        writer.connection.send(data)
        writer.connection.pause(interval)


def _with_events(change: Callable[[Sequence[bytes]], Sequence[bytes]]) -> Fault:
    def fault(writer: ResponseWriter) -> None:
        response = writer.make_response()
        writer.write(replace(response, events=change(response.events)))

    return fault


def _insert(after: int, event: bytes) -> Fault:
    return _with_events(lambda events: [*events[:after], event])
