"""The transport adapter of our own sessions with its TLS context, and what all pools of connections share."""

from __future__ import annotations

import functools
import os
import queue
import ssl
from typing import Any, Optional

from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from gemini_sync.errors import CERTIFICATE_VERIFY_FAILED, TransportError
from gemini_sync.secret import Secret, SecretBytes
from gemini_sync.waiting import wait, wake


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


class IdleConnections(queue.LifoQueue[Any]):
    """What urllib3 and vcrpy need of the queue of a pool. Lists are atomic, so there is no lock.

    It is a ``queue.Queue`` by its class alone, because vcrpy asks for that.
    """

    def __init__(self, maxsize: int = 0) -> None:  # not that of the queue, which makes the locks
        self.maxsize = maxsize
        self._connections: list[Any] = []
        self._waiters: list[Any] = []

    def qsize(self) -> int:
        return len(self._connections)

    def empty(self) -> bool:
        return not self._connections

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self._connections)

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        """The connection that was put last. Raises ``queue.Empty`` if there is none, and none comes in time."""
        try:
            return self._connections.pop()
        except IndexError:
            if not block:
                raise queue.Empty from None
        taken: list[Any] = []

        def take() -> bool:
            try:
                taken.append(self._connections.pop())
            except IndexError:  # another thread was faster
                return False
            return True

        wait(take, timeout, self._waiters)
        if not taken and not take():
            raise queue.Empty
        return taken[0]

    def put(self, item: Any, block: bool = False, timeout: Optional[float] = None) -> None:
        """Keep ``item``. Raises ``queue.Full`` if as many are here as may be; it never waits."""
        if self.full():
            raise queue.Full
        self._connections.append(item)
        wake(self._waiters)


class PoolMixin:
    """A pool of connections of ours, unless a recording tool has put its own class in place of urllib3's.

    Such a tool must see each request: it would go out although the tool is to replay answers. Connections of the tool
    keep the deadlines between reads only.
    """

    QueueCls: Any = IdleConnections
    _urllib3_pool: Any
    _urllib3_connection: Any
    _our_connection: Any

    @property
    def ConnectionCls(self) -> Any:
        wanted = self._urllib3_pool.ConnectionCls
        return self._our_connection if wanted is self._urllib3_connection else wanted

    @ConnectionCls.setter
    def ConnectionCls(self, wanted: Any) -> None:
        self._our_connection = wanted  # by an adapter of the caller's

    def urlopen(self, *args: Any, **named: Any) -> Any:
        if self.ConnectionCls is self._our_connection:
            return super().urlopen(*args, **named)  # type: ignore[misc]
        plain = ((name, _in_plain_text(value)) for name, value in named.items())
        return super().urlopen(*args, **dict(plain))  # type: ignore[misc]

    def _get_conn(self, timeout: Optional[float] = None) -> Any:
        connection, wanted = super()._get_conn(timeout), self.ConnectionCls  # type: ignore[misc]
        # One that was idle before the tool came or went is closed.
        while isinstance(wanted, type) and not isinstance(connection, wanted):
            connection.close()
            self._put_conn(None)  # type: ignore[attr-defined]
            connection = super()._get_conn(timeout)  # type: ignore[misc]
        return connection


def _in_plain_text(value: Any) -> Any:
    """``value`` without secrets, if it is the headers or the body of a request: a tool stores only plain types."""
    if isinstance(value, CaseInsensitiveDict):
        return {name: str(text) if type(text) is Secret else text for name, text in value.items()}
    return bytes(value) if type(value) is SecretBytes else value
