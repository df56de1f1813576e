"""The Gemini API with an API key (docs: ai.google.dev/api)."""

from __future__ import annotations

from gemini_sync.config import DEFAULT_MAX_EVENT_BYTES, Endpoints, check_secret
from gemini_sync.messages.request import GEMINI_API, Request, body_for
from gemini_sync.messages.response import Chunk
from gemini_sync.network.deadlines import Call
from gemini_sync.network.transport import Transport
from gemini_sync.services.base import API_KEY, JSON_HEADERS, JsonApi, OpenStream


class ApiKeyService:
    """Streams and counts at ``endpoints.gemini_api``; the key goes into the ``x-goog-api-key`` header."""

    route = API_KEY

    def __init__(
        self, api_key: str, transport: Transport, endpoints: Endpoints, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    ) -> None:
        self._key = check_secret(api_key, "api_key")
        self._headers = {"x-goog-api-key": self._key, **JSON_HEADERS}
        self._api = JsonApi(transport, f"{endpoints.gemini_api}/", max_event_bytes)

    def open(self, request: Request, call: Call) -> OpenStream:
        call.secrets.add(self._key)
        path = f"{request.path}:streamGenerateContent?alt=sse"
        return self._api.stream(call, path, self._headers, body_for(request, GEMINI_API), Chunk)

    def count_tokens(self, request: Request, call: Call) -> int:
        call.secrets.add(self._key)
        body = {"generateContentRequest": {"model": request.model, **body_for(request, GEMINI_API)}}
        return self._api.count_tokens(call, f"{request.path}:countTokens", self._headers, body)
