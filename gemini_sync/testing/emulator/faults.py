"""The ways in which a response goes wrong, each a function of the exchange it ruins; it knows no routes.

Each public function is one kind for `Route.fail`: its keyword arguments are the kind's arguments, and what
it returns is played in the server thread. Most of them damage the answer that would have been served, so
`after=n` counts that answer's events, and its pace holds for the fault as well: a callable pace is called
with `n` just before the fault strikes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable

from gemini_sync.testing.emulator.answers import sse_event
from gemini_sync.testing.emulator.rpc import oauth_error, status_body
from gemini_sync.testing.emulator.wire import JSON_TYPE, SSE_TYPE, Exchange, Response

#: What a kind makes of its arguments: played in the server thread in place of the response.
Fault = Callable[[Exchange], None]

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
    """An error status. Its body: `body`; else with `error` the token endpoint's form; else google.rpc.Status
    built by `rpc.status_body` from `status`, `message`, `reason`, … (in an array with `as_array`)."""
    if body is None:
        value: Any = oauth_error(error, description, error_subtype) if error else status_body(code, **status)
        body = json.dumps([value] if as_array else value, indent=2, ensure_ascii=False).encode() + b"\n"
    response = Response(code, [body], content_type, headers=headers or {})
    return lambda exchange: exchange.play(response)


def reset(*, after: int | None = None) -> Fault:
    """RST: once the request was read, or after that many events."""

    def play(exchange: Exchange) -> None:
        if after is not None:
            _begin(exchange, after)
        exchange.connection.reset()

    return play


def cut(*, after: int = 1, at: int | None = None) -> Fault:
    """FIN with the framing left open (TLS: no close_notify): after some events, or at a byte of the body."""

    def play(exchange: Exchange) -> None:
        if at is None:
            _begin(exchange, after)
        else:
            _send_bytes(exchange, at)
        exchange.connection.close()

    return play


def truncate(*, after: int = 1) -> Fault:
    """A clean end of the response after that many events."""
    return _altered(lambda events: events[:after])


def stall(*, after: int | None = None) -> Fault:
    """Silence, before the headers or after that many events, until the client goes or the emulator stops."""

    def play(exchange: Exchange) -> None:
        if after is not None:
            _begin(exchange, after)
        exchange.connection.wait_until_gone()
        exchange.connection.close()

    return play


def half_headers() -> Fault:
    """A status line and half a header, then FIN."""

    def play(exchange: Exchange) -> None:
        exchange.connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-st")
        exchange.connection.close()

    return play


def drip_headers(*, interval: float = 0.05) -> Fault:
    """A header that never ends, one byte per interval (seconds)."""

    def play(exchange: Exchange) -> None:
        exchange.connection.send(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        _drip(exchange, b"x", interval)

    return play


def drip(*, after: int = 0, interval: float = 0.05, data: bytes = b":") -> Fault:
    """After some events the same few bytes once per interval (seconds), for ever."""

    def play(exchange: Exchange) -> None:
        response = _begin(exchange, after)
        _drip(exchange, response.frame(data), interval)

    return play


def pings(*, count: int = 3) -> Fault:
    """An event stream of comments only, ended cleanly."""
    response = Response(200, [b": ping\r\n\r\n"] * count, SSE_TYPE, "chunked")
    return lambda exchange: exchange.play(response)


def empty() -> Fault:
    """An event stream with nothing in it, ended cleanly."""
    return pings(count=0)


def error_event(*, after: int = 0, code: int = 503, **status: Any) -> Fault:
    """An error inside the stream as a `data:` event; arguments as for `http_error`."""
    return _insert(after, sse_event(status_body(code, **status)))


def error_json(*, after: int = 0, code: int = 503, as_array: bool = False, **status: Any) -> Fault:
    """An error inside the stream as bare JSON over several lines."""
    value = status_body(code, **status)
    text = json.dumps([value] if as_array else value, indent=2)
    return _insert(after, text.encode() + b"\n")


def garbage_event(*, after: int = 0, data: bytes = b"{bad") -> Fault:
    """A `data:` event that is not JSON, in place of the rest of the answer."""
    return _insert(after, b"data: " + data + b"\r\n\r\n")


def html(*, code: int = 200) -> Fault:
    """An HTML page, as a captive portal or a proxy sends it."""
    return lambda exchange: exchange.play(Response(code, [_PAGE], "text/html; charset=utf-8"))


def endless_error(*, code: int = 500) -> Fault:
    """An error whose body does not end."""

    def play(exchange: Exchange) -> None:
        response = Response(code, [], "text/plain", "chunked")
        exchange.send_head(response)
        _drip(exchange, response.frame(b"error " * 10_000), 0)

    return play


def gzip(*, truncate: bool = False) -> Fault:
    """The answer compressed with gzip, whoever asked; truncated, its end is missing though HTTP ends well."""

    def play(exchange: Exchange) -> None:
        response = exchange.answer()
        packer = zlib.compressobj(wbits=31)
        kept = response.events[: len(response.events) // 2] if truncate else response.events
        events = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in kept]
        events += [] if truncate else [packer.flush()]
        headers = {**response.headers, "Content-Encoding": "gzip"}
        exchange.play(replace(response, events=events, headers=headers))

    return play


def close_idle_then_reset() -> Fault:
    """The answer as it should be; then RST as the next request arrives on this connection.

    That next request is read and not recorded: a server that has given a connection up never sees it.
    """

    def play(exchange: Exchange) -> None:
        exchange.play(exchange.answer())
        exchange.connection.reset_on_next_request = True

    return play


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


def _begin(exchange: Exchange, count: int) -> Response:
    response = exchange.answer()
    exchange.begin(response, count)
    exchange.wait_turn(response, count)
    return response


def _send_bytes(exchange: Exchange, left: int) -> None:
    response = exchange.answer()
    exchange.send_head(response)
    for index, event in enumerate(response.events):
        exchange.wait_turn(response, index)
        if left < len(event):
            exchange.connection.send(response.frame(event, torn_at=left))
            return
        exchange.connection.send(response.frame(event))
        left -= len(event)


def _drip(exchange: Exchange, data: bytes, interval: float) -> None:
    while True:  # ends by the OSError of a client that has gone, or of a stopping emulator
        exchange.connection.send(data)
        exchange.pause(interval)


def _altered(change: Callable[[Sequence[bytes]], Sequence[bytes]]) -> Fault:
    def play(exchange: Exchange) -> None:
        response = exchange.answer()
        exchange.play(replace(response, events=change(response.events)))

    return play


def _insert(after: int, event: bytes) -> Fault:
    return _altered(lambda events: [*events[:after], event])
