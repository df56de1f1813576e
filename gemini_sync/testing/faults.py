"""Faults of a stream, recorded or made: where it breaks, what comes before it, and what an answer in hops looks like.

Each function returns a ``Fault``, for ``add_stream(…, faults=…)`` or for ``broken(…)``. ``after`` counts events, and
``at`` counts bytes.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from gemini_sync.testing.cassette.storing import AnyPath, load
from gemini_sync.testing.cassette.values import (
    CUT,
    RESET,
    TIMEOUT,
    Body,
    Cassette,
    Exchange,
    Failure,
    Request,
    Response,
    split_events,
)
from gemini_sync.testing.emulator.messages import sse_event
from gemini_sync.testing.matching import TOKEN_ENDPOINT, target_of
from gemini_sync.testing.synthetic import API_KEY, OAUTH, VERTEX_AI, error_body, error_response, token_exchange

_ROUTES = {"gemini_api": API_KEY, "code_assist": OAUTH, "vertex_ai": VERTEX_AI}
_STREAM = "streamGenerateContent"


@dataclass(frozen=True)
class Turn:
    """One response that a client gets for its request, in order.

    Attributes:
        continuation: the ``continuationToken`` that the request has to carry to get it; empty for any request.
    """

    response: Union[Response, Failure]
    route: str
    model: Optional[str] = None
    continuation: str = ""


Turns = tuple[Turn, ...]
Fault = Callable[[Turns], Turns]


def apply(faults: Union[Fault, Sequence[Fault]], turn: Turn) -> Turns:
    """What a client gets instead of ``turn``, one fault after another; each damages the first stream."""
    turns: Turns = (turn,)
    for fault in (faults,) if callable(faults) else faults:
        turns = fault(turns)
    return turns


def broken(
    source: Union[AnyPath, Cassette], faults: Union[Fault, Sequence[Fault]], *, exchange: Optional[int] = None
) -> Cassette:
    """A cassette with faults, to be replayed: ``replay(broken("a.yaml", faults.cut(after=2)))``.

    Args:
        source: the cassette, or its file, which stays as it is.
        faults: one fault or several.
        exchange: the number of the exchange to damage, counted from 1; else the first that holds a stream.

    Raises:
        ValueError: there is no such exchange, or no such event or byte in it.
        CassetteError: the file cannot be read.
    """
    cassette = source if isinstance(source, Cassette) else load(source)
    exchanges = cassette.exchanges
    numbers = [number for number, one in enumerate(exchanges, 1) if _is_stream(one) and exchange in (None, number)]
    if not numbers:
        named = "stream" if exchange is None else f"stream as exchange {exchange}"
        raise ValueError(f"{cassette.path or 'the cassette'} has {len(exchanges)} exchanges, but no {named}")
    before, damaged = exchanges[: numbers[0] - 1], exchanges[numbers[0] - 1]
    found = _exchanges(damaged, faults)
    # After a 401 an adapter refreshes its token. If the recording holds no refresh at all, a replay answers it anyway.
    if any(target_of(one.request.url).service == TOKEN_ENDPOINT for one in exchanges):
        refusals = [one for one in found if isinstance(one.response, Response) and one.response.status == 401]
        found += [token_exchange(number) for number, _ in enumerate(refusals, 2)]
    return dataclasses.replace(cassette, exchanges=(*before, *found, *exchanges[numbers[0] :]))


def _is_stream(exchange: Exchange) -> bool:
    service, _, method = target_of(exchange.request.url).service.partition(" ")
    return service in _ROUTES and method == _STREAM and isinstance(exchange.response, Response)


def _exchanges(exchange: Exchange, faults: Union[Fault, Sequence[Fault]]) -> list[Exchange]:
    assert isinstance(exchange.response, Response)
    target = target_of(exchange.request.url)
    turn = Turn(exchange.response, _ROUTES[target.service.partition(" ")[0]], target.model or None)
    return [Exchange(_continued(exchange.request, one), one.response) for one in apply(faults, turn)]


def _continued(request: Request, turn: Turn) -> Request:
    if not turn.continuation or request.body is None:
        return request
    body = json.loads(request.body)
    (body["request"] if turn.route == OAUTH else body)["continuationToken"] = turn.continuation
    return dataclasses.replace(request, body=json.dumps(body).encode())


# -- a stream that breaks


def cut(*, after: Optional[int] = None, at: Optional[int] = None) -> Fault:
    """The connection ends before the body is complete."""
    return _end_early(CUT, after, at)


def reset(*, after: Optional[int] = None, at: Optional[int] = None) -> Fault:
    """The connection is reset in the middle of the body."""
    return _end_early(RESET, after, at)


def stall(*, after: Optional[int] = None, at: Optional[int] = None) -> Fault:
    """Nothing more comes until the client gives up, which it does at once here; without arguments nothing comes."""
    if after is None and at is None:
        return _changed(lambda turn: dataclasses.replace(turn, response=Failure("ReadTimeout", "timed out")))
    return _end_early(TIMEOUT, after, at)


def truncate(*, after: int = 1) -> Fault:
    """The body ends cleanly after that many events, as behind a proxy that hides a broken connection."""
    return _end_early("complete", after, None)


def error_event(code: int = 503, *, after: Optional[int] = None, **error: Any) -> Fault:
    """An error as an event after that many events, or after the last one, which says STOP.

    ``error`` are the arguments of ``add_error``.
    """

    def change(turn: Turn) -> Turn:
        events = _events(turn)
        kept = events if after is None else events[: _checked(after, len(events))]
        body = error_body(code, route=turn.route, model=turn.model, **error)
        return _with_segments(turn, (*kept, sse_event(body)))

    return _changed(change)


# -- what comes before a stream


def refused(code: int = 429, *, times: int = 1, **error: Any) -> Fault:
    """That many errors before the stream, such as 429 and then 200; ``error`` are the arguments of ``add_error``."""

    def fault(turns: Turns) -> Turns:
        turn = turns[_stream_in(turns)]
        response = error_response(code, route=turn.route, model=turn.model, **error)
        return (*(dataclasses.replace(turn, response=response) for _ in range(times)), *turns)

    return fault


def expired_token() -> Fault:
    """The access token is refused once; with another one the stream comes."""
    return refused(401)


# -- answers in hops (ai.google.dev, long decode)


def hop(*, after: int = 1) -> Fault:
    """The stream ends after that many events with CONTINUATION and a token; a request with the token gets the rest."""

    def fault(turns: Turns) -> Turns:
        first, rest, token = _split(turns, after)
        last = _with_token(first[-1], token, "CONTINUATION")
        return _continued_by(turns, (*first[:-1], last), rest, token)

    return fault


def checkpoint(*, after: int = 1) -> Fault:
    """That event carries a token, and the stream goes on; a request with the token gets the events behind it again.

    ``[checkpoint(after=1), cut(after=2)]`` is a stream that can be resumed.
    """

    def fault(turns: Turns) -> Turns:
        first, rest, token = _split(turns, after)
        return _continued_by(turns, (*first[:-1], _with_token(first[-1], token), *rest), rest, token)

    return fault


def _split(turns: Turns, after: int) -> tuple[Sequence[bytes], Sequence[bytes], str]:
    events = _events(turns[_stream_in(turns)])
    if _checked(after, len(events) - 1) < 1:
        raise ValueError("after must be at least 1, because an event carries the token")
    return events[:after], events[after:], base64.b64encode(b"continuation after event %d" % after).decode()


def _continued_by(turns: Turns, first: Sequence[bytes], rest: Sequence[bytes], token: str) -> Turns:
    position = _stream_in(turns)
    turn = turns[position]
    following = dataclasses.replace(_with_segments(turn, rest), continuation=token)
    return (*turns[:position], _with_segments(turn, first), *turns[position + 1 :], following)


def _with_token(event: bytes, token: str, finish_reason: Optional[str] = None) -> bytes:
    value = json.loads(event.partition(b"data:")[2])
    candidates = value.get("response", value).setdefault("candidates", [{}])
    candidates[0] = {**candidates[0], "continuationToken": token}
    if finish_reason is not None:
        candidates[0]["finishReason"] = finish_reason
    return sse_event(value)


# -- shared


def _changed(change: Callable[[Turn], Turn]) -> Fault:
    """The fault that changes the first stream."""

    def fault(turns: Turns) -> Turns:
        position = _stream_in(turns)
        return (*turns[:position], change(turns[position]), *turns[position + 1 :])

    return fault


def _stream_in(turns: Turns) -> int:
    for position, turn in enumerate(turns):
        if isinstance(turn.response, Response) and turn.response.status == 200:
            return position
    raise ValueError("there is no stream left that a further fault could damage")


def _events(turn: Turn) -> tuple[bytes, ...]:
    assert isinstance(turn.response, Response)
    return split_events(turn.response.body.data)


def _checked(number: int, most: int, what: str = "events") -> int:
    if not 0 <= number <= most:
        raise ValueError(f"expected at most {most} {what}, because the stream has no more, came {number}")
    return number


def _end_early(end: str, after: Optional[int], at: Optional[int]) -> Fault:
    if (after is None) == (at is None):
        raise ValueError("give after=, a number of events, or at=, a number of bytes")

    def change(turn: Turn) -> Turn:
        assert isinstance(turn.response, Response)
        body = turn.response.body
        if at is None:
            events = _events(turn)
            length = sum(map(len, events[: _checked(after or 0, len(events))]))
        else:
            length = _checked(at, len(body.data), "bytes")
        segments: list[bytes] = []
        for segment in body.segments:
            segments.append(segment[: length - sum(map(len, segments))])
        kept = tuple(filter(None, segments))
        short = Body(kept, body.delays[: len(kept)], end)
        return dataclasses.replace(turn, response=dataclasses.replace(turn.response, body=short))

    return _changed(change)


def _with_segments(turn: Turn, segments: Sequence[bytes]) -> Turn:
    assert isinstance(turn.response, Response)
    body = Body(tuple(segments), (), turn.response.body.end)
    return dataclasses.replace(turn, response=dataclasses.replace(turn.response, body=body))
