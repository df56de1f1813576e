"""The Gemini API with an API key (docs: ai.google.dev/api)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Optional

from gemini_sync.config import DEFAULT_MAX_EVENT_BYTES, Endpoints, check_secret
from gemini_sync.errors import InvalidRequestError
from gemini_sync.messages.request import GEMINI_API, Request, body_for
from gemini_sync.messages.signatures import Signatures
from gemini_sync.network.deadlines import Call
from gemini_sync.network.transport import Transport
from gemini_sync.services.base import API_KEY, JSON_HEADERS, JsonApi, OpenStream


class ApiKeyService:
    """Streams and counts at ``{endpoints.gemini}/v1beta``; the key goes into the ``x-goog-api-key`` header."""

    route = API_KEY

    def __init__(
        self,
        api_key: str,
        transport: Transport,
        endpoints: Endpoints,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        signatures: Optional[Signatures] = None,
    ) -> None:
        self._key = check_secret(api_key, "api_key")
        self._headers = {"x-goog-api-key": self._key, **JSON_HEADERS}
        self._signatures = signatures or Signatures()
        self._body_for = partial(body_for, service=GEMINI_API, signatures=self._signatures)
        learn = partial(self._signatures.learn, GEMINI_API)
        self._api = JsonApi(transport, f"{endpoints.gemini}/v1beta/", max_event_bytes, learn)

    def open(self, request: Request, call: Call) -> OpenStream:
        call.secrets.add(self._key)
        path = f"{request.path}:streamGenerateContent?alt=sse"
        body = self._body_for(request)
        try:
            return self._api.stream(call, path, self._headers, body)
        except InvalidRequestError as exc:
            if not self._signatures.mend(body, GEMINI_API, exc):
                raise
        return self._api.stream(call, path, self._headers, self._body_for(request))

    def count_tokens(self, request: Request, call: Call) -> int:
        call.secrets.add(self._key)
        body = self._body_for(request)
        try:
            return self._count(request, call, body)
        except InvalidRequestError as exc:
            if not self._signatures.mend(body, GEMINI_API, exc):
                raise
        return self._count(request, call, self._body_for(request))

    def _count(self, request: Request, call: Call, body: Mapping[str, Any]) -> int:
        wrapped = {"generateContentRequest": {"model": request.model, **body}}
        return self._api.count_tokens(call, f"{request.path}:countTokens", self._headers, wrapped)
