"""Notes the bytes of a response while its user reads it: each read, when it came, and how the body ended."""

from __future__ import annotations

import http.client
import socket
from typing import Any, Callable, Optional

from gemini_sync.testing.cassette.values import COMPLETE, CUT, RESET, TIMEOUT, UNREAD, Body

Clock = Callable[[], float]


class BodyTee:
    """What is read of one response.

    It stands between http.client and its socket file, because all readers of a response meet there: requests, urllib3
    and this package each take the body in a way of their own.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._started = clock, clock()
        self._reads: list[tuple[float, bytes]] = []
        self._dechunk: Optional[_Dechunker] = None
        self._length: Optional[int] = None
        self._has_body = True
        self._end = UNREAD

    def attach(self, response: Any) -> None:
        """Listen to a response of requests whose body nobody has read yet."""
        raw = response.raw
        original = getattr(raw, "_original_response", None)
        if isinstance(original, http.client.HTTPResponse):
            self._has_body = original.fp is not None  # it has none after HEAD, and with 204
            if original.fp is not None:
                self._dechunk = _Dechunker() if original.chunked else None
                self._length = None if original.chunked else original.length
                original.fp = _FileTee(original.fp, self)  # type: ignore[assignment]
        elif getattr(raw, "_fp", None) is not None:  # a response that a mock or another tool has made
            raw._fp = _FileTee(raw._fp, self)
        elif raw is not None:
            response.raw = _FileTee(raw, self)
        else:
            self._has_body = False

    def note(self, data: bytes) -> None:
        self._reads.append((self._clock(), data))

    def note_end(self) -> None:
        self._end = COMPLETE

    def note_error(self, exc: BaseException) -> None:
        if isinstance(exc, socket.timeout):
            self._end = TIMEOUT
        elif isinstance(exc, OSError):
            self._end = RESET
        elif isinstance(exc, http.client.HTTPException):
            self._end = CUT

    def body(self) -> Body:
        """What was read so far."""
        segments, delays, before = [], [], self._started
        for at, data in self._reads:
            decoded = data if self._dechunk is None else self._dechunk.feed(data)
            if decoded:
                segments.append(decoded)
                delays.append(max(0.0, at - before))
                before = at
        self._reads = []
        return Body(tuple(segments), tuple(delays), self._end_of(sum(map(len, segments))))

    def _end_of(self, received: int) -> str:
        if self._dechunk is not None:
            done: Optional[bool] = self._dechunk.is_done
        else:
            done = None if self._length is None else received >= self._length
        if not self._has_body or done:
            return COMPLETE
        return CUT if self._end == COMPLETE and done is False else self._end


class _FileTee:
    """A file that tells a ``BodyTee`` what each read brought."""

    def __init__(self, file: Any, tee: BodyTee) -> None:
        self._file, self._tee = file, tee

    def read(self, *size: Any) -> Any:
        data = self._noted(self._file.read, *size)
        if size in ((), (None,), (-1,)):
            self._tee.note_end()
        return data

    def read1(self, *size: Any) -> Any:
        return self._noted(getattr(self._file, "read1", self._file.read), *size)

    def readline(self, *size: Any) -> Any:
        return self._noted(self._file.readline, *size)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def peek(self, *size: Any) -> Any:
        try:
            return self._file.peek(*size)
        except BaseException as exc:
            self._tee.note_error(exc)
            raise

    def _noted(self, read: Callable[..., Any], *arguments: Any) -> Any:
        try:
            data = read(*arguments)
        except BaseException as exc:
            self._tee.note_error(exc)
            raise
        if data:
            self._tee.note(bytes(data))
        elif arguments[:1] != (0,):
            self._tee.note_end()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Dechunker:
    """Takes the chunk sizes out of a chunked body (RFC 9112 section 7.1), however it is cut into reads."""

    def __init__(self) -> None:
        self._left = 0  # of the current chunk
        self._line = b""  # the part that has come of a line that is no data
        self._ends_chunk = self._is_trailer = False  # what the line is; else it is the size of a chunk
        self.is_done = False

    def feed(self, data: bytes) -> bytes:
        pieces, start = [], 0
        while start < len(data) and not self.is_done:
            if self._left:
                piece = data[start : start + self._left]
                pieces.append(piece)
                start += len(piece)
                self._left -= len(piece)
                self._ends_chunk = not self._left
                continue
            end = data.find(b"\n", start) + 1 or len(data)
            self._line += data[start:end]
            start = end
            if self._line.endswith(b"\n"):
                line, self._line = self._line.strip(), b""
                self._take(line)
        return b"".join(pieces)

    def _take(self, line: bytes) -> None:
        if self._is_trailer:
            self.is_done = not line
        elif self._ends_chunk:
            self._ends_chunk = False
        else:
            self._left = int(line.partition(b";")[0] or b"0", 16)
            self._is_trailer = not self._left
