"""Knows the plain functions: one route, nothing to set up, connections shared by the whole process."""

from __future__ import annotations

import atexit
from typing import Any

from gemini_sync.auth.sources import GivenToken
from gemini_sync.config import (
    DEFAULT_MAX_EVENT_BYTES,
    DEFAULT_MODEL,
    Endpoints,
    Retry,
    Timeouts,
    check_settings,
)
from gemini_sync.errors import ConfigError
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.request import Contents, build
from gemini_sync.network.transport import Transport
from gemini_sync.routing.router import Router
from gemini_sync.services.backends import ApiKeyBackend, Backend, CodeAssistBackend

_transport = Transport()
atexit.register(_transport.close)


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
    backend = ApiKeyBackend(api_key, _transport, endpoints, max_event_bytes)
    return _stream(backend, prompt, model, timeouts, retry, require_finish, options)


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
    token = GivenToken(access_token)
    backend = CodeAssistBackend(token, lambda call, token: project.strip(), _transport, endpoints, max_event_bytes)
    return _stream(backend, prompt, model, timeouts, retry, require_finish, options)


def _stream(
    backend: Backend,
    prompt: Contents,
    model: str,
    timeouts: Timeouts,
    retry: Retry,
    require_finish: bool,
    options: dict[str, Any],
) -> Reply:
    request = build(prompt, model=model, **options)
    return Router({backend.route: backend}, retry=retry, require_finish=require_finish).stream(request, timeouts)
