"""Code Assist with an OAuth token (GC code_assist/server.ts, converter.ts)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Optional, TypeVar

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.credentials import Credentials
from gemini_sync.config import CODE_ASSIST_MODELS, DEFAULT_MAX_EVENT_BYTES, Endpoints
from gemini_sync.errors import NotFoundError
from gemini_sync.messages.api_errors import replace_next_step
from gemini_sync.messages.request import CODE_ASSIST, Request
from gemini_sync.messages.signatures import Signatures
from gemini_sync.network.deadlines import Call
from gemini_sync.network.transport import Transport
from gemini_sync.services.base import OAUTH, JsonApi, OpenStream, bearer, send_body, with_token

_T = TypeVar("_T")


class CodeAssistService:
    """Streams and counts at ``endpoints.code_assist_api``.

    ``project`` finds the Code Assist project of a token. For ``models`` see ``CodeAssist``.
    """

    route = OAUTH

    def __init__(
        self,
        credentials: Credentials,
        project: Callable[[Call, AccessToken], str],
        transport: Transport,
        endpoints: Endpoints,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        models: Mapping[str, str] = CODE_ASSIST_MODELS,
        signatures: Optional[Signatures] = None,
    ) -> None:
        self._credentials, self._project, self._models = credentials, project, models
        self._signatures = signatures or Signatures()
        learn = partial(self._signatures.learn, CODE_ASSIST)
        self._api = JsonApi(transport, f"{endpoints.code_assist_api}:", max_event_bytes, learn)
        self._session_id = os.urandom(16).hex()

    def open(self, request: Request, call: Call) -> OpenStream:
        def send(inner: Mapping[str, Any], token: AccessToken) -> OpenStream:
            body = {
                "model": self._spelling(request),
                "project": self._project(call, token),
                "user_prompt_id": os.urandom(16).hex(),
                "request": {**inner, "session_id": self._session_id},
            }
            return self._api.stream(call, "streamGenerateContent?alt=sse", bearer(token, call), body, "response")

        return self._send(request, call, send)

    def count_tokens(self, request: Request, call: Call) -> int:
        def send(inner: Mapping[str, Any], token: AccessToken) -> int:
            # The method takes no project, and of the request only the contents (GC converter.ts toCountTokenRequest).
            body = {"request": {"model": f"models/{self._spelling(request)}", "contents": inner["contents"]}}
            return self._api.count_tokens(call, "countTokens", bearer(token, call), body)

        return self._send(request, call, send)

    def _send(self, request: Request, call: Call, send: Callable[[Mapping[str, Any], AccessToken], _T]) -> _T:
        try:
            return send_body(request, CODE_ASSIST, self._signatures, partial(with_token, self._credentials, call, send))
        except NotFoundError as exc:
            # The name depends on the account, and cannot be asked for (GC config/models.ts).
            name = request.model.split("/")[1]
            replace_next_step(
                exc,
                f"Check the model name. It was sent as {self._spelling(request)!r}, and Code Assist may call the model "
                f"by another name: oauth_service=CodeAssist(models={{{name!r}: 'the other name'}}) sends that one.",
            )
            raise

    def _spelling(self, request: Request) -> str:
        name = request.model.split("/")[1]
        return self._models.get(name, name)
