"""Knows the two services: where a request goes, how it is wrapped, what a chunk looks like; knows no fallback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NoReturn, Protocol, TypeVar, Union

from gemini_sync.auth.credentials import Token
from gemini_sync.config import DEFAULT_MAX_EVENT_BYTES, Endpoints, check_secret
from gemini_sync.errors import ApiError, AuthError, ProtocolError
from gemini_sync.messages import sse
from gemini_sync.messages.api_errors import answer_error, api_error, decode_body, find_error
from gemini_sync.messages.request import Request
from gemini_sync.messages.response import Chunk
from gemini_sync.network.deadlines import Call
from gemini_sync.network.exchange import Answer, Exchange
from gemini_sync.network.redirects import refuse_redirect
from gemini_sync.network.transport import Transport
from gemini_sync.redaction import redacted_excerpt
from gemini_sync.routing.fallback import API_KEY, OAUTH

_COUNT_SECONDS = 30.0
_COUNT = "The token count"
_JSON = "application/json"
_decode = json.JSONDecoder().raw_decode  # what json.loads adds to it costs half as much again

_T = TypeVar("_T")

Opened = tuple[Chunk, Iterator[Chunk]]


class Backend(Protocol):
    """One route to the model."""

    route: str

    def open(self, request: Request, call: Call) -> Opened:
        """Send ``request``; its first chunk, and the rest as it arrives. Nothing is retried here except a 401."""

    def count_tokens(self, request: Request, call: Call) -> int:
        """How many tokens ``request`` has."""


class TokenProvider(Protocol):
    """What the OAuth route asks of its credentials."""

    def fetch(self, call: Call) -> Token:
        """A usable token."""

    def invalidate(self, access_token: str) -> None:
        """The server refused this token."""


class ApiKeyBackend:
    """The Gemini API with an API key (docs: ai.google.dev/api)."""

    route = API_KEY

    def __init__(
        self, api_key: str, transport: Transport, endpoints: Endpoints, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    ) -> None:
        self._key = check_secret(api_key, "api_key")
        self._transport = transport
        self._base = f"{endpoints.gemini}/v1beta/"
        self._max_event_bytes = max_event_bytes
        self._headers = {"x-goog-api-key": self._key, "Content-Type": _JSON}

    def open(self, request: Request, call: Call) -> Opened:
        url = f"{self._base}{request.path}:streamGenerateContent?alt=sse"
        call.secrets.add(self._key)
        exchange = self._transport.send(call, "POST", url, self._headers, request.body)
        return _first(_chunks(exchange, self._max_event_bytes, Chunk))

    def count_tokens(self, request: Request, call: Call) -> int:
        model = json.dumps(request.model).encode()
        body = b'{"generateContentRequest":{"model":' + model + b"," + request.body[1:] + b"}"
        url = f"{self._base}{request.path}:countTokens"
        call.secrets.add(self._key)
        answer = self._transport.fetch(
            call, "POST", url, self._headers, body, seconds=_count_seconds(call), what=_COUNT
        )
        return _total(answer, call)


class CodeAssistBackend:
    """Code Assist with an OAuth token (GC code_assist/server.ts, converter.ts)."""

    route = OAUTH

    def __init__(
        self,
        credentials: TokenProvider,
        project: Callable[[Call, Token], str],
        transport: Transport,
        endpoints: Endpoints,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
    ) -> None:
        self._credentials = credentials
        self._project = project
        self._transport = transport
        self._base = f"{endpoints.code_assist}/v1internal:"
        self._max_event_bytes = max_event_bytes
        self._session_id = os.urandom(16).hex()

    def open(self, request: Request, call: Call) -> Opened:
        def stream(token: Token) -> Opened:
            project = self._project(call, token)
            url = self._base + "streamGenerateContent?alt=sse"
            body = self._wrap(request, project)
            exchange = self._transport.send(call, "POST", url, _bearer(token, call), body)
            first, rest = _first(_chunks(exchange, self._max_event_bytes, _unwrapped))
            return first, self._watched(rest, token)

        return self._with_token(call, stream)

    def count_tokens(self, request: Request, call: Call) -> int:
        # Takes no project, and of the request only the contents (GC code_assist/converter.ts toCountTokenRequest).
        contents = json.loads(request.body)["contents"]
        counted = {"request": {"model": f"models/{request.code_assist_model}", "contents": contents}}
        body = json.dumps(counted, ensure_ascii=False).encode()

        def count(token: Token) -> int:
            url = self._base + "countTokens"
            answer = self._transport.fetch(
                call, "POST", url, _bearer(token, call), body, seconds=_count_seconds(call), what=_COUNT
            )
            return _total(answer, call)

        return self._with_token(call, count)

    def _wrap(self, request: Request, project: str) -> bytes:
        head = {"model": request.code_assist_model, "project": project, "user_prompt_id": os.urandom(16).hex()}
        return b'%s,"request":%s,"session_id":"%s"}}' % (
            json.dumps(head).encode()[:-1],
            request.body[:-1],
            self._session_id.encode(),
        )

    def _with_token(self, call: Call, use: Callable[[Token], _T]) -> _T:
        """``use`` with a token; after a 401 that token is dropped, and it is tried once more with another."""
        token = self._credentials.fetch(call)
        try:
            return use(token)
        except AuthError:
            self._credentials.invalidate(token.access_token)
            other = self._credentials.fetch(call)
            if other.access_token == token.access_token:
                raise
            return use(other)

    def _watched(self, chunks: Iterator[Chunk], token: Token) -> Iterator[Chunk]:
        """``chunks``; a 401 in the middle of them makes the next call ask for another token."""
        try:
            yield from chunks
        except AuthError:
            self._credentials.invalidate(token.access_token)
            raise


def _bearer(token: Token, call: Call) -> dict[str, str]:
    call.secrets.add(token.access_token)
    return {"Authorization": f"Bearer {token.access_token}", "Content-Type": _JSON}


def _first(chunks: Iterator[Chunk]) -> Opened:
    """``chunks`` with the first one pulled: the point up to which nobody has seen anything."""
    for chunk in chunks:
        return chunk, chunks
    raise ProtocolError("The stream ended before the first chunk. Expected at least one event.")


def _unwrapped(event: dict[str, Any]) -> Chunk:
    response = event.get("response")
    return Chunk(response if isinstance(response, dict) else {}, event)


def _chunks(exchange: Exchange, max_event_bytes: int, unwrap: Callable[[dict[str, Any]], Chunk]) -> Iterator[Chunk]:
    """The chunks of a response; closes it at the end.

    Raises:
        ApiError: the server answered with an error, as its status or inside the stream.
        ProtocolError: what came is no stream of JSON objects.
        TransportError, StreamInterrupted: as ``Exchange.chunks``.
    """
    with exchange:
        _check_stream(exchange)
        call, decode, position = exchange.call, _decode, 0
        bounded = call.timeouts.total is not None
        for event in sse.events(exchange.chunks(), max_event_bytes):
            data = event.data
            foreign = type(event) is sse.ForeignEvent
            del event
            position += 1
            try:
                decoded, end = decode(data)
            except (ValueError, RecursionError):
                end = -1
            if end != len(data):  # white space around it, or no JSON
                if not data.strip():
                    continue  # an event without data is a sign of life, like a comment
                decoded = _loads(data, position)
            del data
            if type(decoded) is not dict or foreign or decoded.get("error") is not None:
                _refuse_event(decoded, position, call.secrets)
            chunk = unwrap(decoded)
            del decoded
            yield chunk
            del chunk
            call.got_chunk = True
            if call.cancelled or bounded:  # what was received already may be the whole rest
                call.check_total()


def _loads(data: str, position: int) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError(f"Event {position} is not JSON: expected a chunk, came {len(data)} characters.") from exc


def _refuse_event(decoded: Any, position: int, secrets: Collection[str]) -> NoReturn:
    if find_error(decoded) is not None:
        raise api_error(None, decoded, secrets=secrets)
    kind = "an object outside the events" if isinstance(decoded, dict) else type(decoded).__name__
    raise ProtocolError(f"Event {position} is no chunk: expected a JSON object, came {kind}.")


def _check_stream(exchange: Exchange) -> None:
    """Raises the error of a response that is no event stream, with a bounded part of its body."""
    content_type = _content_type(exchange.headers)
    if exchange.status == 200 and content_type == "text/event-stream":
        return
    refuse_redirect(exchange.status, exchange.headers)
    raise _error_of(exchange.answer(), "text/event-stream", exchange.call)


def _content_type(headers: Mapping[str, str]) -> str:
    return (headers.get("Content-Type") or "").partition(";")[0].strip().lower()


def _error_of(answer: Answer, expected: str, call: Call) -> Union[ApiError, ProtocolError]:
    error = answer_error(answer.status, answer.headers, answer.text, call.secrets)
    if error is not None:
        return error
    came = _content_type(answer.headers) or "no content type"
    return ProtocolError(
        f"Expected {expected}, came status {answer.status} with {came}: "
        f"{redacted_excerpt(answer.text, call.secrets)!r}. A proxy or login page may have answered instead.",
        code=answer.status,
    )


def _count_seconds(call: Call) -> float:
    return min(_COUNT_SECONDS, call.timeouts.first_token or _COUNT_SECONDS)


def _total(answer: Answer, call: Call) -> int:
    decoded = decode_body(answer.text) if answer.status == 200 else None
    total = decoded.get("totalTokens") if isinstance(decoded, dict) else None
    if isinstance(total, int) and not isinstance(total, bool):
        return total
    raise _error_of(answer, "a JSON object with totalTokens", call)
