"""Sockets that keep the deadlines of a call by themselves, because other code receives on them again and again.

That is PySocks while it negotiates with a SOCKS proxy, and urllib3 when it runs TLS inside the TLS of a proxy.
"""

from __future__ import annotations

import functools
import importlib
import weakref
from typing import Any, Callable, Optional

_DEFAULT_PORT = 1080


class KeepsDeadlines:
    """For a class of sockets: each receive and each send ends by the deadline of the call, however few bytes come."""

    _call: Callable[[], Any] = staticmethod(lambda: None)
    _limit: Optional[float] = None

    def keep_deadlines(self, call: Any) -> None:
        self._call = weakref.ref(call)  # an idle connection must not keep its last call in memory

    def settimeout(self, seconds: Optional[float]) -> None:
        self._limit = seconds
        super().settimeout(seconds)  # type: ignore[misc]

    def _set_timeout(self) -> None:
        call = self._call()
        if call is not None:
            left, limit = call.socket_timeout(), self._limit
            super().settimeout(min(left, limit) if left and limit else left or limit)  # type: ignore[misc]

    def recv(self, *args: Any, **kwargs: Any) -> Any:
        self._set_timeout()
        return super().recv(*args, **kwargs)  # type: ignore[misc]

    def recv_into(self, *args: Any, **kwargs: Any) -> Any:
        self._set_timeout()
        return super().recv_into(*args, **kwargs)  # type: ignore[misc]

    def send(self, *args: Any, **kwargs: Any) -> Any:
        self._set_timeout()
        return super().send(*args, **kwargs)  # type: ignore[misc]

    def sendall(self, *args: Any, **kwargs: Any) -> Any:
        self._set_timeout()
        return super().sendall(*args, **kwargs)  # type: ignore[misc]


@functools.lru_cache(maxsize=16)
def _keeping_deadlines(cls: Any) -> Any:
    return type(cls.__name__, (KeepsDeadlines, cls), {})


def keep_deadlines_below(sock: Any, call: Any) -> Any:
    """Let ``sock``, the TLS connection to a proxy, keep the deadlines of ``call`` below the TLS inside it."""
    sock.__class__ = _keeping_deadlines(sock.__class__)  # urllib3 has made it, and offers no choice of its class
    sock.keep_deadlines(call)
    return sock


class SocksMixin:
    """For urllib3's SOCKS connections: the negotiation with the proxy keeps the ``connect`` deadline."""

    host: str
    _socks_options: Any

    def _first_hop(self) -> tuple[str, int]:
        return self._socks_options["proxy_host"], self._socks_options["proxy_port"] or _DEFAULT_PORT

    def _open_socket(self, call: Any, family: int, kind: int, protocol: int, address: Any) -> tuple[Any, Any]:
        options = self._socks_options
        # PySocks, which urllib3's own SOCKS connections use as well.
        sock = _keeping_deadlines(importlib.import_module("socks").socksocket)(family, kind, protocol)
        sock.keep_deadlines(call)
        login = options["username"], options["password"]
        sock.set_proxy(options["socks_version"], *address[:2], options["rdns"], *login)
        return sock, (self.host, self.port)  # type: ignore[attr-defined]
