"""One TCP connection of the emulator: how requests are read from it and responses are written to it."""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from typing import Callable

from gemini_sync.testing.emulator.messages import Recorded, Response

_HEAD_LIMIT_BYTES = 64 * 1024


class BadRequest(Exception):
    """The client sent something that the emulator cannot read as a request."""


class Connection:
    """One accepted socket. One thread uses it; other threads may only call ``wake`` and ``close``."""

    def __init__(self, sock: socket.socket, number: int, stopping: threading.Event) -> None:
        self.number = number
        self.closed = False
        self.reset_on_next_request = False
        self._socket = sock
        self._stopping = stopping
        self._buffer = b""

    def handshake(self) -> None:
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.do_handshake()

    def read_request(self) -> Recorded | None:
        """The next request, or None if the client has closed; raises BadRequest and OSError."""
        head = self._read_head()
        if head is None:
            return None
        line, _, rest = head.partition(b"\r\n")
        words = line.decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise BadRequest("not an HTTP/1.1 request line")
        headers = http.client.parse_headers(io.BytesIO(rest + b"\r\n\r\n"))
        if "Transfer-Encoding" in headers:
            raise BadRequest("the emulator reads no Transfer-Encoding: send the body with a Content-Length")
        length = headers.get("Content-Length", "0")
        if not length.isdecimal():
            raise BadRequest("Content-Length is not a number")
        body = self._read_exactly(int(length))
        if body is None:
            return None
        target = urllib.parse.urlsplit(words[1])
        query = dict(urllib.parse.parse_qsl(target.query, keep_blank_values=True))
        return Recorded(words[0], target.path, query, headers, body, self.number, time.monotonic())

    def _read_head(self) -> bytes | None:
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > _HEAD_LIMIT_BYTES:
                raise BadRequest("the request head is too long")
            data = self._socket.recv(65536)
            if not data:
                return None
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def _read_exactly(self, size: int) -> bytes | None:
        pieces = [self._buffer]
        missing = size - len(self._buffer)
        while missing > 0:
            data = self._socket.recv(65536)
            if not data:
                return None
            pieces.append(data)
            missing -= len(data)
        whole = b"".join(pieces)
        self._buffer = whole[size:]
        return whole[:size]

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def pause(self, seconds: float) -> None:
        """Wait; raises ConnectionAbortedError as soon as the emulator stops."""
        if self._stopping.wait(seconds):
            raise ConnectionAbortedError("the emulator stops")

    def wait_until_gone(self) -> None:
        """Block until the client closes or ``wake`` is called; what the client still sends is thrown away."""
        while self._socket.recv(65536):
            continue

    def finish(self) -> None:
        """Close properly: with TLS, send close_notify before FIN."""
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.settimeout(0)  # send close_notify, but do not wait for the client's
            with contextlib.suppress(OSError, ValueError):  # the client may have gone first
                self._socket.unwrap()
        self.close()

    def reset(self) -> None:
        """Close with RST, as a crashed or overloaded server does."""
        with contextlib.suppress(OSError):  # the client may have gone first
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def wake(self) -> None:
        """Make a blocked read or write of the connection's thread return at once."""
        with contextlib.suppress(OSError):  # the connection may be closed already
            # SSLSocket.shutdown would drop the TLS object that the blocked thread is using.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close with FIN; with TLS, without close_notify. Idempotent."""
        self.closed = True
        self._socket.close()


class ResponseWriter:
    """Writes the response to one request, whole or in part.

    ``make_response`` does what the request asks for and returns the response that is sent if no failure is scripted.
    """

    def __init__(self, connection: Connection, make_response: Callable[[], Response], *, close: bool) -> None:
        self.connection = connection
        self.make_response = make_response
        self._close = close

    def write(self, response: Response) -> None:
        """Write a response from head to end."""
        self.write_start(response)
        self.connection.send(response.end())
        if self._close or response.framing == "close":
            self.connection.finish()

    def write_start(self, response: Response, count: int | None = None) -> None:
        """Write the head and the first ``count`` events, or all events if ``count`` is None."""
        self.write_head(response)
        for index, event in enumerate(response.events[:count]):
            self.keep_pace(response, index)
            self.connection.send(response.frame(event))

    def write_head(self, response: Response) -> None:
        self.connection.send(response.head(close=self._close or response.framing == "close"))

    def keep_pace(self, response: Response, index: int) -> None:
        """Wait as long as the response's pace asks for before event ``index``, or before a failure in its place."""
        pace = response.pace
        if callable(pace):
            call_hook(functools.partial(pace, index))
        elif pace is not None and index:
            self.connection.pause(pace)


def call_hook(hook: Callable[[], object] | None) -> None:
    """Call a function of the test. Its OSError becomes a RuntimeError, because an OSError means a client that left."""
    try:
        if hook is not None:
            hook()
    except OSError as exc:
        raise RuntimeError("a hook given to the emulator failed") from exc
