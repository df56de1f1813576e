"""Code Assist with an OAuth token (GC code_assist/server.ts, converter.ts)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Optional, TypeVar

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.credentials import Credentials
from gemini_sync.config import DEFAULT_MAX_EVENT_BYTES, Endpoints
from gemini_sync.errors import ConfigError, NotFoundError
from gemini_sync.messages.api_errors import replace_next_step
from gemini_sync.messages.request import CODE_ASSIST, Request
from gemini_sync.messages.signatures import Signatures
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.services.base import OAUTH, JsonApi, OpenStream, bearer, send_body, with_token

_T = TypeVar("_T")

#: How Code Assist spells the models that it does not call by their own names (GC config/models.ts).
CODE_ASSIST_MODELS: Mapping[str, str] = MappingProxyType({"gemini-3.5-flash": "gemini-3-flash"})


@dataclass(frozen=True)
class CodeAssist:
    """Code Assist as the service of the OAuth route.

    Attributes:
        models: how Code Assist spells a model, by the model's own name. A model that is not in it is sent as it is.

    Raises:
        ConfigError: ``models`` does not map names to names.
    """

    models: Mapping[str, str] = field(default_factory=lambda: CODE_ASSIST_MODELS, hash=False)

    def __post_init__(self) -> None:
        pairs = list(self.models.items()) if isinstance(self.models, Mapping) else [(None, None)]
        if not all(isinstance(name, str) and name.strip() for pair in pairs for name in pair):
            raise ConfigError(
                "CodeAssist.models must map model names to the names that Code Assist has for them, such as "
                f"{dict(CODE_ASSIST_MODELS)!r}, not {type(self.models).__name__} with other values."
            )
        plain = {name.strip().removeprefix("models/"): to.strip().removeprefix("models/") for name, to in pairs}
        object.__setattr__(self, "models", plain)  # a copy, which can be pickled


class CodeAssistService:
    """Streams and counts at ``endpoints.code_assist_api``.

    ``project`` finds the Code Assist project of a token.
    """

    route = OAUTH

    def __init__(
        self,
        credentials: Credentials,
        project: Callable[[Call, AccessToken], str],
        transport: Transport,
        endpoints: Endpoints,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        settings: CodeAssist = CodeAssist(),
        signatures: Optional[Signatures] = None,
    ) -> None:
        if not isinstance(settings, CodeAssist):
            raise ConfigError(f"oauth_service must be CodeAssist, not {type(settings).__name__}.")
        self._credentials, self._project, self._models = credentials, project, settings.models
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
