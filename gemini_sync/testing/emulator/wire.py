"""HTTP/1.1 as bytes on one socket: how requests are read and responses framed; it knows nothing of Gemini."""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import json
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Callable, Union

JSON_TYPE = "application/json; charset=UTF-8"
SSE_TYPE = "text/event-stream"

#: Seconds between events, or a callable given the index of the event about to be written.
Pace = Union[None, float, Callable[[int], object]]

_HEAD_LIMIT_BYTES = 64 * 1024


class BadRequest(Exception):
    """The bytes that came are not a request this reader understands."""


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived.

    `path` is as sent (percent-encoding kept, query removed), `headers` are looked up without regard to case,
    `at` is monotonic seconds, `connection` numbers the TCP connection (from 1), `route` names the route
    (empty for an unknown path) and `model` the model that was asked for, without `models/`.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message
    body: bytes = field(repr=False)
    connection: int
    at: float
    route: str = ""
    model: str | None = None

    @property
    def json(self) -> Any:
        """The body as JSON; raises ValueError where it is none."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Response:
    """A response before it is written; each event is one write (and, when chunked, one HTTP chunk)."""

    status: int
    events: Sequence[bytes]
    content_type: str = JSON_TYPE
    framing: str = "length"
    headers: Mapping[str, str] = field(default_factory=dict)
    pace: Pace = None

    def head(self, *, close: bool) -> bytes:
        fields = {"Content-Type": self.content_type}
        if self.framing == "chunked":
            fields["Transfer-Encoding"] = "chunked"
        elif self.framing == "length":
            fields["Content-Length"] = str(sum(map(len, self.events)))
        if close:
            fields["Connection"] = "close"
        fields.update(self.headers)
        lines = [f"HTTP/1.1 {self.status} {http.client.responses.get(self.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def frame(self, event: bytes, torn_at: int | None = None) -> bytes:
        """One event in this response's framing; with `torn_at`, only its first bytes, the framing left open."""
        if self.framing != "chunked" or not event:  # an empty HTTP chunk would end the body
            return event[:torn_at]
        return b"%x\r\n%b%b" % (len(event), event[:torn_at], b"\r\n" if torn_at is None else b"")

    def end(self) -> bytes:
        return b"0\r\n\r\n" if self.framing == "chunked" else b""


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as the indented JSON that Google's servers send."""
    body = json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
    return Response(status, [body], headers=headers or {})


class Connection:
    """One accepted socket, used by one handler thread; only `wake` and `close` may come from another."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.number = number
        self.closed = False
        self.reset_on_next_request = False
        self._socket = sock
        self._buffer = b""

    def handshake(self) -> None:
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.do_handshake()

    def read_request(self) -> Recorded | None:
        """The next request, or None where the client has gone; raises BadRequest and OSError."""
        head = self._read_head()
        if head is None:
            return None
        line, _, rest = head.partition(b"\r\n")
        words = line.decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise BadRequest("not an HTTP/1.1 request line")
        headers = http.client.parse_headers(io.BytesIO(rest + b"\r\n\r\n"))
        if "Transfer-Encoding" in headers:
            raise BadRequest("request bodies need a Content-Length here")
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

    def wait_until_gone(self) -> None:
        """Block until the client closes (or `wake` is called); what it still sends is thrown away."""
        while self._socket.recv(65536):
            continue

    def finish(self) -> None:
        """End properly: with TLS, say close_notify before FIN."""
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.settimeout(0)  # say it, but do not wait for the client to say it back
            with contextlib.suppress(OSError, ValueError):  # the client may have gone first
                self._socket.unwrap()
        self.close()

    def reset(self) -> None:
        """End by RST, as a crashed or overloaded peer does."""
        with contextlib.suppress(OSError):  # a connection that is gone needs no reset
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def wake(self) -> None:
        """Make blocked reads and writes of the handler thread return at once."""
        with contextlib.suppress(OSError):  # closed already
            # The plain socket's shutdown: SSLSocket's own would pull the TLS object from under the reader.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """End by FIN (with TLS: without close_notify). Idempotent."""
        self.closed = True
        self._socket.close()


class Exchange:
    """One request being answered. `answer` makes the response that is due (and does what was asked for)."""

    def __init__(
        self,
        connection: Connection,
        answer: Callable[[], Response],
        stopping: threading.Event,
        *,
        close: bool,
    ) -> None:
        self.connection = connection
        self.answer = answer
        self._stopping = stopping
        self._close = close

    def play(self, response: Response) -> None:
        """Write a response from head to end."""
        self.begin(response)
        self.connection.send(response.end())
        if self._close or response.framing == "close":
            self.connection.finish()

    def begin(self, response: Response, count: int | None = None) -> None:
        """Write the head and the first `count` events (None: all)."""
        self.send_head(response)
        for index, event in enumerate(response.events[:count]):
            self.wait_turn(response, index)
            self.connection.send(response.frame(event))

    def send_head(self, response: Response) -> None:
        self.connection.send(response.head(close=self._close or response.framing == "close"))

    def wait_turn(self, response: Response, index: int) -> None:
        """Wait as the response's pace says, before event `index` or what comes in its place."""
        pace = response.pace
        if callable(pace):
            call_hook(functools.partial(pace, index))
        elif pace is not None and index:
            self.pause(pace)

    def pause(self, seconds: float) -> None:
        """Wait; raises ConnectionAbortedError as soon as the emulator stops."""
        if self._stopping.wait(seconds):
            raise ConnectionAbortedError("the emulator stops")


def call_hook(hook: Callable[[], object] | None) -> None:
    """Call a test's hook; its OSError must not pass for a client that went away."""
    try:
        if hook is not None:
            hook()
    except OSError as exc:
        raise RuntimeError("a hook given to the emulator failed") from exc
