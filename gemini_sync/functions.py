"""The plain functions: each uses one route, without an adapter; all share the connections of the process."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from gemini_sync.auth.credentials import Credentials
from gemini_sync.auth.sources import CallableSource
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
from gemini_sync.messages.request import Contents, RequestOptions, build
from gemini_sync.network.transport import Transport
from gemini_sync.routing.router import Router
from gemini_sync.services.api_key import ApiKeyService
from gemini_sync.services.base import Service
from gemini_sync.services.code_assist import CodeAssistService

if TYPE_CHECKING:
    from typing_extensions import Unpack

_DEFAULTS: Mapping[str, Any] = {
    "timeouts": Timeouts(),
    "retry": Retry(),
    "require_finish": True,
    "max_event_bytes": DEFAULT_MAX_EVENT_BYTES,
}
_transport = Transport()
atexit.register(_transport.close)


class PlainOptions(RequestOptions, total=False):
    """The options of the plain functions: those of a request, and four settings of ``GeminiDualAdapter``."""

    timeouts: Timeouts
    retry: Retry
    require_finish: bool
    max_event_bytes: int


def stream_gemini_api_key(
    prompt: Contents,
    api_key: str,
    model: str = DEFAULT_MODEL,
    *,
    endpoints: Endpoints = Endpoints(),
    **options: Unpack[PlainOptions],
) -> Reply:
    """Stream the answer to ``prompt`` from the Gemini API: an iterator of text pieces.

    Args:
        prompt: a string, a Part, a Content, or a list of these.
        options: those of ``GeminiDualAdapter.stream``, such as ``system_instruction``, and the settings ``timeouts``,
            ``retry``, ``require_finish`` and ``max_event_bytes`` of ``GeminiDualAdapter``.

    Raises:
        ConfigError: an argument cannot be used. For what iterating can raise, see ``Reply``.
    """
    return _stream(partial(ApiKeyService, api_key), prompt, model, endpoints, options)


def stream_gemini_oauth(
    prompt: Contents,
    access_token: str,
    project: str,
    model: str = DEFAULT_MODEL,
    *,
    endpoints: Endpoints = Endpoints(),
    **options: Unpack[PlainOptions],
) -> Reply:
    """Stream the answer to ``prompt`` from Code Assist: an iterator of text pieces.

    Args:
        prompt: a string, a Part, a Content, or a list of these.
        access_token: from ``get_access_token()``, or your own.
        project: from ``load_code_assist(access_token)``.
        options: those of ``stream_gemini_api_key``.

    Raises:
        ConfigError: an argument cannot be used. For what iterating can raise, see ``Reply``.
    """
    if not isinstance(project, str) or not project.strip():
        raise ConfigError("project must be a project id; load_code_assist(access_token) finds yours.")
    given = check_secret(access_token, "access_token")
    credentials = Credentials(CallableSource(lambda: given))
    make_service = partial(CodeAssistService, credentials, lambda call, token: project.strip())
    return _stream(make_service, prompt, model, endpoints, options)


def _stream(
    make_service: Callable[[Transport, Endpoints, int], Service],
    prompt: Contents,
    model: str,
    endpoints: Endpoints,
    options: Mapping[str, Any],
) -> Reply:
    settings = {name: options.get(name, default) for name, default in _DEFAULTS.items()}
    check_settings({**settings, "endpoints": endpoints})
    request = build(prompt, model=model, **{name: options[name] for name in options.keys() - settings.keys()})
    service = make_service(_transport, endpoints, settings["max_event_bytes"])
    router = Router({service.route: service}, retry=settings["retry"], require_finish=settings["require_finish"])
    return router.stream(request, settings["timeouts"])
