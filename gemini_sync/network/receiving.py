"""Receiving an HTTP response: each receive keeps the deadline of the call, and takes all that has arrived."""

from __future__ import annotations

import http.client
import io
import math
import re
import socket
from typing import TYPE_CHECKING, Any, Optional

from gemini_sync.interruptions import interruption_in

if TYPE_CHECKING:
    from gemini_sync.network.cancelling import Call

RECEIVE_BYTES = 120 * 1024  # 64 KiB costs more system calls; from 128 KiB on, malloc asks the kernel for each buffer
# The line before an HTTP chunk (RFC 9112 section 7.1), without extensions.
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")


class _DeadlineReader(io.RawIOBase):
    """The receiving side of a socket: each receive ends by the deadline, however few bytes the ones before brought.

    Args:
        keepalive: the module, which is told when the connection is silent; None for no TCP connection.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, call: Call, keepalive: Any = None) -> None:
        self._raw, self._sock, self._call, self._keepalive = raw, sock, call, keepalive
        self._timeout: Optional[float] = -1.0  # none that a socket can have
        self._below = call.socket  # for TLS inside TLS, the socket below both
        self._slice = math.inf if keepalive is None or self._below is None else keepalive.SILENCE_SECONDS

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
            self._keepalive.expect_silence(self._below)
        if is_silent:
            self._keepalive.expect_acknowledgement(self._below)
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()


class DeadlineResponse(http.client.HTTPResponse):
    """An HTTP response that can keep the deadlines of a call, and receives as much at once as has arrived."""

    def keep_deadlines(self, sock: socket.socket, call: Call, keepalive: Any = None) -> None:
        """Hold each receive to the deadlines of ``call``."""
        # A tool that fakes sockets gives another kind of file, which has no bytes to wait for.
        if isinstance(self.fp, io.BufferedReader):
            reader = _DeadlineReader(self.fp.detach(), sock, call, keepalive)
            self.fp = io.BufferedReader(reader, RECEIVE_BYTES)

    def _read_status(self) -> tuple[str, int, str]:
        """The final status. Of the interim answers (RFC 9110 section 15.2), http.client itself skips only 100."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 101 < status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)

    def read1(self, n: int = -1) -> bytes:
        """Up to ``n`` bytes of the body. Of a chunked body, all HTTP chunks that have arrived, if ``n`` is large.

        http.client reads one chunk at a time, in many steps. Servers send each event as a chunk of its own.
        """
        if n >= RECEIVE_BYTES and self.chunked and not self.chunk_left and self.fp is not None:
            received = self.fp.peek()  # waits only if nothing is left of what arrived
            position, pieces = 0, []
            if self.chunk_left == 0:  # http.client has read a chunk, but not the line end behind it
                position = 2 if received.startswith(b"\r\n") else len(received)
            while (head := _CHUNK_SIZE.match(received, position)) is not None:
                start = head.end()
                end = start + int(head[1], 16)
                if end == start or received[end : end + 2] != b"\r\n":
                    break  # the last of the body, or one that has not arrived whole
                pieces.append(received[start:end])
                position = end + 2
            if pieces:
                self.fp.read(position)
                self.chunk_left = None  # to http.client: the size of a chunk comes next
                return b"".join(pieces)
        data = super().read1(n)
        if n and not data and self.length:  # of the bytes that Content-Length announced, so many are missing
            raise http.client.IncompleteRead(data, self.length)
        return data
