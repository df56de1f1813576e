"""What all services share: what the router asks of them, requests and answers in JSON, Bearer tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any, Optional, Protocol, TypeVar, Union

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.config import DEFAULT_MAX_EVENT_BYTES
from gemini_sync.errors import ApiError, AuthError, DeadlineExceeded, ProtocolError
from gemini_sync.messages import sse
from gemini_sync.messages.api_errors import answer_error, api_error, decode_body, find_error
from gemini_sync.messages.request import Request
from gemini_sync.messages.response import Chunk
from gemini_sync.messages.rest_json import encode_json
from gemini_sync.network.deadlines import Call
from gemini_sync.network.exchange import Answer, Exchange
from gemini_sync.network.redirects import refuse_redirect
from gemini_sync.network.transport import Transport
from gemini_sync.redaction import redacted_excerpt

OAUTH = "oauth"
API_KEY = "api_key"
JSON_HEADERS = {"Content-Type": "application/json"}
_COUNT_SECONDS = 30.0
_decode = json.JSONDecoder().raw_decode  # json.loads costs half as much again

_T = TypeVar("_T")

#: The first chunk of a stream, and an iterator over the rest.
OpenStream = tuple[Chunk, Generator[Chunk, None, None]]


class Service(Protocol):
    """One way to the model."""

    route: str

    def open(self, request: Request, call: Call) -> OpenStream:
        """Send ``request`` and wait for its first chunk. Nothing is retried here except a 401."""

    def count_tokens(self, request: Request, call: Call) -> int:
        """How many tokens ``request`` has."""


class TokenProvider(Protocol):
    """What an OAuth service asks of its credentials."""

    def fetch(self, call: Call) -> AccessToken:
        """A usable token."""

    def invalidate(self, access_token: str) -> None:
        """The server refused this token."""


def with_token(credentials: TokenProvider, call: Call, use: Callable[[AccessToken], _T]) -> _T:
    """The result of ``use`` with a token. A 401 drops that token, and ``use`` gets one more try with another."""
    token = credentials.fetch(call)
    try:
        return use(token)
    except AuthError:
        credentials.invalidate(token.access_token)
        other = credentials.fetch(call)
        if other.access_token == token.access_token:
            raise
        return use(other)


def bearer(token: AccessToken, call: Call) -> dict[str, str]:
    """The headers of a JSON request with ``token``."""
    call.secrets.add(token.access_token)
    return {"Authorization": f"Bearer {token.access_token}", **JSON_HEADERS}


class JsonApi:
    """One of Google's JSON APIs: requests go to paths under a base URL, and answers become values or typed errors."""

    def __init__(self, transport: Transport, base: str, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self._transport, self._base, self._max_event_bytes = transport, base, max_event_bytes

    def stream(
        self,
        call: Call,
        path: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any],
        unwrap: Callable[[dict[str, Any]], Chunk],
    ) -> OpenStream:
        """POST ``body`` and wait for the first chunk; ``unwrap`` makes a chunk of a decoded event.

        Raises:
            ApiError: the server answered with an error, as its status or inside the stream.
            ProtocolError: the response is no stream of JSON objects.
            TransportError, StreamInterrupted: as for ``Transport.send`` and ``Exchange.chunks``.
        """
        exchange = self._transport.send(call, "POST", self._base + path, headers, encode_json(body))
        chunks = _chunks(exchange, self._max_event_bytes, unwrap)
        for chunk in chunks:
            return chunk, chunks
        raise ProtocolError("The stream ended before the first chunk. Expected at least one event.")

    def fetch(
        self,
        call: Call,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Optional[Mapping[str, Any]] = None,
        *,
        seconds: float,
        source: str,
    ) -> dict[str, Any]:
        """The JSON object in a small answer, within ``seconds``; messages name ``source`` as what was asked.

        Raises:
            ApiError: the answer is an error.
            ProtocolError: it is no JSON object.
            TransportError, StreamInterrupted: as for ``Transport.fetch``.
        """
        sent, what = None if body is None else encode_json(body), f"The answer of {source}"
        answer = self._transport.fetch(call, method, self._base + path, headers, sent, seconds=seconds, what=what)
        decoded = decode_body(answer.text) if answer.status == 200 else None
        if isinstance(decoded, dict) and decoded.get("error") is None:
            return decoded
        raise _error_of(answer, f"a JSON object from {source}", call)

    def count_tokens(self, call: Call, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> int:
        """The ``totalTokens`` of a countTokens method, within 30 s, or less if ``first_token`` is shorter."""
        seconds = min(_COUNT_SECONDS, call.timeouts.first_token or _COUNT_SECONDS)
        try:
            decoded = self.fetch(call, "POST", path, headers, body, seconds=seconds, source="countTokens")
        except DeadlineExceeded as exc:
            if exc.deadline != "answer" or seconds == _COUNT_SECONDS:
                raise
            message = f"No token count came within {seconds:g} s. Raise Timeouts.first_token if that is too short."
            raise DeadlineExceeded(message, deadline="first_token", seconds=seconds) from exc
        total = decoded.get("totalTokens")
        if isinstance(total, int) and not isinstance(total, bool):
            return total
        raise ProtocolError(
            f"Expected a JSON object with a number in totalTokens from countTokens, came {type(total).__name__} in it."
        )


def _chunks(
    exchange: Exchange, max_event_bytes: int, unwrap: Callable[[dict[str, Any]], Chunk]
) -> Generator[Chunk, None, None]:
    """The chunks of a response, which is closed at the end.

    A suspended generator keeps its local variables alive, so large values are deleted before each ``yield``.
    """
    try:
        _check_stream(exchange)
        call, position = exchange.call, 0
        has_total = call.timeouts.total is not None
        for event in sse.events(exchange.chunks(), max_event_bytes):
            position += 1
            decoded = _decode_event(event, position, call.secrets)
            del event
            if decoded is None:
                continue
            chunk = unwrap(decoded)
            del decoded
            yield chunk
            del chunk
            call.got_chunk = True
            if call.cancelled or has_total:  # all other chunks may have arrived, so that no read would notice
                call.check_total()
    finally:
        exchange.close()


def _decode_event(event: sse.Event, position: int, secrets: Collection[str]) -> Optional[dict[str, Any]]:
    """The object in an event; None for an event without data, which is a sign of life like a comment."""
    data = event.data
    try:
        decoded, end = _decode(data)
    except (ValueError, RecursionError):
        end = -1
    if end != len(data):  # white space around the value, or no JSON
        if not data.strip():
            return None
        try:
            decoded = json.loads(data)
        except (ValueError, RecursionError) as exc:
            message = f"Event {position} is not JSON: expected a chunk, came {len(data)} characters."
            raise ProtocolError(message) from exc
    if type(decoded) is dict and decoded.get("error") is None and type(event) is not sse.BareJsonEvent:
        return decoded
    if find_error(decoded) is not None:
        raise api_error(None, decoded, secrets=secrets)
    kind = "an object outside the events" if isinstance(decoded, dict) else type(decoded).__name__
    raise ProtocolError(f"Event {position} is no chunk: expected a JSON object, came {kind}.")


def _check_stream(exchange: Exchange) -> None:
    """Raises the error of a response that is no event stream, with a bounded part of its body."""
    if exchange.status == 200 and _content_type(exchange.headers) == "text/event-stream":
        return
    refuse_redirect(exchange.status, exchange.headers)
    raise _error_of(exchange.answer(), "text/event-stream", exchange.call)


def _content_type(headers: Mapping[str, str]) -> str:
    return (headers.get("Content-Type") or "").partition(";")[0].strip().lower()


def _error_of(answer: Answer, expected: str, call: Call) -> Union[ApiError, ProtocolError]:
    """The error of an answer that is not ``expected``."""
    error = answer_error(answer.status, answer.headers, answer.text, call.secrets)
    if error is not None:
        return error
    came = _content_type(answer.headers) or "no content type"
    return ProtocolError(
        f"Expected {expected}, came status {answer.status} with {came}: "
        f"{redacted_excerpt(answer.text, call.secrets)!r}. A proxy or login page may have answered instead.",
        code=answer.status,
    )
