"""How connections through a SOCKS proxy begin; needs PySocks, which urllib3's own SOCKS connections use as well."""

from __future__ import annotations

import functools
import importlib
from typing import Any

_DEFAULT_PORT = 1080


class SocksMixin:
    """For urllib3's SOCKS connections: the negotiation with the proxy keeps the ``connect`` deadline."""

    host: str
    _socks_options: Any

    def _first_hop(self) -> tuple[str, int]:
        return self._socks_options["proxy_host"], self._socks_options["proxy_port"] or _DEFAULT_PORT

    def _open_socket(self, call: Any, family: int, kind: int, protocol: int, address: Any) -> tuple[Any, Any]:
        options = self._socks_options
        sock = _socket_class()(family, kind, protocol)
        sock.call = call
        login = options["username"], options["password"]
        sock.set_proxy(options["socks_version"], *address[:2], options["rdns"], *login)
        return sock, (self.host, self.port)  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=1)
def _socket_class() -> Any:
    base: Any = importlib.import_module("socks").socksocket

    class SocksSocket(base):  # type: ignore[misc]
        """A socket whose negotiation with the proxy ends by the deadline, also if the proxy sends byte after byte."""

        call: Any = None

        def recv_into(self, *args: Any, **kwargs: Any) -> Any:
            if self.proxy_peername is None:  # the proxy has not connected us yet
                self.settimeout(self.call.socket_timeout())
            return super().recv_into(*args, **kwargs)

        def connect(self, *args: Any, **kwargs: Any) -> None:
            try:
                super().connect(*args, **kwargs)
            finally:
                self.call = None

    return SocksSocket
