"""urllib3 connections that keep the deadlines of the current call, and that ``cancel()`` ends at once."""

from __future__ import annotations

import functools
import http.client
import io
import math
import re
import socket
from typing import Any, Optional

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError, ProtocolError
from urllib3.poolmanager import pool_classes_by_scheme
from urllib3.util.connection import allowed_gai_family

from gemini_sync.interruptions import interruption_in
from gemini_sync.network import keepalive
from gemini_sync.network.deadlines import Call, current
from gemini_sync.network.socks import SocksMixin

RECEIVE_BYTES = 120 * 1024  # 64 KiB costs more system calls; from 128 KiB on, malloc asks the kernel for each buffer
# The line before an HTTP chunk (RFC 9112 section 7.1), without extensions.
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")


class _DeadlineReader(io.RawIOBase):
    """The receiving side of a socket: each receive ends by the deadline, however few bytes the ones before brought."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, call: Call) -> None:
        self._raw, self._sock, self._call = raw, sock, call
        self._timeout: Optional[float] = -1.0  # none that a socket can have
        self._below = call.socket  # for TLS inside TLS, the socket below both
        self._slice = math.inf if call.socket is None else keepalive.SILENCE_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        is_silent = False
        while True:
            timeout = self._call.socket_timeout()
            if not is_silent and self._slice < (math.inf if timeout is None else timeout):
                timeout = self._slice
            if timeout != self._timeout:
                self._timeout = timeout
                self._sock.settimeout(timeout)
            try:
                received = self._sock.recv_into(buffer)
                break
            except socket.timeout as exc:
                if is_silent or timeout != self._slice or exc.errno is not None or interruption_in(exc):
                    raise  # the deadline, or the system says that the other side is gone
            is_silent = True
            keepalive.expect_silence(self._below)
        if is_silent:
            keepalive.expect_acknowledgement(self._below)
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()


class DeadlineResponse(http.client.HTTPResponse):
    """An HTTP response that keeps the deadlines of the current call, and receives as much at once as has arrived."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        call = current.call
        if call is not None:
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
        call = current.call
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
        call = current.call
        if call is not None:
            call.attach(getattr(self.sock, "socket", self.sock))  # for TLS inside TLS, the socket below both
            call.enter_answer()
            self.timeout = call.socket_timeout()
            self.sock.settimeout(self.timeout)


class _OtherMixin(_DeadlineMixin):
    """For connection classes that connect in a way of their own; each step of it is held to the deadline."""

    def _new_conn(self) -> socket.socket:
        call, connect = current.call, super(_DeadlineMixin, self)._new_conn  # type: ignore[misc]
        if call is None:
            return connect()  # type: ignore[no-any-return]
        call.enter("connect", call.timeouts.connect)
        self.timeout = call.socket_timeout()
        sock: socket.socket = connect()
        keepalive.watch_peer(sock)
        return sock


class _DeadlineConnection(_DeadlineMixin, HTTPConnection):
    """A plain connection."""


class _DeadlineTLSConnection(_DeadlineMixin, HTTPSConnection):
    """A TLS connection."""

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> Any:
        # requests trusts the CA bundle for a proxy as well; urllib3 would verify the proxy without our context.
        if self.proxy_config is not None and self.proxy_config.ssl_context is None:
            self.proxy_config = self.proxy_config._replace(ssl_context=self.ssl_context)
        return super()._connect_tls_proxy(hostname, sock)


class _DeadlinePool(HTTPConnectionPool):
    ConnectionCls = _DeadlineConnection


class _DeadlineTLSPool(HTTPSConnectionPool):
    ConnectionCls = _DeadlineTLSConnection


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
    if not issubclass(made, HTTPConnection) or issubclass(made, _DeadlineMixin):
        return pool
    mixins: tuple[Any, ...] = (_OtherMixin,)
    if made._new_conn is HTTPConnection._new_conn:
        mixins = (_DeadlineMixin,)
    elif made._new_conn.__module__ == "urllib3.contrib.socks":
        mixins = (SocksMixin, _DeadlineMixin)
    return type(pool.__name__, (pool,), {"ConnectionCls": type(made.__name__, (*mixins, made), {})})
