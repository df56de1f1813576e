"""urllib3 connections that keep the deadlines of the current call, and that ``cancel()`` ends at once."""

from __future__ import annotations

import _socket
import contextlib
import functools
import socket
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Optional

import urllib3.connection
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError, ProtocolError
from urllib3.poolmanager import pool_classes_by_scheme
from urllib3.util.connection import allowed_gai_family
from urllib3.util.ssltransport import SSLTransport

from gemini_sync.interruptions import interruption_in
from gemini_sync.network import keepalive
from gemini_sync.network.receiving import RECEIVE_BYTES, DeadlineResponse
from gemini_sync.network.socks import SocksMixin

if TYPE_CHECKING:
    from gemini_sync.network.cancelling import Call

#: ``current.get()`` is the call whose request this thread is sending, or None: urllib3 has no argument for it.
#: No threading.local, because a ContextVar also tells greenlets apart if gevent was imported after this module.
current: ContextVar[Optional[Call]] = ContextVar("current", default=None)


def _urllib3_class(name: str) -> Any:
    # If this module is imported while a recording tool is on, urllib3's module holds a subclass by the tool.
    patched = getattr(urllib3.connection, name)
    return next(cls for cls in patched.__mro__ if cls.__module__ == urllib3.connection.__name__)


if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection, HTTPSConnection
else:
    HTTPConnection, HTTPSConnection = _urllib3_class("HTTPConnection"), _urllib3_class("HTTPSConnection")


class _DeadlineMixin:
    """What both connection classes add: the current call knows the socket and sets its timeouts."""

    sock: Any
    timeout: Any
    port: int
    socket_options: Any
    source_address: Any
    _dns_host: str
    _has_sent = False  # a request went out on this connection
    _parts: Optional[list[bytes]] = None  # of a small request, until it is sent as one

    def response_class(self, sock: socket.socket, *args: Any, **kwargs: Any) -> DeadlineResponse:
        response, call = DeadlineResponse(sock, *args, **kwargs), current.get()
        if call is not None:
            response.keep_deadlines(sock, call, keepalive)
        return response

    def _new_conn(self) -> socket.socket:
        call = current.get()
        if call is None:
            return super()._new_conn()  # type: ignore[misc, no-any-return]
        call.enter("connect", call.timeouts.connect)
        try:
            addresses = socket.getaddrinfo(*self._first_hop(), allowed_gai_family(), socket.SOCK_STREAM)
            while True:
                family, kind, protocol, _, address = addresses.pop(0)
                try:
                    sock, target = self._open_socket(call, family, kind, protocol, address)
                    return self._connect_to(call, sock, target, 1 + len(addresses))
                except OSError as exc:
                    if not addresses or interruption_in(exc):
                        raise
        except (OSError, UnicodeError) as exc:
            raise NewConnectionError(self, f"Failed to establish a new connection: {exc}") from exc  # type: ignore[arg-type]

    def _first_hop(self) -> tuple[str, int]:
        """Host and port to connect to."""
        return self._dns_host, self.port

    def _open_socket(
        self, call: Call, family: int, kind: int, protocol: int, address: Any
    ) -> tuple[socket.socket, Any]:
        """A socket for one address of the first hop, and what to call its ``connect`` with."""
        return socket.socket(family, kind, protocol), address

    def _connect_to(self, call: Call, sock: socket.socket, address: Any, shares: int) -> socket.socket:
        """Connect ``sock`` to one of several addresses, which share what is left of the deadline."""
        try:
            keepalive.watch_peer(sock)
            for option in self.socket_options or ():  # those of the caller's session win
                sock.setsockopt(*option)
            if self.source_address:
                sock.bind(self.source_address)
            call.attach(sock)  # before it connects, so that cancel() ends that as well
            left = call.socket_timeout()
            sock.settimeout(left and left / shares)
            sock.connect(address)
            sock.settimeout(call.socket_timeout())  # for the answer of a proxy and the TLS handshake
        except BaseException:
            call.detach()
            sock.close()
            raise
        return sock

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._has_sent = False
        self._start_answer()

    def request(self, method: str, url: str, body: Any = None, *args: Any, **kwargs: Any) -> None:
        call = current.get()
        if call is not None and self.sock is not None:
            call.connection_is_new = not self._has_sent
            self._start_answer()
        # Head and body of a small request leave in one system call; a second costs 3 % of a short call.
        small = call is not None and isinstance(body, bytes) and len(body) <= RECEIVE_BYTES
        self._parts = [] if small else None
        try:
            super().request(method, url, body, *args, **kwargs)  # type: ignore[misc]
            parts, self._parts = self._parts, None
            if parts:
                self.send(b"".join(parts))
        except ConnectionError as exc:
            if interruption_in(exc):
                raise ProtocolError("interrupted", exc) from exc  # urllib3 would ignore a ConnectionError here
            raise
        self._has_sent = True

    def send(self, data: Any) -> None:
        if self._parts is None:
            super().send(data)  # type: ignore[misc]
        else:
            self._parts.append(data)

    def _start_answer(self) -> None:
        call = current.get()
        if call is not None:
            call.attach(_socket_below(self.sock))
            call.enter_answer()
            self.timeout = call.socket_timeout()
            self.sock.settimeout(self.timeout)


def _socket_below(sock: Any) -> Any:
    # For TLS inside TLS, the socket below both. Sockets of some tools fail if they are asked for an attribute.
    return sock.socket if isinstance(sock, SSLTransport) else sock


class _OtherMixin(_DeadlineMixin):
    """For connection classes that connect in a way of their own; each step of it is held to the deadline."""

    def _new_conn(self) -> socket.socket:
        call, connect = current.get(), super(_DeadlineMixin, self)._new_conn  # type: ignore[misc]
        if call is None:
            return connect()  # type: ignore[no-any-return]
        call.enter("connect", call.timeouts.connect)
        self.timeout = call.socket_timeout()
        sock: socket.socket = connect()
        keepalive.watch_peer(sock)
        return sock


class _DeadlineConnection(_DeadlineMixin, HTTPConnection):  # type: ignore[misc]
    """A plain connection."""


class _DeadlineTLSConnection(_DeadlineMixin, HTTPSConnection):  # type: ignore[misc]
    """A TLS connection. ``cancel()`` also ends its handshake, whichever library makes the TLS socket."""

    _handle: Optional[_socket.socket] = None  # while it connects, a second descriptor of the same connection

    def _new_conn(self) -> socket.socket:
        sock, call = super()._new_conn(), current.get()
        if call is not None:
            try:
                # Not the socket itself: it is closed as soon as a TLS socket has taken its descriptor over.
                self._handle = _socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, _socket.dup(sock.fileno()))
                call.attach(self._handle)
            except BaseException:
                sock.close()
                raise
        return sock

    def connect(self) -> None:
        call = current.get()
        try:
            super().connect()
        except BaseException:
            if call is not None:
                call.detach()
            if self._handle is not None:  # ssl closes the socket after errors of its own only
                with contextlib.suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)
            raise
        finally:
            if self._handle is not None:
                self._handle.close()
                self._handle = None

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> Any:
        # requests trusts the CA bundle for a proxy as well; urllib3 would verify the proxy without our context.
        if self.proxy_config is not None and self.proxy_config.ssl_context is None:
            self.proxy_config = self.proxy_config._replace(ssl_context=self.ssl_context)
        return super()._connect_tls_proxy(hostname, sock)


class _PoolMixin:
    """A pool of connections of ours, unless a recording tool has put its own class in place of urllib3's.

    Such a tool must see each request: it would go out although the tool is to replay answers. Connections of the tool
    keep the deadlines between reads only.
    """

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

    def _get_conn(self, timeout: Optional[float] = None) -> Any:
        connection, wanted = super()._get_conn(timeout), self.ConnectionCls  # type: ignore[misc]
        # One that was idle before the tool came or went is closed.
        while isinstance(wanted, type) and not isinstance(connection, wanted):
            connection.close()
            self._put_conn(None)  # type: ignore[attr-defined]
            connection = super()._get_conn(timeout)  # type: ignore[misc]
        return connection


class _DeadlinePool(_PoolMixin, HTTPConnectionPool):
    _urllib3_pool, _urllib3_connection, _our_connection = HTTPConnectionPool, HTTPConnection, _DeadlineConnection


class _DeadlineTLSPool(_PoolMixin, HTTPSConnectionPool):
    _urllib3_pool, _urllib3_connection, _our_connection = HTTPSConnectionPool, HTTPSConnection, _DeadlineTLSConnection


def keep_deadlines(adapter: Any) -> None:
    """Let an ``HTTPAdapter`` make connections of this module from now on; leave other adapters alone. Idempotent."""
    if isinstance(adapter, HTTPAdapter) and "proxy_manager_for" not in vars(adapter):
        _use_our_pools(adapter.poolmanager)
        manager_for = adapter.proxy_manager_for
        adapter.proxy_manager_for = lambda *args, **kwargs: _use_our_pools(manager_for(*args, **kwargs))  # type: ignore[method-assign]


def _use_our_pools(manager: Any) -> Any:
    if manager.pool_classes_by_scheme is pool_classes_by_scheme:
        manager.pool_classes_by_scheme = {"http": _DeadlinePool, "https": _DeadlineTLSPool}
    else:  # those of SOCKS, or of an adapter of the caller's
        manager.pool_classes_by_scheme = {
            scheme: _keeping_deadlines(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }
    return manager


@functools.lru_cache(maxsize=64)
def _keeping_deadlines(pool: Any) -> Any:
    """A subclass of a pool class, whose connections keep deadlines; the class itself if it has no such connections."""
    made: Any = pool.ConnectionCls
    if not isinstance(made, type) or not issubclass(made, HTTPConnection) or hasattr(made, "_has_sent"):  # ours
        return pool
    mixins: tuple[Any, ...] = (_OtherMixin,)
    if made._new_conn is HTTPConnection._new_conn:
        mixins = (_DeadlineMixin,)
    elif made._new_conn.__module__ == "urllib3.contrib.socks":
        mixins = (SocksMixin, _DeadlineMixin)
    return type(pool.__name__, (pool,), {"ConnectionCls": type(made.__name__, (*mixins, made), {})})
