"""The Gemini API with an API key (docs: ai.google.dev/api)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Optional, TypeVar

from gemini_sync.config import DEFAULT_MAX_EVENT_BYTES, Endpoints, check_secret
from gemini_sync.errors import AuthError, PermissionDeniedError
from gemini_sync.messages.api_errors import replace_next_step
from gemini_sync.messages.request import GEMINI_API, Request
from gemini_sync.messages.signatures import Signatures
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.services.base import API_KEY, JSON_HEADERS, JsonApi, OpenStream, send_body

_T = TypeVar("_T")

_NEW_KEY = "make a new key in Google AI Studio, https://aistudio.google.com/apikey."
_RESTRICTED = f"This API key is restricted. Change its restrictions in the Google Cloud console, or {_NEW_KEY}"
_STEPS = {
    # Google's words for this one ask for an OAuth 2 access token, although a new key is all it takes.
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": f"The server no longer accepts this API key. OAuth is not needed: {_NEW_KEY}",
    "API_KEY_SERVICE_BLOCKED": "This API key may not be used for the Gemini API. Allow it in the Google Cloud console, "
    f"or {_NEW_KEY} If your organisation forbids API keys, use OAuth.",
    "API_KEY_HTTP_REFERRER_BLOCKED": _RESTRICTED,
    "API_KEY_IP_ADDRESS_BLOCKED": _RESTRICTED,
    "API_KEY_ANDROID_APP_BLOCKED": _RESTRICTED,
    "API_KEY_IOS_APP_BLOCKED": _RESTRICTED,
}
_CHECK_KEY = f"Check the API key, or {_NEW_KEY}"
_PERHAPS_LEAKED = f"If this API key was leaked or blocked, {_NEW_KEY}"


class ApiKeyService:
    """Streams and counts at ``endpoints.gemini_api``; the key goes into the ``x-goog-api-key`` header."""

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
        learn = partial(self._signatures.learn, GEMINI_API)
        self._api = JsonApi(transport, f"{endpoints.gemini_api}/", max_event_bytes, learn)

    def open(self, request: Request, call: Call) -> OpenStream:
        path = f"{request.path}:streamGenerateContent?alt=sse"
        return self._send(request, call, lambda body: self._api.stream(call, path, self._headers, body))

    def count_tokens(self, request: Request, call: Call) -> int:
        def send(body: Mapping[str, Any]) -> int:
            wrapped = {"generateContentRequest": {"model": request.model, **body}}
            return self._api.count_tokens(call, f"{request.path}:countTokens", self._headers, wrapped)

        return self._send(request, call, send)

    def _send(self, request: Request, call: Call, send: Callable[[Mapping[str, Any]], _T]) -> _T:
        call.secrets.add(self._key)
        try:
            return send_body(request, GEMINI_API, self._signatures, send)
        except (AuthError, PermissionDeniedError) as exc:
            step = _STEPS.get(exc.reason or "")
            if step is None and isinstance(exc, AuthError):
                step = _CHECK_KEY
            elif step is None and not exc.details:  # as for a leaked key
                step = _PERHAPS_LEAKED
            if step is not None:
                replace_next_step(exc, step)
            raise
