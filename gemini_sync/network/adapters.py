"""The transport adapter of our own sessions, and the TLS context that all of them share."""

from __future__ import annotations

import functools
import os
import ssl
from typing import Any

from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from gemini_sync.errors import CERTIFICATE_VERIFY_FAILED, TransportError


class DefaultAdapter(HTTPAdapter):
    """An ``HTTPAdapter`` with one TLS context for all connections, which finds the pool of the last request again."""

    _last_key: Any = None
    _last_pool: Any = None

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        # urllib3 makes a key of all settings to find a pool; that is a twentieth of what a short call costs.
        key = (request.url, verify, cert, proxies)
        if key != self._last_key or self._last_pool.pool is None:  # None: it was closed
            self._last_pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            self._last_key = key
        return self._last_pool

    def close(self) -> None:
        # urllib3 closes a pool when the last reference to it is gone; a stored response or traceback may hold one.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 (it is no dict)
                manager.pools[key].close()
        super().close()

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        attributes: Any = super().build_connection_pool_key_attributes(request, verify, cert)
        host, pool = attributes
        if verify and host["scheme"] == "https":
            pool.pop("ca_certs", None)
            pool.pop("ca_cert_dir", None)
            pool["ssl_context"] = _tls_context(verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH)
        return host, pool

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        # If requests verifies, the context above does all of it; requests would load the bundle for each connection.
        if not verify or cert:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]


@functools.lru_cache(maxsize=8)
def _tls_context(ca_path: str) -> ssl.SSLContext:
    """One verifying context for each CA bundle: loading the bundle is most of what a new TLS connection costs."""
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.check_hostname = True
    try:
        context.load_verify_locations(**{"capath" if os.path.isdir(ca_path) else "cafile": ca_path})
    except OSError as exc:
        raise TransportError(
            f"The CA bundle {ca_path} cannot be loaded ({exc}). Name another in REQUESTS_CA_BUNDLE.",
            reason=CERTIFICATE_VERIFY_FAILED,
        ) from exc
    return context
