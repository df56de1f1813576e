"""urllib3 connections that keep the deadlines of the current call, and that ``cancel()`` ends at once."""

from __future__ import annotations

import _socket
import contextlib
import http.client
import io
import re
import socket
from typing import TYPE_CHECKING, Any, Optional

import urllib3.connection
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError
from urllib3.poolmanager import pool_classes_by_scheme
from urllib3.util.connection import allowed_gai_family
from urllib3.util.ssltransport import SSLTransport

from gemini_sync.network.deadlines import Call, current

RECEIVE_BYTES = 120 * 1024  # 64 KiB costs more system calls; from 128 KiB on, malloc asks the kernel for each buffer
# The line before an HTTP chunk (RFC 9112 section 7.1), without extensions.
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")


def _urllib3_class(name: str) -> Any:
    # If this module is imported while a recording tool is on, urllib3's module holds a subclass by the tool.
    patched = getattr(urllib3.connection, name)
    return next(cls for cls in patched.__mro__ if cls.__module__ == urllib3.connection.__name__)


if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection, HTTPSConnection
else:
    HTTPConnection, HTTPSConnection = _urllib3_class("HTTPConnection"), _urllib3_class("HTTPSConnection")


class _DeadlineReader(io.RawIOBase):
    """The receiving side of a socket: each receive ends by the deadline, however few bytes the ones before brought."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, call: Call) -> None:
        self._raw, self._sock, self._call = raw, sock, call
        self._timeout: Optional[float] = -1.0  # none that a socket can have

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        timeout = self._call.socket_timeout()
        if timeout != self._timeout:
            self._timeout = timeout
            self._sock.settimeout(timeout)
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class DeadlineResponse(http.client.HTTPResponse):
    """An HTTP response that keeps the deadlines of the current call, and receives as much at once as has arrived."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        call = current.call
        # A tool that fakes sockets gives another kind of file, which has no bytes to wait for.
        if call is not None and isinstance(self.fp, io.BufferedReader):
            self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock, call), RECEIVE_BYTES)

    def read1(self, n: int = -1) -> bytes:
        data = (self._whole_chunks() if n >= RECEIVE_BYTES else b"") or super().read1(n)
        if n and not data and self.length:  # of the bytes that Content-Length announced, so many are missing
            raise http.client.IncompleteRead(data, self.length)
        return data

    def _whole_chunks(self) -> bytes:
        """The HTTP chunks that have arrived whole, except the last of the body.

        http.client reads one at a time, in many steps. Servers send each event as a chunk of its own.
        """
        if self.fp is None or not self.chunked or self.chunk_left:
            return b""
        received = self.fp.peek()  # waits only if nothing is left of what arrived
        position, pieces = 0, []
        if self.chunk_left == 0:  # http.client has read a chunk, but not the line end behind it
            if not received.startswith(b"\r\n"):
                return b""
            position = 2
        while (head := _CHUNK_SIZE.match(received, position)) is not None:
            start = head.end()
            end = start + int(head[1], 16)
            if end == start or received[end : end + 2] != b"\r\n":
                break
            pieces.append(received[start:end])
            position = end + 2
        if pieces:
            self.fp.read(position)
            self.chunk_left = None  # to http.client: the size of a chunk comes next
        return b"".join(pieces)


class _DeadlineMixin:
    """What both connection classes add: the current call knows the socket and sets its timeouts."""

    response_class: Any = DeadlineResponse
    sock: Any
    timeout: Any
    port: int
    socket_options: Any
    source_address: Any
    _dns_host: str
    _has_sent = False  # a request went out on this connection
    _parts: Optional[list[bytes]] = None  # of a small request, until it is sent as one

    def _new_conn(self) -> socket.socket:
        call = current.call
        if call is None:
            return super()._new_conn()  # type: ignore[misc, no-any-return]
        call.enter("connect", call.timeouts.connect)
        try:
            addresses = socket.getaddrinfo(self._dns_host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
            while True:
                family, kind, protocol, _, address = addresses.pop(0)
                try:
                    return self._connect_to(call, socket.socket(family, kind, protocol), address, 1 + len(addresses))
                except OSError:
                    if not addresses:
                        raise
        except (OSError, UnicodeError) as exc:
            raise NewConnectionError(self, f"Failed to establish a new connection: {exc}") from exc  # type: ignore[arg-type]

    def _connect_to(self, call: Call, sock: socket.socket, address: Any, shares: int) -> socket.socket:
        """Connect ``sock`` to one of several addresses, which share what is left of the deadline."""
        try:
            for option in self.socket_options or ():
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
        call = current.call
        if call is not None and self.sock is not None:
            call.connection_is_new = not self._has_sent
            self._start_answer()
        # Head and body of a small request leave in one system call; a second costs 3 % of a short call.
        small = call is not None and isinstance(body, bytes) and len(body) <= RECEIVE_BYTES
        self._parts = [] if small else None
        super().request(method, url, body, *args, **kwargs)  # type: ignore[misc]
        parts, self._parts = self._parts, None
        if parts:
            self.send(b"".join(parts))
        self._has_sent = True

    def send(self, data: Any) -> None:
        if self._parts is None:
            super().send(data)  # type: ignore[misc]
        else:
            self._parts.append(data)

    def _start_answer(self) -> None:
        call = current.call
        if call is not None:
            # For TLS inside TLS, the socket below both. Sockets of some tools fail if they are asked for an attribute.
            call.attach(self.sock.socket if isinstance(self.sock, SSLTransport) else self.sock)
            call.enter_answer()
            self.timeout = call.socket_timeout()
            self.sock.settimeout(self.timeout)


class _DeadlineConnection(_DeadlineMixin, HTTPConnection):
    """A plain connection."""


class _DeadlineTLSConnection(_DeadlineMixin, HTTPSConnection):
    """A TLS connection. ``cancel()`` also ends its handshake, whichever library makes the TLS socket."""

    _handle: Optional[_socket.socket] = None  # while it connects, a second descriptor of the same connection

    def _new_conn(self) -> socket.socket:
        sock, call = super()._new_conn(), current.call
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
        call = current.call
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
    if manager.pool_classes_by_scheme is pool_classes_by_scheme:  # SOCKS and some adapters have pools of their own
        manager.pool_classes_by_scheme = {"http": _DeadlinePool, "https": _DeadlineTLSPool}
    return manager
