"""Knows the sockets: urllib3 connections that keep a call's deadlines and can be cancelled; knows no request."""

from __future__ import annotations

import functools
import http.client
import io
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Optional

from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError
from urllib3.poolmanager import pool_classes_by_scheme
from urllib3.response import BaseHTTPResponse
from urllib3.util.connection import allowed_gai_family
from urllib3.util.ssl_ import create_urllib3_context

from gemini_sync.errors import TransportError
from gemini_sync.network.deadlines import Call

RECEIVE_BYTES = 120 * 1024  # fewer system calls than 64 KiB; from 128 KiB on, malloc would map each buffer anew
# A receive may outlast the deadline by this much; setting a socket timeout for each would cost a system call each.
_SLACK_SECONDS = 0.02
_POOLS = 64
# The end of one HTTP chunk and the head of the next (RFC 9112 section 7.1), without extensions.
_CHUNK_HEAD = re.compile(rb"\r\n([0-9a-fA-F]{1,8})\r\n")


class _CurrentCall(threading.local):
    call: Optional[Call] = None


_current = _CurrentCall()


@contextmanager
def sending(call: Call) -> Iterator[None]:
    """Make ``call`` known to the connections this thread uses; urllib3 has no argument that would reach them.

    A log handler may make a call of its own while another one is being sent: the outer call is restored afterwards.
    """
    outer, _current.call = _current.call, call
    try:
        yield
    finally:
        _current.call = outer


def current_call() -> Optional[Call]:
    """The call whose request this thread is sending."""
    return _current.call


def _time_left(call: Call) -> Optional[float]:
    """What is left of the deadline in force, as a socket's timeout: never 0, which would be not to wait at all."""
    left = call.remaining()
    if left is not None and left <= 0:
        raise socket.timeout("deadline passed")
    return left


class _DeadlineReader(io.RawIOBase):
    """The receiving side of a socket; every single receive keeps the deadline in force, however few bytes drip in."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, call: Call) -> None:
        self._raw, self._sock, self._call = raw, sock, call
        self.paused = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        if self.paused:
            return None
        call = self._call
        call.begin_read()
        left, timeout = _time_left(call), self._sock.gettimeout()
        if left is None:
            if timeout is not None:
                self._sock.settimeout(None)
        elif timeout is None or not left <= timeout <= left + _SLACK_SECONDS:
            self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An HTTP response read through the current call's deadlines, in receives as large as the kernel has bytes."""

    _reader: Optional[_DeadlineReader] = None

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if _current.call is not None:
            self._reader = _DeadlineReader(self.fp.detach(), sock, _current.call)
            self.fp = io.BufferedReader(self._reader, RECEIVE_BYTES)

    def _read_status(self) -> tuple[str, int, str]:
        """The final status: http.client itself skips no interim answer but 100 (RFC 9110 section 15.2)."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 101 < status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)

    def read1(self, n: int = -1) -> bytes:
        """What one receive brought, over the borders of HTTP chunks.

        http.client gives one chunk at a time, at 3 us each: servers make a chunk of each event, so in a burst that was
        a third of all the time from bytes to text.
        """
        data = super().read1(n)
        if self._reader is None or not self.chunked or self.chunk_left != 0 or not self.fp:
            return data
        self._reader.paused = True
        try:
            buffered = self.fp.peek()  # of what was received already: a paused reader has no more
        finally:
            self._reader.paused = False
        pieces, position, room = [memoryview(data)], 0, n - len(data)
        received = memoryview(buffered)
        match = _CHUNK_HEAD.match(buffered)
        while match is not None:
            start = match.end()
            end = start + int(match[1], 16)
            if end == start or end > len(buffered) or end > room:
                break  # the last chunk, or one that is not there yet: http.client's business
            pieces.append(received[start:end])
            position = end
            match = _CHUNK_HEAD.match(buffered, position)
        if not position:
            return data
        self.fp.read(position)
        return b"".join(pieces)


class _GuardedMixin:
    """What both connection classes add: the current call sees the socket and sets its deadlines."""

    response_class: Any = _Response
    sock: Any
    timeout: Any
    host: str
    port: int
    socket_options: Any
    source_address: Any
    _dns_host: str
    _used = False
    _unsent: Optional[list[bytes]] = None

    def _new_conn(self) -> socket.socket:
        call = _current.call
        if call is None:
            return super()._new_conn()  # type: ignore[misc, no-any-return]
        call.enter("connect", call.timeouts.connect)
        try:
            addresses = socket.getaddrinfo(self._dns_host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
            while True:
                family, kind, protocol, _, address = addresses.pop(0)
                try:
                    return self._connected(call, socket.socket(family, kind, protocol), address, 1 + len(addresses))
                except OSError:
                    if not addresses:
                        raise
        except (OSError, UnicodeError) as exc:
            raise NewConnectionError(self, f"Failed to establish a new connection: {exc}") from exc  # type: ignore[arg-type]

    def _connected(self, call: Call, sock: socket.socket, address: Any, shares: int) -> socket.socket:
        """``sock``, connected to one of several addresses that share what is left of the deadline."""
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            if self.source_address:
                sock.bind(self.source_address)
            call.attach(sock)  # before it connects: cancel() ends that, too
            left = _time_left(call)
            sock.settimeout(left and left / shares)
            sock.connect(address)
            sock.settimeout(_time_left(call))  # for a proxy's answer and the TLS handshake
        except BaseException:
            call.detach()
            sock.close()
            raise
        return sock

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._used = False
        if _current.call is not None:
            self._start_answer(_current.call)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if _current.call is None:  # of a session that its owner uses for other things, too
            super().request(*args, **kwargs)  # type: ignore[misc]
            self._used = True
            return
        if self.sock is not None:
            _current.call.fresh = not self._used
            self._start_answer(_current.call)
        self._unsent = []
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
            unsent, self._unsent = self._unsent, None
            self.send(b"".join(unsent))
        finally:
            self._unsent = None
        self._used = True

    def send(self, data: Any) -> None:
        # Head and body of a small request leave in one system call; two are a fifth of what a short call costs.
        if self._unsent is not None and isinstance(data, bytes) and len(data) <= RECEIVE_BYTES:
            self._unsent.append(data)
            return
        if self._unsent:
            unsent, self._unsent = self._unsent, None
            self.send(b"".join(unsent))
            self._unsent = []
        super().send(data)  # type: ignore[misc]

    def _start_answer(self, call: Call) -> None:
        call.attach(getattr(self.sock, "socket", self.sock))  # of TLS within TLS the socket underneath
        call.enter_answer()
        self.timeout = _time_left(call)
        self.sock.settimeout(self.timeout)


class _GuardedConnection(_GuardedMixin, HTTPConnection):
    """A plain connection."""


class _GuardedTLSConnection(_GuardedMixin, HTTPSConnection):
    """A TLS connection."""

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> Any:
        # To requests the CA bundle is one for proxies, too; urllib3 would look for it beside the context.
        if self.proxy_config is not None and self.proxy_config.ssl_context is None:
            self.proxy_config = self.proxy_config._replace(ssl_context=self.ssl_context)
        return super()._connect_tls_proxy(hostname, sock)


class _GuardedPool(HTTPConnectionPool):
    ConnectionCls = _GuardedConnection


class _GuardedTLSPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedTLSConnection


def guard(adapter: Any) -> None:
    """Have the future connections of an ``HTTPAdapter`` keep deadlines and be cancellable. Idempotent."""
    if isinstance(adapter, HTTPAdapter) and "proxy_manager_for" not in vars(adapter):
        _guarded(adapter.poolmanager)
        manager_for = adapter.proxy_manager_for
        adapter.proxy_manager_for = lambda *args, **kwargs: _guarded(manager_for(*args, **kwargs))  # type: ignore[method-assign]


def _guarded(manager: Any) -> Any:
    if manager.pool_classes_by_scheme is pool_classes_by_scheme:  # SOCKS and other adapters bring classes of their own
        manager.pool_classes_by_scheme = {"http": _GuardedPool, "https": _GuardedTLSPool}
    return manager


def reader(raw: Any) -> Callable[[], bytes]:
    """Reads the body behind a requests response, still encoded, a piece at a time and ``b""`` at its end."""
    if isinstance(raw, BaseHTTPResponse):
        return functools.partial(raw.read1, RECEIVE_BYTES, decode_content=False)
    if raw is None:
        return bytes
    return functools.partial(getattr(raw, "read1", None) or raw.read, RECEIVE_BYTES)  # any file, of a test's adapter


class _TLSSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        # Wrapping took the descriptor from the socket that the call knows.
        try:
            if _current.call is not None:
                _current.call.attach(self)
            super().do_handshake(block)
        except BaseException:  # ssl itself closes it for its own errors only
            self.close()
            raise


@functools.lru_cache(maxsize=8)
def _tls_context(ca_path: str) -> ssl.SSLContext:
    """One verifying context per CA bundle: loading the bundle is most of what a new TLS connection costs."""
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.check_hostname = True
    context.sslsocket_class = _TLSSocket
    try:
        context.load_verify_locations(**{"capath" if os.path.isdir(ca_path) else "cafile": ca_path})
    except OSError as exc:
        raise TransportError(
            f"The CA bundle {ca_path} cannot be loaded ({exc}). Name another in REQUESTS_CA_BUNDLE, or none.",
            reason="CERTIFICATE_VERIFY_FAILED",
        ) from exc
    return context


class GuardedAdapter(HTTPAdapter):
    """The transport adapter of our own sessions, to be guarded, too: one TLS context for all, and pools found fast."""

    def __init__(self, **kwargs: Any) -> None:
        self._pools: dict[Any, Any] = {}
        super().__init__(**kwargs)

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        # Making the key under which urllib3 keeps a pool is a twentieth of what a short call costs.
        key = (request.url, verify, cert, *(proxies or {}).items())
        pool = self._pools.get(key)
        if pool is None or pool.pool is None:  # closed, to make room or with its manager
            if len(self._pools) >= _POOLS:
                self._pools.clear()
            pool = self._pools[key] = super().get_connection_with_tls_context(request, verify, proxies, cert)
        return pool

    def close(self) -> None:
        # urllib3 closes a pool when nothing names it any more; the traceback of a kept error may go on naming it.
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        super().close()

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host: dict[str, Any]
        pool: dict[str, Any]
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)  # type: ignore[assignment]
        if verify and host["scheme"] == "https":
            pool.pop("ca_certs", None)
            pool.pop("ca_cert_dir", None)
            pool["ssl_context"] = _tls_context(verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH)
        return host, pool

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        # With verification on, the context above does it all; requests would load the bundle for each connection.
        if not verify or cert:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
