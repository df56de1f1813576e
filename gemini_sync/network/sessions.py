"""Sessions of requests: the idle ones that are kept, how one is made, and what a request takes from its session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import Cookie, DefaultCookiePolicy
from typing import Any, Optional
from urllib.parse import urlsplit

import requests

from gemini_sync.config import is_loopback
from gemini_sync.errors import PROXY_INVALID, SESSION_INVALID, ConfigError
from gemini_sync.network.adapters import DefaultAdapter
from gemini_sync.network.cancelling import Call
from gemini_sync.network.connection import current, keep_deadlines
from gemini_sync.network.redirects import hide_location
from gemini_sync.version import VERSION

SessionFactory = Callable[[], requests.Session]

_MOST_IDLE = 32
_USER_AGENT = f"gemini-sync/{VERSION}"
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_HEADERS = {
    "User-Agent": _USER_AGENT,
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # a compressor would hold back the end of an event
    "Connection": "keep-alive",
}
# What each session has before its owner sets anything.
_SET_BY_REQUESTS = requests.utils.default_headers()


class IdleSessions(list[requests.Session]):
    """The sessions that are kept for later calls, last in first out. No lock: list.append and list.pop are atomic."""

    _is_open = True

    def put_back(self, session: requests.Session, reusable: bool) -> None:
        """Keep a session if its response was read to its end and ``close()`` did not come before; else close it."""
        if reusable and self._is_open and len(self) < _MOST_IDLE:
            self.append(session)
        else:
            session.close()

    def close(self) -> None:
        self._is_open = False
        for session in self:
            session.close()


class _NoNewCookies(DefaultCookiePolicy):
    """Stores no cookie of a server: one that it set for one credential would be sent along with another."""

    def set_ok(self, cookie: Cookie, request: Any) -> bool:
        return False


def default_session() -> requests.Session:
    """A session of our own, ready for use."""
    session = requests.Session()
    adapter = DefaultAdapter(pool_maxsize=1)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return adopt_session(session)


def new_session(factory: Optional[SessionFactory]) -> requests.Session:
    """A session from ``factory``, or one of our own, ready for use."""
    session: object = (factory or default_session)()
    if not isinstance(session, requests.Session):
        raise ConfigError(
            f"session_factory must return a requests.Session, not {type(session).__name__}.", reason=SESSION_INVALID
        )
    return adopt_session(session)


def adopt_session(session: requests.Session) -> requests.Session:
    """Make the future connections of ``session`` keep deadlines, and let it store no more cookies. Idempotent."""
    session.cookies.set_policy(_NoNewCookies())
    for adapter in session.adapters.values():
        keep_deadlines(adapter)
    return session


@contextmanager
def borrowed_session(call: Call, seconds: float, what: str) -> Iterator[requests.Session]:
    """A session for another library, which asks for ``what`` with it: within ``seconds``, and as part of ``call``."""
    outer = current.get()
    current.set(call)
    try:
        with call.bounded(seconds, what), default_session() as session:
            yield session
    finally:
        current.set(outer)
        call.detach()


def prepare_request(session: requests.Session, method: str, url: str) -> tuple[requests.PreparedRequest, Any]:
    """A request without body and credentials, and the arguments for ``Session.send`` from session and environment."""
    # With any auth, if only a function that changes nothing, requests does not look for credentials in .netrc.
    wanted = requests.Request(method, url, headers=_headers_for(session), auth=lambda prepared: prepared)
    request = session.prepare_request(wanted)
    request.hooks = {"response": [*request.hooks["response"], hide_location]}
    settings: dict[str, Any] = {**session.merge_environment_settings(url, {}, True, None, None)}
    settings["proxies"] = _proxies_for(url, settings["proxies"])
    return request, settings


def _headers_for(session: requests.Session) -> dict[str, str]:
    """Our headers, or those that the owner of ``session`` has set. Ours follows a User-Agent of the owner's."""
    headers = dict(_HEADERS)
    for name, value in requests.structures.CaseInsensitiveDict(session.headers or {}).items():
        ours = name.title()
        if value is None or value == _SET_BY_REQUESTS.get(name) or ours not in headers or ours == "Accept-Encoding":
            continue
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        headers[ours] = f"{text} {_USER_AGENT}" if ours == "User-Agent" else text
    return headers


def _proxies_for(url: str, proxies: Mapping[str, str]) -> dict[str, str]:
    """``proxies``, or none if a request in the clear would leave this machine; raises for one that cannot be used."""
    proxy = requests.utils.select_proxy(url, proxies)
    if not proxy:  # to requests an empty string means none as well
        return dict(proxies)
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host:
        raise ConfigError(
            f"The proxy for {urlsplit(url).hostname} is not a URL with a host, such as http://HOST:PORT. "
            "Check HTTPS_PROXY and its like, or the proxies of your session.",
            reason=PROXY_INVALID,
        )
    if parts.scheme not in _PROXY_SCHEMES:
        raise ConfigError(
            f"The proxy for {urlsplit(url).hostname} has the scheme {parts.scheme}; expected one of "
            f"{', '.join(_PROXY_SCHEMES)}. Check HTTPS_PROXY and its like, or the proxies of your session.",
            reason=PROXY_INVALID,
        )
    # An http URL is always one on loopback: a proxy elsewhere would read the credential, and could not reach it.
    return {} if urlsplit(url).scheme == "http" and not is_loopback(host) else dict(proxies)
