"""What all services share: what the router asks of them, requests and answers in JSON, Bearer tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from typing import Any, Optional, Protocol, TypeVar

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.credentials import Credentials
from gemini_sync.config import DEFAULT_MAX_EVENT_BYTES
from gemini_sync.errors import UNREADABLE_ANSWER, AuthError, DeadlineExceeded, InvalidRequestError, ProtocolError
from gemini_sync.messages.api_errors import decode_body, find_error
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.request import Request, body_for
from gemini_sync.messages.rest_json import int_of
from gemini_sync.messages.signatures import Signatures
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.secret import Secret
from gemini_sync.services.streams import Learn, chunks_of, error_of

OAUTH = "oauth"
API_KEY = "api_key"
JSON_HEADERS = {"Content-Type": "application/json"}
_COUNT_SECONDS = 30.0
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
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


def with_token(credentials: Credentials, call: Call, use: Callable[..., _T], *arguments: Any) -> _T:
    """The result of ``use(*arguments, token)``. A 401 drops that token, and ``use`` gets one more try with another."""
    token = credentials.fetch(call)
    try:
        return use(*arguments, token)
    except AuthError:
        credentials.invalidate(token.access_token)
        other = credentials.fetch(call)
        if other.access_token == token.access_token:
            raise
        return use(*arguments, other)


def send_body(request: Request, service: str, signatures: Signatures, send: Callable[[Mapping[str, Any]], _T]) -> _T:
    """The result of ``send`` with the body for ``service``. A 400 about thought signatures is mended once."""
    body = body_for(request, service, signatures)
    try:
        return send(body)
    except InvalidRequestError as exc:
        if not signatures.mend(body, service, exc):
            raise
    return send(body_for(request, service, signatures))


def encode_json(value: Any) -> bytes:
    return _encoder.encode(value).encode("utf-8")


def bearer(token: AccessToken, call: Call) -> dict[str, str]:
    """The headers of a JSON request with ``token``."""
    call.secrets.add(token.access_token)
    return {"Authorization": Secret("Bearer " + token.access_token), **JSON_HEADERS}


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
        self, call: Call, path: str, headers: Mapping[str, str], body: Mapping[str, Any], envelope: Optional[str] = None
    ) -> OpenStream:
        """POST ``body`` and wait for the first chunk; ``envelope`` names the field of an event that holds the chunk.

        Raises:
            ApiError: the server answered with an error, as its status or inside the stream.
            ProtocolError: the response is no stream of JSON objects.
            TransportError, StreamInterrupted: as for ``Transport.send`` and ``Exchange.chunks``.
        """
        exchange = self._transport.send(call, "POST", self._base + path, headers, encode_json(body))
        chunks = chunks_of(exchange, self._max_event_bytes, envelope, self._learn)
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
        raise error_of(answer, f"a JSON object from {source}", call)

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
        total = int_of(decoded.get("totalTokens"))
        if total is not None:
            return total
        came = type(decoded.get("totalTokens")).__name__
        raise ProtocolError(
            f"Expected a JSON object with a number in totalTokens from countTokens, came {came} in it.",
            reason=UNREADABLE_ANSWER,
        )
