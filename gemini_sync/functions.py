"""Knows the plain functions: one route, nothing to set up, connections shared by the whole process."""

from __future__ import annotations

import atexit
from typing import Any

from gemini_sync.auth.credentials import Token
from gemini_sync.config import (
    DEFAULT_MAX_EVENT_BYTES,
    DEFAULT_MODEL,
    Endpoints,
    Retry,
    Timeouts,
    check_secret,
    check_settings,
)
from gemini_sync.errors import ConfigError
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.request import Contents, build
from gemini_sync.network.deadlines import Call
from gemini_sync.network.transport import Transport
from gemini_sync.routing.router import Router
from gemini_sync.services.api_key import ApiKeyService
from gemini_sync.services.base import Service
from gemini_sync.services.code_assist import CodeAssistService

_transport = Transport()
atexit.register(_transport.close)


class _GivenToken:
    """The access token a caller brings; there is no other to be had."""

    def __init__(self, access_token: str) -> None:
        self._token = Token(check_secret(access_token, "access_token"), None)

    def fetch(self, call: Call) -> Token:
        return self._token

    def invalidate(self, access_token: str) -> None:
        """Nothing can be done: the next ``fetch`` gives the same token, and the 401 surfaces."""


def stream_gemini_api_key(
    prompt: Contents,
    api_key: str,
    model: str = DEFAULT_MODEL,
    *,
    endpoints: Endpoints = Endpoints(),
    timeouts: Timeouts = Timeouts(),
    retry: Retry = Retry(),
    require_finish: bool = True,
    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
    **options: Any,
) -> Reply:
    """Stream the answer to ``prompt`` from the Gemini API: an iterator of text pieces.

    Args:
        prompt: a string, a Part, a Content, or a list of these.
        options: what ``GeminiDualAdapter.stream`` takes besides: ``system_instruction``, ``generation_config``, ….
        timeouts, retry, require_finish, max_event_bytes: as for ``GeminiDualAdapter``.

    Raises:
        ConfigError: at once, for arguments that cannot be used. What iterating raises, ``Reply`` says.
    """
    check_settings(locals())
    service = ApiKeyService(api_key, _transport, endpoints, max_event_bytes)
    return _stream(service, prompt, model, timeouts, retry, require_finish, options)


def stream_gemini_oauth(
    prompt: Contents,
    access_token: str,
    project: str,
    model: str = DEFAULT_MODEL,
    *,
    endpoints: Endpoints = Endpoints(),
    timeouts: Timeouts = Timeouts(),
    retry: Retry = Retry(),
    require_finish: bool = True,
    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
    **options: Any,
) -> Reply:
    """Stream the answer to ``prompt`` from Code Assist: an iterator of text pieces.

    Args:
        prompt: a string, a Part, a Content, or a list of these.
        access_token: from ``get_access_token()``, or your own.
        project: from ``load_code_assist(access_token)``.
        options: as for ``stream_gemini_api_key``.

    Raises:
        ConfigError: at once, for arguments that cannot be used. What iterating raises, ``Reply`` says.
    """
    if not isinstance(project, str) or not project.strip():
        raise ConfigError("project must be a project id; load_code_assist(access_token) finds yours.")
    check_settings(locals())
    token = _GivenToken(access_token)
    service = CodeAssistService(token, lambda call, token: project.strip(), _transport, endpoints, max_event_bytes)
    return _stream(service, prompt, model, timeouts, retry, require_finish, options)


def _stream(
    service: Service,
    prompt: Contents,
    model: str,
    timeouts: Timeouts,
    retry: Retry,
    require_finish: bool,
    options: dict[str, Any],
) -> Reply:
    request = build(prompt, model=model, **options)
    return Router({service.route: service}, retry=retry, require_finish=require_finish).stream(request, timeouts)
