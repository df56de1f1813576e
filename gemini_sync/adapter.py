"""``GeminiDualAdapter``: what callers set, and the calls they make."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from gemini_sync.auth.credentials import Credentials, CredentialsLike, credentials_for
from gemini_sync.config import (
    DEFAULT_MAX_EVENT_BYTES,
    DEFAULT_MODEL,
    Endpoints,
    OAuthClient,
    Retry,
    Timeouts,
    check_settings,
)
from gemini_sync.environment import settings_from
from gemini_sync.errors import ConfigError
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.request import CallOptions, Contents, SystemInstruction, build, check_model
from gemini_sync.messages.rest_json import GenerationConfig, SafetySetting, Tool, ToolConfig
from gemini_sync.network.sessions import SessionFactory
from gemini_sync.network.transport import Transport
from gemini_sync.routing.events import FallbackEvent, notify_stderr
from gemini_sync.routing.fallback import RouteStatus
from gemini_sync.routing.policy import decide
from gemini_sync.routing.router import Policy, Router
from gemini_sync.services.api_key import ApiKeyService
from gemini_sync.services.base import API_KEY, OAUTH, Service
from gemini_sync.services.code_assist import CodeAssistService
from gemini_sync.services.project import Projects

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gemini_sync.environment import AdapterSettings

_NO_CREDENTIALS = (
    "No credentials: give api_key, or oauth_creds_path, or both. In the environment: set GEMINI_API_KEY, or have a "
    "credentials file at ~/.gemini/oauth_creds.json (or name one in GOOGLE_APPLICATION_CREDENTIALS) and set "
    "GEMINI_OAUTH_CLIENT_ID and GEMINI_OAUTH_CLIENT_SECRET. `gemini-sync demo` needs none of it."
)


class GeminiDualAdapter:
    """Streams over OAuth (Code Assist), and over an API key once OAuth has failed; thread-safe, one per program.

    A route whose credential is None is off. After a fallback the API key serves all calls of this adapter, whatever
    happens to the credentials, until ``reset()``.

    Args:
        api_key: a Gemini API key.
        oauth_creds_path: a credentials file (Gemini CLI's or gcloud's ``authorized_user``), or any source of access
            tokens: a callable that returns one, a ``TokenSource``, or a google-auth ``Credentials`` object.
        model: the model of calls that name none.
        project: the Google Cloud project id for Code Assist; None asks the service.
        oauth_client: the OAuth client that the refresh token belongs to, where the file does not hold it.
        endpoints: base URLs.
        timeouts: deadlines in seconds.
        retry: tries on one route before the first chunk.
        fallback: False keeps every call on OAuth.
        sticky_for: seconds after a fallback at which one call probes OAuth again; None (the default) for never.
        on_fallback: called with a ``FallbackEvent`` exactly once per flip; the default writes a line to stderr.
        policy: what an error leads to; ``decide`` is the documented table.
        require_finish: False accepts streams that end cleanly without a finish reason.
        max_event_bytes: the largest single event, in bytes.
        persist_credentials: False never writes a refreshed token to the credentials file.
        session_factory: makes the ``requests.Session`` objects, a new one at each call; the adapter closes them.
        clock, sleep: monotonic seconds and a wait in seconds, for tests of your own.

    Raises:
        ConfigError: no credential at all, or an argument that cannot be used.
    """

    def __init__(
        self,
        api_key: Optional[str] = None,
        oauth_creds_path: Optional[CredentialsLike] = None,
        *,
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
        self._settings: AdapterSettings = {
            "api_key": api_key,
            "oauth_creds_path": oauth_creds_path,
            "model": model,
            "project": project,
            "oauth_client": oauth_client,
            "endpoints": endpoints,
            "timeouts": timeouts,
            "retry": retry,
            "fallback": fallback,
            "sticky_for": sticky_for,
            "on_fallback": on_fallback,
            "policy": policy,
            "require_finish": require_finish,
            "max_event_bytes": max_event_bytes,
            "persist_credentials": persist_credentials,
            "session_factory": session_factory,
            "clock": clock,
            "sleep": sleep,
        }
        check_settings(self._settings)
        if api_key is None and oauth_creds_path is None:
            raise ConfigError(_NO_CREDENTIALS)
        self._model = check_model(model)
        self._timeouts = timeouts
        self._transport = Transport(session_factory)
        self._credentials: Optional[Credentials] = None
        services: dict[str, Service] = {}
        if oauth_creds_path is not None:
            self._credentials = credentials_for(
                oauth_creds_path,
                transport=self._transport,
                oauth_client=oauth_client,
                endpoints=endpoints,
                persist=persist_credentials,
            )
            discover = Projects(self._transport, endpoints, project).project
            services[OAUTH] = CodeAssistService(
                self._credentials, discover, self._transport, endpoints, max_event_bytes
            )
        if api_key is not None:
            services[API_KEY] = ApiKeyService(api_key, self._transport, endpoints, max_event_bytes)
        self._router = Router(
            services,
            retry=retry,
            policy=policy,
            fallback=fallback,
            sticky_for=sticky_for,
            on_fallback=on_fallback,
            require_finish=require_finish,
            clock=clock or time.monotonic,
            sleep=sleep,
        )

    @classmethod
    def from_env(
        cls, *, environ: Optional[Mapping[str, str]] = None, **settings: Unpack[AdapterSettings]
    ) -> GeminiDualAdapter:
        """An adapter from the environment; ``settings`` (arguments of the class) win over it.

        Reads ``GEMINI_API_KEY`` / ``GOOGLE_API_KEY``, ``GEMINI_MODEL``, ``GOOGLE_CLOUD_PROJECT`` (``_ID``),
        ``GOOGLE_APPLICATION_CREDENTIALS`` (else ``~/.gemini/oauth_creds.json`` where that exists),
        ``GOOGLE_GEMINI_BASE_URL``, ``CODE_ASSIST_ENDPOINT``, and, where the OAuth route is on,
        ``GEMINI_OAUTH_CLIENT_ID`` and ``GEMINI_OAUTH_CLIENT_SECRET``. A blank variable counts as not set.

        Args:
            environ: the variables, instead of the process's own; ``~`` is the home that they name.

        Raises:
            ConfigError: there is no credential at all, or a setting cannot be used.
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
        """The answer to ``contents``, as it arrives; dicts use Google's REST field names.

        Nothing is sent before the first ``next()``.

        Args:
            contents: a string, a Part, a Content, or a list of these.
            timeouts: deadlines in seconds for this call, instead of the adapter's.

        Raises:
            ConfigError: at once, for arguments that cannot be used. For what iterating can
                raise, see ``Reply``.
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
        """The whole answer to ``contents``: takes what ``stream`` takes, raises what iterating its reply raises."""
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
        """How many tokens ``contents`` has for the model; falls back as ``stream`` does.

        The OAuth route counts the contents alone: its service takes neither system instruction nor tools here.

        Raises:
            GeminiSyncError: as iterating a reply.
        """
        request = build(
            contents,
            model=self._model if model is None else model,
            system_instruction=system_instruction,
            tools=tools,
        )
        return self._router.count_tokens(request, self._timeouts_for(timeouts))

    def _timeouts_for(self, timeouts: Optional[Timeouts]) -> Timeouts:
        if timeouts is not None and not isinstance(timeouts, Timeouts):
            raise ConfigError(f"timeouts must be a Timeouts, not {type(timeouts).__name__}.")
        return timeouts or self._timeouts

    @property
    def fallback_active(self) -> bool:
        """True after OAuth has failed and before ``reset()``; a fallback of single models leaves it False."""
        return self._router.fallback_active

    def route_status(self) -> RouteStatus:
        """Where calls go, since when, why, and the recent failures."""
        return self._router.status()

    def reset(self, *, force: bool = False) -> None:
        """Begin with OAuth again, for all models.

        After an answer that puts the account at stake (terms of service, unsupported client, validation required) no
        further OAuth request is made, so the next call falls back at once; ``force=True`` lifts that.
        """
        if self._credentials is not None:
            self._credentials.forget_failure()
        self._router.reset(force=force)

    def close(self) -> None:
        """Cancel the calls that are running and close all connections. Idempotent."""
        self._router.close()
        self._transport.close()

    def __enter__(self) -> GeminiDualAdapter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        """Pickles as its configuration, the API key in the clear: for process pools, never for storage.

        The copy starts anew: with OAuth preferred, no connections, no history.
        """
        return _rebuild, (type(self), self._settings)

    def __repr__(self) -> str:
        status = self._router.status()
        settings = self._settings
        given = ((OAUTH, settings["oauth_creds_path"]), (API_KEY, settings["api_key"]))
        routes = [route for route, credential in given if credential is not None]
        return (
            f"{type(self).__name__}(routes={routes}, model={settings['model']!r}, preferred={status.preferred!r}, "
            f"fallback_active={status.fallback_active})"
        )


def _rebuild(cls: type[GeminiDualAdapter], settings: AdapterSettings) -> GeminiDualAdapter:
    return cls(**settings)
