"""What all services share: what the router asks of them, requests and answers in JSON, Bearer tokens."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from typing import Any, Optional, Protocol, TypeVar, Union

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.config import DEFAULT_MAX_EVENT_BYTES
from gemini_sync.errors import UNREADABLE_ANSWER, ApiError, AuthError, InvalidRequestError, ProtocolError
from gemini_sync.messages import sse
from gemini_sync.messages.api_errors import answer_error, decode_body, find_error
from gemini_sync.messages.odd_events import UNDECODED, OddEvents
from gemini_sync.messages.request import Request, body_for
from gemini_sync.messages.response import Chunk
from gemini_sync.messages.rest_json import encode_json, int_of
from gemini_sync.messages.signatures import Signatures
from gemini_sync.network.deadlines import Call
from gemini_sync.network.exchange import Answer, Exchange
from gemini_sync.network.redirects import refuse_redirect
from gemini_sync.network.transport import Transport
from gemini_sync.redaction import redacted_excerpt

OAUTH = "oauth"
API_KEY = "api_key"
JSON_HEADERS = {"Content-Type": "application/json"}
_COUNT_SECONDS = 30.0
_HEAD_BYTES = len("retry:")  # what tells an event stream from another body
_STREAM_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:(?:data|event|id|retry)(?:[:\r\n]|$)|[:{\[])")
_BODY_SECONDS, _BODY_BYTES = 5.0, 2**16  # what is read of a body that is no stream
_decode = json.JSONDecoder().raw_decode  # json.loads costs half as much again

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Takes the response in a chunk that has thought signatures.
Learn = Callable[[Mapping[str, Any]], None]

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


def send_body(request: Request, service: str, signatures: Signatures, send: Callable[[Mapping[str, Any]], _T]) -> _T:
    """The result of ``send`` with the body for ``service``. A 400 about thought signatures is mended once."""
    body = body_for(request, service, signatures)
    try:
        return send(body)
    except InvalidRequestError as exc:
        if not signatures.mend(body, service, exc):
            raise
    return send(body_for(request, service, signatures))


def bearer(token: AccessToken, call: Call) -> dict[str, str]:
    """The headers of a JSON request with ``token``."""
    call.secrets.add(token.access_token)
    return {"Authorization": f"Bearer {token.access_token}", **JSON_HEADERS}


class JsonApi:
    """One of Google's JSON APIs: requests go to paths under a base URL, and answers become values or typed errors."""

    def __init__(
        self,
        transport: Transport,
        base: str,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        learn: Optional[Learn] = None,
    ) -> None:
        self._transport, self._base, self._max_event_bytes, self._learn = transport, base, max_event_bytes, learn

    def stream(
        self,
        call: Call,
        path: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any],
        envelope: Optional[str] = None,
    ) -> OpenStream:
        """POST ``body`` and wait for the first chunk; ``envelope`` names the field of an event that holds the chunk.

        Raises:
            ApiError: the server answered with an error, as its status or inside the stream.
            ProtocolError: the response is no stream of JSON objects.
            TransportError, StreamInterrupted: as for ``Transport.send`` and ``Exchange.chunks``.
        """
        exchange = self._transport.send(call, "POST", self._base + path, headers, encode_json(body))
        chunks = _chunks(exchange, self._max_event_bytes, envelope, self._learn)
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
        decoded = decode_body(answer.text) if 200 <= answer.status < 300 else None
        if isinstance(decoded, dict) and not decoded.get("error") and find_error(decoded) is None:
            return decoded
        raise _error_of(answer, f"a JSON object from {source}", call)

    def count_tokens(self, call: Call, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> int:
        """The ``totalTokens`` of a countTokens method, within 30 s, or less if ``first_token`` is shorter."""
        seconds = min(_COUNT_SECONDS, call.timeouts.first_token or _COUNT_SECONDS)
        decoded = self.fetch(call, "POST", path, headers, body, seconds=seconds, source="countTokens")
        total = int_of(decoded.get("totalTokens"))
        if total is not None:
            return total
        came = type(decoded.get("totalTokens")).__name__
        raise ProtocolError(
            f"Expected a JSON object with a number in totalTokens from countTokens, came {came} in it.",
            reason=UNREADABLE_ANSWER,
        )


def _chunks(
    exchange: Exchange, max_event_bytes: int, envelope: Optional[str], learn: Optional[Learn]
) -> Generator[Chunk, None, None]:
    """The chunks of a response, which is closed at the end.

    A suspended generator keeps its local variables alive, so it has no name for a large value at a ``yield``.
    """
    try:
        head, body = _stream_body(exchange)
        call, reader = exchange.call, _EventReader(envelope, exchange.call.secrets)
        has_total = call.timeouts.total is not None
        for event in sse.events(body, max_event_bytes):
            chunks = reader.read(event)
            signed = learn is not None and '"thoughtSignature"' in event.data  # few events are, so no other is searched
            del event
            for chunk in chunks:
                if signed and learn is not None:
                    learn(chunk.raw)
                yield chunk
                del chunk
                call.got_chunk, head = True, b""
                if call.cancelled or has_total:  # all other chunks may have arrived, so that no read would notice
                    call.check_total()
            del chunks
        if reader.odd is not None:
            yield from reader.odd.end()
        if head:
            raise _error_of(_answer_of(exchange, head), "text/event-stream", call)
    finally:
        exchange.close()


class _EventReader:
    """Makes the chunks of the events of one stream. Most events hold one chunk with one text; all others are odd."""

    def __init__(self, envelope: Optional[str], secrets: Collection[str]) -> None:
        self._envelope, self._secrets = envelope, secrets
        self._position, self._finished = 0, False
        self.odd: Optional[OddEvents] = None

    def read(self, event: sse.Event) -> Iterable[Chunk]:
        """The chunks in the next event."""
        self._position += 1
        envelope, data = self._envelope, event.data
        decoded: Any = UNDECODED
        try:
            value, end = _decode(data)
            if end == len(data):  # else there is white space around the value, or more
                decoded = value
            raw = value if envelope is None else value[envelope]
            candidate = raw["candidates"][0]
            (part,) = candidate["content"]["parts"]
            text = part["text"]
            if not text.isascii() and "\\" in data:
                text.encode()  # fails if the text holds half a character, which only an escape can write
            usual = end == len(data) and "error" not in value and "error" not in raw
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            usual = False
        if usual and type(event) is not sse.BareJsonEvent:
            self._finished = self._finished or "finishReason" in candidate
            if self.odd is None or not self.odd.halves.waiting:
                return (Chunk(raw, None if envelope is None else value),)
        self.odd = self.odd or OddEvents(envelope, self._secrets)
        return self.odd.read(event, decoded, self._position, self._finished)


def _stream_body(exchange: Exchange) -> tuple[bytes, Iterator[bytes]]:
    """The body of a response that is a stream. If only its first bytes tell that, they are the first value.

    Raises the error of another response, with a bounded part of its body.
    """
    if not 200 <= exchange.status < 300:
        refuse_redirect(exchange.status, exchange.headers)
        raise _error_of(exchange.answer(), "text/event-stream", exchange.call)
    chunks, came = exchange.chunks(), _content_type(exchange.headers)
    if came == "text/event-stream":
        return b"", chunks
    # Some gateways drop the content type, or change it, or send an array of chunks because they drop alt=sse.
    head = b""
    for piece in chunks:
        head += piece
        if len(head.lstrip()) >= _HEAD_BYTES:
            break
    if _STREAM_BEGINS.match(head):
        _log.warning("a stream came as %s instead of text/event-stream", came or "no content type")
        return head, itertools.chain([head], chunks)
    call, left = exchange.call, exchange.call.remaining()
    with call.bounded(_BODY_SECONDS if left is None else min(_BODY_SECONDS, left), "The body of the answer"):
        call.enter_answer()
        for piece in chunks:
            head += piece
            if len(head) > _BODY_BYTES:
                break
    raise _error_of(_answer_of(exchange, head), "text/event-stream", call)


def _answer_of(exchange: Exchange, body: bytes) -> Answer:
    return Answer(exchange.status, exchange.headers, body.decode("utf-8-sig", "replace"))


def _content_type(headers: Mapping[str, str]) -> str:
    first = (headers.get("Content-Type") or "").partition(",")[0]  # some gateways send the header twice
    return first.partition(";")[0].strip().lower()


def _error_of(answer: Answer, expected: str, call: Call) -> Union[ApiError, ProtocolError]:
    """The error of an answer that is not ``expected``."""
    error = answer_error(answer.status, answer.headers, answer.text, call.secrets)
    if error is not None:
        return error
    came = _content_type(answer.headers) or "no content type"
    # Text and broken JSON may come from a proxy that fails briefly. Another kind of body would come each time.
    may_pass = came == "no content type" or came.startswith("text/") or "json" in came or "xhtml" in came
    return ProtocolError(
        f"Expected {expected}, came status {answer.status} with {came}: "
        f"{redacted_excerpt(answer.text, call.secrets)!r}. A proxy or login page may have answered instead.",
        code=answer.status,
        reason=None if may_pass or answer.status >= 300 else UNREADABLE_ANSWER,
    )
