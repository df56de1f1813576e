"""``GeminiDualAdapter``, which streams over OAuth and falls back to an API key."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Optional, cast

from gemini_sync.auth.credentials import Credentials, CredentialsLike, credentials_for
from gemini_sync.config import (
    DEFAULT_MAX_EVENT_BYTES,
    DEFAULT_MODEL,
    Endpoints,
    OAuthClient,
    Retry,
    Timeouts,
    check_secret,
    check_settings,
)
from gemini_sync.environment import settings_from
from gemini_sync.errors import ConfigError
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.request import CallOptions, Contents, SystemInstruction, build, check_model
from gemini_sync.messages.rest_json import GenerationConfig, SafetySetting, Tool, ToolConfig
from gemini_sync.messages.signatures import Signatures
from gemini_sync.network.deadlines import monotonic
from gemini_sync.network.sessions import SessionFactory
from gemini_sync.network.transport import Transport
from gemini_sync.routing.events import FallbackEvent, notify_stderr
from gemini_sync.routing.fallback import RouteStatus
from gemini_sync.routing.policy import decide
from gemini_sync.routing.router import Policy, Router
from gemini_sync.services.api_key import ApiKeyService
from gemini_sync.services.base import API_KEY, OAUTH, Service
from gemini_sync.services.code_assist import CodeAssist, CodeAssistService
from gemini_sync.services.project import Projects

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gemini_sync.environment import AdapterSettings

_NO_CREDENTIALS = (
    "No credentials: give api_key, or oauth_creds_path, or both. from_env() and the command line read the "
    "environment: set GEMINI_API_KEY, or have a credentials file at ~/.gemini/oauth_creds.json (or name one in "
    "GOOGLE_APPLICATION_CREDENTIALS) and set GEMINI_OAUTH_CLIENT_ID and GEMINI_OAUTH_CLIENT_SECRET. "
    "`gemini-sync demo` needs none of it."
)


class GeminiDualAdapter:
    """Streams over OAuth (Code Assist), and over an API key once OAuth has failed.

    Any number of threads share one adapter. A route whose credential is None is off. After a fallback the API key
    serves all calls of this adapter until ``reset()``, even if the OAuth credentials work again.

    Args:
        api_key: a Gemini API key.
        oauth_creds_path: a credentials file (Gemini CLI's or gcloud's ``authorized_user``), or any source of access
            tokens: a callable that returns one, a ``TokenSource``, or a google-auth ``Credentials`` object.
        oauth_service: the service of the OAuth route. ``CodeAssist(models=…)`` changes its spelling of models.
        model, project: the model of calls that name none; the project id for Code Assist, None asks the service.
        oauth_client: the OAuth client of the refresh token, if the file does not hold it.
        endpoints, timeouts, retry: base URLs; deadlines in seconds; tries on one route before the first chunk.
        fallback, sticky_for: False keeps every call on OAuth; seconds after which OAuth is tried again, None for never.
        on_fallback: called with a ``FallbackEvent`` once per fallback; the default writes a line to stderr.
        policy: decides what an error leads to; the default is the documented table.
        require_finish: False accepts streams that end cleanly without a finish reason.
        max_event_bytes: the size limit of one event, in bytes.
        persist_credentials: False never writes a refreshed token to the credentials file.
        session_factory: makes a new ``requests.Session`` each time; the adapter closes them.
        clock, sleep: give monotonic seconds and wait, so that tests need not.

    Raises:
        ConfigError: there is no credential, or an argument cannot be used.
    """

    def __init__(
        self,
        api_key: Optional[str] = None,
        oauth_creds_path: Optional[CredentialsLike] = None,
        *,
        oauth_service: CodeAssist = CodeAssist(),
        model: str = DEFAULT_MODEL,
        project: Optional[str] = None,
        oauth_client: Optional[OAuthClient] = None,
        endpoints: Endpoints = Endpoints(),
        timeouts: Timeouts = Timeouts(),
        retry: Retry = Retry(),
        fallback: bool = True,
        sticky_for: Optional[float] = None,
        on_fallback: Callable[[FallbackEvent], Any] = notify_stderr,
        policy: Policy = decide,
        require_finish: bool = True,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        persist_credentials: bool = True,
        session_factory: Optional[SessionFactory] = None,
        clock: Optional[Callable[[], float]] = None,
        sleep: Optional[Callable[[float], Any]] = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name != "self"}
        self._settings = cast("AdapterSettings", given)
        check_settings(self._settings)
        self._model, self._timeouts = check_model(model), timeouts
        self._transport = Transport(session_factory)
        self._credentials: Optional[Credentials] = None
        self._services = self._make_services(self._settings)
        self._router = Router(
            self._services,
            retry=retry,
            policy=policy,
            fallback=fallback,
            sticky_for=sticky_for,
            on_fallback=on_fallback,
            require_finish=require_finish,
            clock=clock or monotonic,
            sleep=sleep,
        )

    def _make_services(self, settings: AdapterSettings) -> dict[str, Service]:
        source, api_key, endpoints = settings["oauth_creds_path"], settings["api_key"], settings["endpoints"]
        services: dict[str, Service] = {}
        signatures = Signatures()  # each service tells the other which ones it made
        common = self._transport, endpoints, settings["max_event_bytes"]
        if source is not None:
            client, persist = settings["oauth_client"], settings["persist_credentials"]
            self._credentials = credentials_for(
                source, transport=self._transport, oauth_client=client, endpoints=endpoints, persist=persist
            )
            find_project = Projects(self._transport, endpoints, settings["project"]).project
            spelling = settings["oauth_service"]
            services[OAUTH] = CodeAssistService(self._credentials, find_project, *common, spelling, signatures)
        if api_key is not None:
            check_secret(api_key, "api_key", "Give a Gemini API key, or None to leave this route off.")
            services[API_KEY] = ApiKeyService(api_key, *common, signatures)
        if not services:
            raise ConfigError(_NO_CREDENTIALS)
        return services

    @classmethod
    def from_env(
        cls, *, environ: Optional[Mapping[str, str]] = None, **settings: Unpack[AdapterSettings]
    ) -> GeminiDualAdapter:
        """An adapter from the environment; the ``settings`` are arguments of the class and win over it.

        Reads ``GEMINI_API_KEY`` / ``GOOGLE_API_KEY``, ``GEMINI_MODEL``, ``GOOGLE_CLOUD_PROJECT`` (``_ID``),
        ``GOOGLE_APPLICATION_CREDENTIALS`` (else ``~/.gemini/oauth_creds.json`` if that exists),
        ``GOOGLE_GEMINI_BASE_URL``, ``GOOGLE_GENAI_API_VERSION``, ``CODE_ASSIST_ENDPOINT`` and, if the OAuth route is
        on, ``GEMINI_OAUTH_CLIENT_ID`` and ``GEMINI_OAUTH_CLIENT_SECRET``. A blank variable counts as not set.

        Args:
            environ: variables to read instead of those of the process; ``~`` stands for the home they name.

        Raises:
            ConfigError: there is no credential, or a setting cannot be used.
        """
        return cls(**settings_from(os.environ if environ is None else environ, settings))

    def stream(
        self,
        contents: Contents,
        *,
        model: Optional[str] = None,
        system_instruction: Optional[SystemInstruction] = None,
        tools: Optional[Sequence[Tool]] = None,
        tool_config: Optional[ToolConfig] = None,
        safety_settings: Optional[Sequence[SafetySetting]] = None,
        generation_config: Optional[GenerationConfig] = None,
        cached_content: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        timeouts: Optional[Timeouts] = None,
    ) -> Reply:
        """Stream the answer to ``contents``; dicts use Google's REST field names.

        Nothing is sent before the first ``next()``.

        Args:
            contents: a string, a Part, a Content, or a list of these.
            timeouts: deadlines in seconds for this call, instead of the adapter's.

        Raises:
            ConfigError: an argument cannot be used. For what iterating can raise, see ``Reply``.
        """
        limits = self._timeouts_for(timeouts)
        request = build(
            contents,
            model=self._model if model is None else model,
            system_instruction=system_instruction,
            tools=tools,
            tool_config=tool_config,
            safety_settings=safety_settings,
            generation_config=generation_config,
            cached_content=cached_content,
            labels=labels,
        )
        return self._router.stream(request, limits)

    def generate(self, contents: Contents, **options: Unpack[CallOptions]) -> Reply:
        """The whole answer to ``contents``; takes the options of ``stream`` and raises what iterating can raise."""
        with self.stream(contents, **options) as reply:
            for _ in reply:
                continue
        return reply

    def count_tokens(
        self,
        contents: Contents,
        *,
        model: Optional[str] = None,
        system_instruction: Optional[SystemInstruction] = None,
        tools: Optional[Sequence[Tool]] = None,
        timeouts: Optional[Timeouts] = None,
    ) -> int:
        """How many tokens ``contents`` has; falls back as ``stream`` does.

        The OAuth route counts the contents alone, because its service takes no system instruction and no tools here.

        Raises:
            GeminiSyncError: anything that iterating a reply can raise.
        """
        name = self._model if model is None else model
        request = build(contents, model=name, system_instruction=system_instruction, tools=tools)
        return self._router.count_tokens(request, self._timeouts_for(timeouts))

    def _timeouts_for(self, timeouts: Optional[Timeouts]) -> Timeouts:
        if timeouts is not None and not isinstance(timeouts, Timeouts):
            raise ConfigError(f"timeouts must be a Timeouts, not {type(timeouts).__name__}.")
        return timeouts or self._timeouts

    @property
    def fallback_active(self) -> bool:
        """True after a fallback, until ``reset()``; a fallback of one model alone leaves it False."""
        return self._router.fallback_active

    def route_status(self) -> RouteStatus:
        """The route that calls take, since when and why, and the recent failures."""
        return self._router.status()

    def reset(self, *, force: bool = False) -> None:
        """Prefer OAuth again, for all models.

        After an answer about the account (terms of service, unsupported client, validation required) the adapter makes
        no OAuth request, so the next call falls back at once. ``force=True`` lifts that.
        """
        if self._credentials is not None:
            self._credentials.forget_failure()
        self._router.reset(force=force)

    def close(self) -> None:
        """Cancel the running calls and close all connections. A second call does nothing."""
        self._router.close()
        self._transport.close()

    def __enter__(self) -> GeminiDualAdapter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        """A new adapter with the same arguments; the API key is in the clear: for process pools, never for storage."""
        return partial(type(self), **self._settings), ()

    def __repr__(self) -> str:
        model, status = self._settings["model"], self._router.status()
        return (
            f"{type(self).__name__}(routes={list(self._services)}, model={model!r}, preferred={status.preferred!r}, "
            f"fallback_active={status.fallback_active})"
        )
