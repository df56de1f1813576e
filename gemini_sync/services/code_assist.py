"""Code Assist with an OAuth token (GC code_assist/server.ts, converter.ts)."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Optional

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.config import DEFAULT_MAX_EVENT_BYTES, Endpoints
from gemini_sync.errors import InvalidRequestError
from gemini_sync.messages.request import CODE_ASSIST, Request, body_for
from gemini_sync.messages.signatures import Signatures
from gemini_sync.network.deadlines import Call
from gemini_sync.network.transport import Transport
from gemini_sync.services.base import OAUTH, JsonApi, OpenStream, TokenProvider, bearer, with_token

# Code Assist's spelling of model names, if it differs (GC config/models.ts).
CODE_ASSIST_MODELS = {"gemini-3.5-flash": "gemini-3-flash"}


class CodeAssistService:
    """Streams and counts at ``{endpoints.code_assist}/v1internal``.

    Args:
        project: finds the Code Assist project of a token.
    """

    route = OAUTH

    def __init__(
        self,
        credentials: TokenProvider,
        project: Callable[[Call, AccessToken], str],
        transport: Transport,
        endpoints: Endpoints,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        signatures: Optional[Signatures] = None,
    ) -> None:
        self._credentials, self._project = credentials, project
        self._signatures = signatures or Signatures()
        self._body_for = partial(body_for, service=CODE_ASSIST, signatures=self._signatures)
        learn = partial(self._signatures.learn, CODE_ASSIST)
        self._api = JsonApi(transport, f"{endpoints.code_assist}/v1internal:", max_event_bytes, learn)
        self._session_id = os.urandom(16).hex()

    def open(self, request: Request, call: Call) -> OpenStream:
        def send(token: AccessToken) -> OpenStream:
            body = {
                "model": _spelling(request),
                "project": self._project(call, token),
                "user_prompt_id": os.urandom(16).hex(),
                "request": {**inner, "session_id": self._session_id},
            }
            return self._api.stream(call, "streamGenerateContent?alt=sse", bearer(token, call), body, "response")

        inner = self._body_for(request)
        try:
            return with_token(self._credentials, call, send)
        except InvalidRequestError as exc:
            if not self._signatures.mend(inner, CODE_ASSIST, exc):
                raise
        inner = self._body_for(request)
        return with_token(self._credentials, call, send)

    def count_tokens(self, request: Request, call: Call) -> int:
        def send(token: AccessToken) -> int:
            # The method takes no project, and of the request only the contents (GC converter.ts toCountTokenRequest).
            body = {"request": {"model": f"models/{_spelling(request)}", "contents": inner["contents"]}}
            return self._api.count_tokens(call, "countTokens", bearer(token, call), body)

        inner = self._body_for(request)
        try:
            return with_token(self._credentials, call, send)
        except InvalidRequestError as exc:
            if not self._signatures.mend(inner, CODE_ASSIST, exc):
                raise
        inner = self._body_for(request)
        return with_token(self._credentials, call, send)


def _spelling(request: Request) -> str:
    name = request.model.split("/")[1]
    return CODE_ASSIST_MODELS.get(name, name)
