"""The settings that callers give, as frozen values that check themselves."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Optional
from urllib.parse import urlsplit

from gemini_sync.errors import ConfigError

DEFAULT_MODEL = "gemini-3.8-flash"
DEFAULT_MAX_EVENT_BYTES = 64 * 2**20
LONGEST_SECONDS = 1e9  # a longer wait overflows in Python

_QUOTES = "\"'`\u201c\u201d\u201e\u2018\u2019"  # the last five are typographic
_NOT_IN_A_BASE_URL = re.compile(r"[@?#\s\x00-\x1f]")
_API_VERSION = re.compile(r"v[0-9]+(?:(?:alpha|beta)[0-9]*|internal)?")


def unquoted(text: str) -> str:
    """``text`` without white space and a pair of quotes around it, because some readers of .env files keep these."""
    text = text.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES[:2] else text


def check_secret(value: object, name: str, step: Optional[str] = None) -> str:
    """The credential ``value``, without white space or a pair of quotes around it.

    ``step`` tells what to do about one that is none.

    Raises:
        ConfigError: it is no string, is empty, or cannot stand in an HTTP header. The message never quotes it.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a string, not {type(value).__name__}.")
    stripped = unquoted(value)
    if not stripped:
        raise ConfigError(f"{name} is empty. {'Give the credential itself.' if step is None else step}".rstrip())
    if stripped[0] in _QUOTES or stripped[-1] in _QUOTES:
        raise ConfigError(f"{name} begins or ends with a quote, which no credential does. Give it without quotes.")
    if not all("!" <= character <= "~" for character in stripped):
        what = "white space or other characters that no credential and no id has"
        raise ConfigError(f"{name} holds {what}. {'Copy it again.' if step is None else step}".rstrip())
    return stripped


def _check_url(name: str, url: object) -> str:
    if not isinstance(url, str):
        raise ConfigError(f"Endpoints.{name} must be a URL string, not {type(url).__name__}.")
    url = url.strip()
    if _NOT_IN_A_BASE_URL.search(url):  # the message does not quote it, because it may hold a credential
        raise ConfigError(
            f"Endpoints.{name} must be a plain base URL, without credentials, query, fragment or white space."
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(f"Endpoints.{name} is not a URL: {exc}.") from exc
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise ConfigError(
            f"Endpoints.{name} must be an https:// URL (http:// only on loopback), not {url!r}, "
            "because credentials are not sent in the clear."
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """True if ``host`` is this machine and needs no name service."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@dataclass(frozen=True)
class Endpoints:
    """Base URLs of the three services: https, or http on loopback.

    Attributes:
        gemini: the Gemini API. If it ends in an API version, as in ``https://host/v1beta``, that version is used.
        gemini_version: the API version that is used otherwise.
        code_assist: Code Assist.
        token: the whole URL of the OAuth token endpoint.

    Raises:
        ConfigError: a URL is neither, or holds more than a base URL, such as credentials or a query; or
            ``gemini_version`` is no version, or another one than ``gemini`` ends in.
    """

    gemini: str = "https://generativelanguage.googleapis.com"
    gemini_version: str = "v1beta"
    code_assist: str = "https://cloudcode-pa.googleapis.com"
    token: str = "https://oauth2.googleapis.com/token"

    def __post_init__(self) -> None:
        for name in ("gemini", "code_assist", "token"):
            object.__setattr__(self, name, _check_url(name, getattr(self, name)))
        version = self.gemini_version
        if not isinstance(version, str) or not _API_VERSION.fullmatch(version):
            raise ConfigError(f"Endpoints.gemini_version must be an API version such as 'v1beta', not {version!r}.")
        ending = self.gemini.rpartition("/")[2]
        if version not in (Endpoints.gemini_version, ending) and _API_VERSION.fullmatch(ending):
            raise ConfigError(
                f"Endpoints.gemini ends in the API version {ending!r}, but gemini_version is {version!r}. Give one."
            )

    @property
    def gemini_api(self) -> str:
        """The URL of the Gemini API with its version."""
        return _with_version(self.gemini, self.gemini_version)

    @property
    def code_assist_api(self) -> str:
        """The URL of Code Assist with its version."""
        return _with_version(self.code_assist, "v1internal")


def _with_version(url: str, version: str) -> str:
    """``url`` with ``version`` behind it, unless it ends in a version of its own."""
    return url if _API_VERSION.fullmatch(url.rpartition("/")[2]) else f"{url}/{version}"


@dataclass(frozen=True)
class OAuthClient:
    """An OAuth client of your own (type "Desktop app"), from the Google Cloud console, page Credentials."""

    id: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", check_secret(self.id, "OAuthClient.id"))
        object.__setattr__(self, "secret", check_secret(self.secret, "OAuthClient.secret"))


def _check_seconds(name: str, value: Any, *, above: bool = True) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not (value > 0 if above else value >= 0):
        raise ConfigError(f"{name} must be a number {'above' if above else 'of at least'} 0, not {value!r}.")
    if LONGEST_SECONDS < value < math.inf:
        raise ConfigError(f"{name} must be at most {LONGEST_SECONDS:g} seconds, or math.inf, not {value!r}.")


@dataclass(frozen=True)
class Timeouts:
    """Deadlines in seconds; None means none.

    Two of them are long, because thinking models are silent for minutes. A connection that is gone is found sooner, by
    TCP keepalive.

    Attributes:
        connect: for one connection, TLS included. The system looks up the name, and that has no deadline.
        first_token: from the connection to the first chunk.
        idle: between two chunks; comments and pings do not count as chunks.
        total: for the whole call, retries and fallback included.
    """

    connect: Optional[float] = 10
    first_token: Optional[float] = 900
    idle: Optional[float] = 900
    total: Optional[float] = None

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) is not None:
                _check_seconds(f"Timeouts.{item.name}", getattr(self, item.name))


@dataclass(frozen=True)
class Retry:
    """How often one route is tried before the first chunk, and how long the pauses are, in seconds.

    Attributes:
        max_attempts: tries on one route, the first included.
        wait_limit: the longest pause that a server may ask for; if it asks for more, there is no further try.
        backoff_base: the first pause if the server asks for none; it doubles from try to try, with jitter.
        backoff_cap: the longest such pause.
    """

    max_attempts: int = 3
    wait_limit: float = 10.0
    backoff_base: float = 0.5
    backoff_cap: float = 8.0

    def __post_init__(self) -> None:
        if not isinstance(self.max_attempts, int) or isinstance(self.max_attempts, bool) or self.max_attempts < 1:
            raise ConfigError(f"Retry.max_attempts must be a whole number of at least 1, not {self.max_attempts!r}.")
        for name in ("wait_limit", "backoff_base", "backoff_cap"):
            _check_seconds(f"Retry.{name}", getattr(self, name), above=False)


_NONE = type(None)
# The wrong type of these would fail late, or pass for something else, as fallback="false" would.
_KINDS: Mapping[str, tuple[Any, ...]] = {
    "project": (str, _NONE),
    "oauth_client": (OAuthClient, _NONE),
    "endpoints": (Endpoints,),
    "timeouts": (Timeouts,),
    "retry": (Retry,),
    "fallback": (bool,),
    "sticky_for": (int, float, _NONE),
    "on_fallback": (Callable,),
    "policy": (Callable,),
    "require_finish": (bool,),
    "max_event_bytes": (int,),
    "persist_credentials": (bool,),
    "session_factory": (Callable, _NONE),
    "clock": (Callable, _NONE),
    "sleep": (Callable, _NONE),
}


def check_settings(given: Mapping[str, Any]) -> None:
    """Check those of the settings above that are in ``given``.

    Raises:
        ConfigError: one is of the wrong type, or out of range.
    """
    for name, kinds in _KINDS.items():
        value = given.get(name)
        if name in given and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            expected = " or ".join("None" if kind is _NONE else kind.__name__ for kind in kinds)
            raise ConfigError(f"{name} must be {expected}, not {type(value).__name__}.")
    if given["max_event_bytes"] < 1:
        raise ConfigError(f"max_event_bytes must be at least 1 byte, not {given['max_event_bytes']}.")
    sticky_for = given.get("sticky_for")
    if sticky_for is not None and not sticky_for >= 0:  # "not >=" also refuses NaN
        raise ConfigError(f"sticky_for must be at least 0 seconds, or None for never, not {sticky_for}.")
