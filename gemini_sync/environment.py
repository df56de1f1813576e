"""The environment variables that ``from_env()`` and ``get_access_token()`` read, and the settings they give."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Optional, TypedDict, cast

from gemini_sync.config import Endpoints, OAuthClient, Retry, Timeouts, unquoted
from gemini_sync.errors import ConfigError

if TYPE_CHECKING:
    from gemini_sync.auth.credentials import CredentialsLike
    from gemini_sync.network.sessions import SessionFactory
    from gemini_sync.routing.events import FallbackEvent
    from gemini_sync.routing.router import Policy
    from gemini_sync.services.code_assist import CodeAssist

    class AdapterSettings(TypedDict, total=False):
        """The arguments of ``GeminiDualAdapter``."""

        api_key: Optional[str]
        oauth_creds_path: Optional[CredentialsLike]
        oauth_service: CodeAssist
        model: str
        project: Optional[str]
        oauth_client: Optional[OAuthClient]
        endpoints: Endpoints
        timeouts: Timeouts
        retry: Retry
        fallback: bool
        sticky_for: Optional[float]
        on_fallback: Callable[[FallbackEvent], Any]
        policy: Policy
        require_finish: bool
        max_event_bytes: int
        persist_credentials: bool
        session_factory: Optional[SessionFactory]
        clock: Optional[Callable[[], float]]
        sleep: Optional[Callable[[float], Any]]


DEFAULT_CREDENTIALS_PATH = "~/.gemini/oauth_creds.json"
_CLIENT_VARIABLES = ("GEMINI_OAUTH_CLIENT_ID", "GEMINI_OAUTH_CLIENT_SECRET")


def settings_from(environ: Mapping[str, str], given: AdapterSettings) -> AdapterSettings:
    """The arguments of ``GeminiDualAdapter`` that ``environ`` gives, and those ``given``, which win.

    Raises:
        ConfigError: a variable cannot be used.
    """
    environ = _cleaned(environ)
    version = environ.get("GOOGLE_GENAI_API_VERSION")
    found: dict[str, Any] = {
        "api_key": environ.get("GEMINI_API_KEY") or environ.get("GOOGLE_API_KEY"),
        "model": environ.get("GEMINI_MODEL"),
        "project": environ.get("GOOGLE_CLOUD_PROJECT") or environ.get("GOOGLE_CLOUD_PROJECT_ID"),
        "oauth_creds_path": credentials_path_from(environ),
    }
    if "endpoints" not in given:
        endpoints = {
            "gemini": environ.get("GOOGLE_GEMINI_BASE_URL"),
            "gemini_version": "v1beta" if version == "beta" else version,  # GG reads "beta" so, too
            "code_assist": environ.get("CODE_ASSIST_ENDPOINT"),
        }
        found["endpoints"] = Endpoints(**{name: value for name, value in endpoints.items() if value})
    # Without an OAuth route the client variables are not read, so a half-set pair is no error.
    if "oauth_client" not in given and {**found, **given}["oauth_creds_path"] is not None:
        found["oauth_client"] = oauth_client_from(environ)
    return cast("AdapterSettings", {**{name: value for name, value in found.items() if value}, **given})


def _cleaned(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without white space and quotes around the values, and without blank variables.

    In a shell or a compose file a blank variable means "not set". ``docker run --env-file`` keeps quotes.
    """
    return {name: cleaned for name, value in environ.items() if (cleaned := unquoted(value))}


def credentials_path_from(environ: Mapping[str, str]) -> Optional[str]:
    """The credentials file that ``environ`` names, else the default one if it exists.

    ``~`` stands for the home that ``environ`` names, else for that of the user.
    """
    environ = _cleaned(environ)
    named = environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    path, home = named or DEFAULT_CREDENTIALS_PATH, environ.get("USERPROFILE" if os.name == "nt" else "HOME")
    path = os.path.join(home, path[2:]) if home and path.startswith("~/") else os.path.expanduser(path)
    return path if named or os.path.exists(path) else None


def oauth_client_from(environ: Mapping[str, str]) -> Optional[OAuthClient]:
    """The client of ``GEMINI_OAUTH_CLIENT_ID`` and ``GEMINI_OAUTH_CLIENT_SECRET``; None if neither is set.

    Raises:
        ConfigError: only one of the two is set, or one cannot be used.
    """
    environ = _cleaned(environ)
    values = [environ.get(name, "") for name in _CLIENT_VARIABLES]
    if not any(values):
        return None
    if not all(values):
        missing = _CLIENT_VARIABLES[values.index("")]
        raise ConfigError(f"{' and '.join(_CLIENT_VARIABLES)} belong together, but {missing} is not set.")
    return OAuthClient(*values)
