"""Knows requests' sessions: what they keep, and what a request takes from them and the environment; sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import Cookie, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests

from gemini_sync.config import is_loopback
from gemini_sync.errors import ConfigError
from gemini_sync.network.connection import GuardedAdapter, guard, sending
from gemini_sync.network.deadlines import Call
from gemini_sync.network.redirects import hide_redirect
from gemini_sync.version import VERSION

SessionFactory = Callable[[], requests.Session]

_HEADERS = {
    "User-Agent": f"gemini-sync/{VERSION}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # an event must not wait for a compressor's buffer
    "Connection": "keep-alive",
}


class _NoNewCookies(DefaultCookiePolicy):
    """Keeps no cookie that a server sets: what it set for one credential would go along with another."""

    def set_ok(self, cookie: Cookie, request: Any) -> bool:
        return False


def default_session() -> requests.Session:
    """A session with one TLS context for all, whose connections are guarded."""
    session = requests.Session()
    adapter = GuardedAdapter(pool_maxsize=1)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return guarded(session)


def guarded(session: requests.Session) -> requests.Session:
    """``session``, its future connections guarded; it takes no cookies any more. Idempotent."""
    session.cookies.set_policy(_NoNewCookies())
    for adapter in session.adapters.values():
        guard(adapter)
    return session


@contextmanager
def borrowed_session(call: Call, seconds: float, what: str) -> Iterator[requests.Session]:
    """A session for another library: ``what`` it asks for takes at most ``seconds``, and ends with ``call``."""
    try:
        with sending(call), call.bounded(seconds, what), default_session() as session:
            yield session
    finally:
        call.detach()


class _NoAuth(requests.auth.AuthBase):
    """Keeps requests from asking ``.netrc``, whose entry would replace our credential."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def prepared(session: requests.Session, method: str, url: str) -> tuple[requests.PreparedRequest, dict[str, Any]]:
    """A request without body and credentials, and what the environment and the session say about sending it."""
    request = session.prepare_request(requests.Request(method, url, headers=_HEADERS, auth=_NoAuth()))
    request.hooks = {"response": [*request.hooks["response"], hide_redirect]}
    settings: dict[str, Any] = {**session.merge_environment_settings(url, {}, True, None, None)}
    settings["proxies"] = _usable(settings["proxies"], url)
    return request, settings


def _usable(proxies: Mapping[str, str], url: str) -> dict[str, str]:
    """``proxies`` where the one for ``url`` can be used; none where it would carry a credential in the clear."""
    proxy = requests.utils.select_proxy(url, proxies)
    if not proxy:  # also "", which to requests means none
        return dict(proxies)
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host = parts.hostname or ""
        usable = host != "" and parts.port != 0
    except ValueError:
        usable, host = False, ""
    if not usable:
        raise ConfigError(
            f"The proxy for {urlsplit(url).hostname} is not a URL with a host, such as http://HOST:PORT. "
            "Check HTTPS_PROXY and its like, or the proxies of your session.",
            reason="PROXY_INVALID",
        )
    # http is for loopback alone, and a proxy elsewhere would be told what is meant for this machine.
    return {} if urlsplit(url).scheme == "http" and not is_loopback(host) else dict(proxies)
