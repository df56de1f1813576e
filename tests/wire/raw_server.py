"""Servers that send plain bytes on loopback sockets, for what the emulator cannot do."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Callable, Optional

SECONDS = 10.0
EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


class Peer:
    """The server's end of one connection; each receive and send is bounded."""

    def __init__(self, sock: socket.socket, stopping: threading.Event) -> None:
        sock.settimeout(SECONDS)
        self.socket = sock
        self._stopping = stopping
        self._held = b""

    def read_request(self) -> bytes:
        """Head and body of the next request; empty if the client has gone."""
        while b"\r\n\r\n" not in self._held:
            if not self._receive():
                return b""
        head, _, _ = self._held.partition(b"\r\n\r\n")
        fields = (line.partition(b":") for line in head.lower().split(b"\r\n"))
        length = next((int(value) for name, _, value in fields if name == b"content-length"), 0)
        size = len(head) + 4 + length
        while len(self._held) < size:
            if not self._receive():
                return b""
        request, self._held = self._held[:size], self._held[size:]
        return request

    def _receive(self) -> bytes:
        data = self.socket.recv(65536)
        self._held += data
        return data

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def handshake(self, context: ssl.SSLContext) -> None:
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def wait_gone(self) -> None:
        """Wait until the client has closed or reset the connection."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # a reset counts as well
            while self.socket.recv(65536):
                continue

    def pause(self, seconds: float) -> None:
        """Wait, at most until the server stops."""
        self._stopping.wait(seconds)

    def pump(self, other: socket.socket) -> None:
        """Copy bytes both ways until one side ends, in one thread, because two must not use a TLS socket at once."""
        target = {self.socket: other, other: self.socket}
        while True:
            pending = isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()
            ready = [self.socket] if pending else select.select(list(target), [], [], SECONDS)[0]
            for source in ready:
                data = source.recv(65536)
                if not data:
                    return
                target[source].sendall(data)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class RawServer:
    """Runs ``script`` for each connection in a thread of its own; an error of a script is raised at the end.

    ``peers`` are the connections so far, ``requests`` is for scripts to fill.
    """

    def __init__(
        self, script: Callable[[Peer], object], *, tls: Optional[ssl.SSLContext] = None, family: int = socket.AF_INET
    ) -> None:
        self.peers: list[Peer] = []
        self.requests: list[bytes] = []
        self._script, self._tls = script, tls
        self._stopping = threading.Event()
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), family=family, backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> RawServer:
        acceptor = threading.Thread(target=self._accept, daemon=True)
        acceptor.start()
        self._threads.append(acceptor)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):  # where it is not supported, the connection below wakes accept()
            self._listener.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), SECONDS).close()
        self._listener.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):  # SSLSocket.shutdown drops the state of a read
                socket.socket.shutdown(peer.socket, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(SECONDS)
        if self._failures and exc_info[1] is None:
            raise self._failures[0]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                sock, _ = self._listener.accept()
                peer = Peer(sock, self._stopping)
                self.peers.append(peer)
                thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, peer: Peer) -> None:
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError):  # the client went away
                if self._tls is not None:
                    peer.handshake(self._tls)
                self._script(peer)
        except BaseException as exc:
            self._failures.append(exc)
        finally:
            peer.socket.close()


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """The URL of a listener whose backlog is full: a connection to it is neither made nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def forward_proxy(tls: Optional[ssl.SSLContext] = None) -> Iterator[RawServer]:
    """A forward proxy: absolute URLs and CONNECT; ``requests`` holds what it was asked, without what went through."""

    def script(peer: Peer) -> None:
        request = peer.read_request()
        if not request:
            return
        proxy.requests.append(request)
        method, target, _ = request.split(b"\r\n", 1)[0].decode().split(" ")
        address = urllib.parse.urlsplit(target if "://" in target else f"//{target}")
        with socket.create_connection((address.hostname, address.port), SECONDS) as origin:
            if method == "CONNECT":
                peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = f"{address.path}?{address.query}".rstrip("?")
                origin.sendall(request.replace(target.encode(), path.encode(), 1))
            peer.pump(origin)

    with RawServer(script, tls=tls) as proxy:
        yield proxy
