"""The Gemini API with an API key (docs: ai.google.dev/api)."""

from __future__ import annotations

from gemini_sync.config import DEFAULT_MAX_EVENT_BYTES, Endpoints, check_secret
from gemini_sync.messages.request import GEMINI_API, Request, body_for
from gemini_sync.messages.response import Chunk
from gemini_sync.messages.rest_json import encode_json
from gemini_sync.network.deadlines import Call
from gemini_sync.network.transport import Transport
from gemini_sync.services.base import API_KEY, JSON_HEADERS, OpenStream, count_tokens, open_stream


class ApiKeyService:
    """Streams and counts at ``{endpoints.gemini}/v1beta``; the key goes into the ``x-goog-api-key`` header."""

    route = API_KEY

    def __init__(
        self, api_key: str, transport: Transport, endpoints: Endpoints, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    ) -> None:
        self._key = check_secret(api_key, "api_key")
        self._transport = transport
        self._base = f"{endpoints.gemini}/v1beta/"
        self._max_event_bytes = max_event_bytes
        self._headers = {"x-goog-api-key": self._key, **JSON_HEADERS}

    def open(self, request: Request, call: Call) -> OpenStream:
        call.secrets.add(self._key)
        url = f"{self._base}{request.path}:streamGenerateContent?alt=sse"
        body = encode_json(body_for(request, GEMINI_API))
        exchange = self._transport.send(call, "POST", url, self._headers, body)
        return open_stream(exchange, self._max_event_bytes, Chunk)

    def count_tokens(self, request: Request, call: Call) -> int:
        call.secrets.add(self._key)
        url = f"{self._base}{request.path}:countTokens"
        body = {"generateContentRequest": {"model": request.model, **body_for(request, GEMINI_API)}}
        return count_tokens(self._transport, call, url, self._headers, body)
