"""Responses whose body arrives segment by segment, for ``responses``."""

from __future__ import annotations

import builtins
import errno
import http.client
import io
import socket
import ssl
import time
from collections.abc import Generator
from typing import Any, Callable, Optional

import requests.exceptions
from responses import BaseResponse
from urllib3 import HTTPHeaderDict, HTTPResponse

from gemini_sync.testing.cassette.values import COMPLETE, CUT, RESET, TIMEOUT, Body, Failure, Response

Sleep = Callable[[float], object]


class ReplayError(AssertionError):
    """A recording cannot answer. It is no network error, so that no client takes it for one and tries again."""


class SegmentedFile(io.RawIOBase):
    """The file that urllib3 reads a body from. Each read gives one segment at most; at its end the body breaks or ends.

    Args:
        pace: 1 waits as long before each segment as the recorded server did, 0.5 half as long, 0 not at all.
        sleep: waits, so that tests need not.
    """

    def __init__(self, body: Body, *, pace: float = 0, sleep: Sleep = time.sleep) -> None:
        self._left = list(zip(body.segments, body.delays or (0.0,) * len(body.segments)))[::-1]
        self._end, self._pace, self._sleep = body.end, pace, sleep
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        if not self._rest and self._left:
            self._rest, delay = self._left.pop()
            if self._pace and delay:
                self._sleep(delay * self._pace)
        if not self._rest:
            self._finish()
        size = len(self._rest) if size < 0 else size
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def read(self, size: Optional[int] = -1) -> bytes:
        if size is not None and size >= 0:
            return self.read1(size)
        return b"".join(iter(self.read1, b""))

    def readinto(self, buffer: Any) -> int:
        data = self.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _finish(self) -> None:
        self.close()  # some readers of urllib3 go on until the file is closed, which http.client does at its end
        if self._end == CUT:
            raise http.client.IncompleteRead(b"")
        if self._end == RESET:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        if self._end == TIMEOUT:
            raise socket.timeout("timed out")
        if self._end != COMPLETE:
            raise ReplayError(
                "The recording ends here, because its reader stopped at this point. This reader went on: record it "
                "again with code that reads to the end."
            )


class SegmentedResponse(HTTPResponse):
    """A response of urllib3 that also streams segment by segment: urllib3 itself does so for chunked sockets only."""

    def stream(self, amt: Optional[int] = 2**16, decode_content: Optional[bool] = None) -> Generator[bytes, None, None]:
        while data := self.read1(amt, decode_content=decode_content):
            yield data


def make_response(
    response: Response, *, pace: float = 0, sleep: Sleep = time.sleep, method: Optional[str] = None
) -> SegmentedResponse:
    """What urllib3 gives an adapter of requests, made of a recorded response."""
    headers = HTTPHeaderDict(response.headers)
    closed = io.BytesIO()
    closed.close()
    return SegmentedResponse(
        body=SegmentedFile(response.body, pace=pace, sleep=sleep),
        headers=headers,
        status=response.status,
        reason=http.client.responses.get(response.status),
        # requests looks here for cookies, as it does for a response that http.client has read
        original_response=HTTPResponse(body=closed, msg=headers, preload_content=False),  # type: ignore[arg-type]
        preload_content=False,
        request_method=method,
    )


def make_error(failure: Failure) -> Exception:
    """The exception of requests that a recorded failure stands for."""
    words: Any = failure.message
    if failure.cause is not None:
        name, number = failure.cause
        found = (getattr(module, name, None) for module in (builtins, socket, ssl, http.client))
        kind: Any = next((cls for cls in found if isinstance(cls, type) and issubclass(cls, Exception)), OSError)
        words = kind(number, failure.message) if number else kind(failure.message)
        if isinstance(words, ssl.SSLCertVerificationError):
            words.verify_message = failure.message
    made: Exception = getattr(requests.exceptions, failure.kind)(words)
    return made


class StreamedResponse(BaseResponse):
    """A mock for ``RequestsMock.add`` whose body is a true stream.

    Args:
        response: the response, or the failure to get one.
        pace, sleep: as for ``SegmentedFile``.
        options: those of ``responses.BaseResponse``, such as ``match``.
    """

    def __init__(
        self,
        method: str,
        url: Any,
        response: Any,
        *,
        pace: float = 0,
        sleep: Sleep = time.sleep,
        **options: Any,
    ) -> None:
        super().__init__(method, url, **options)
        self.response, self._pace, self._sleep = response, pace, sleep
        self.status = getattr(response, "status", 0)

    def get_response(self, request: Any) -> HTTPResponse:
        if isinstance(self.response, Failure):
            raise make_error(self.response)
        return make_response(self.response, pace=self._pace, sleep=self._sleep, method=request.method)
