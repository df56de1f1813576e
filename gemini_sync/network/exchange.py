"""Knows responses: bodies as bytes, small answers whole, foreign errors mapped; knows no session and no Gemini."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Optional

import requests

from gemini_sync.errors import DeadlineExceeded, ProtocolError, TransportError, cancelled_error
from gemini_sync.network.connection import reader
from gemini_sync.network.deadlines import Call
from gemini_sync.network.error_mapping import FOREIGN, map_error
from gemini_sync.redaction import redact_text

_ERROR_BODY_BYTES = 2**20
_ERROR_BODY_SECONDS = 5.0
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # which of them, their first bytes tell


class Answer:
    """A response read to its (bounded) end: ``status``, ``headers``, ``text``."""

    def __init__(self, status: int, headers: Mapping[str, str], text: str) -> None:
        self.status, self.headers, self.text = status, headers, text


class Exchange:
    """One response whose headers are there; whoever holds it closes it.

    Args:
        release: called once, in the end: whether the session can serve another call.
    """

    def __init__(self, call: Call, response: requests.Response, release: Callable[[bool], None]) -> None:
        self.call = call
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = response.url
        self._response, self._release = response, release
        self._open = True

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self, *, reusable: bool = False) -> None:
        """Release the connection: kept for the next call if ``reusable``, else closed. Idempotent."""
        if self._open:
            self._open = False
            self.call.detach()
            if self._response.raw is not None:
                self._response.close()
            self._release(reusable)

    def chunks(self) -> Iterator[bytes]:
        """The body, each piece as soon as it is there; closes the exchange at its end, whatever that is.

        Raises:
            TransportError: the connection broke, or a deadline passed (``DeadlineExceeded``).
            StreamInterrupted: the call was cancelled.
            ProtocolError: the content encoding is unknown or the compressed body was cut off.
        """
        call = self.call
        try:
            content = getattr(self._response, "_content", False)
            if content is not False:  # a hook of the session's has read it, or a test's adapter has made it up
                yield self._response.content
                self.close(reusable=True)
                return
            read = reader(self._response.raw)
            decompress = _decompressor(self.headers.get("Content-Encoding"), call.secrets)
            while True:
                if not call.attached:  # else the connection does it
                    call.begin_read()
                    call.check()
                data = read()
                if not data:
                    break
                if decompress is not None:
                    data = decompress(data)
                yield data
            if call.cancelled:  # a socket shut down under the reader looks like a clean end
                raise cancelled_error()
            if decompress is not None:
                decompress(b"")
            self.close(reusable=True)
        except FOREIGN as exc:
            raise map_error(exc, call, self.url) from exc
        finally:
            self.close()

    def answer(self, seconds: float = _ERROR_BODY_SECONDS, what: str = "The body of the answer") -> Answer:
        """The body as text, at most 1 MiB and ``seconds`` of it; what could not be read is left out."""
        left = self.call.remaining()
        with self.call.bounded(seconds if left is None else min(seconds, left), what):
            self.call.enter_answer()
            return Answer(self.status, self.headers, self._read_text())

    def _read_text(self) -> str:
        data = bytearray()
        chunks = self.chunks()
        try:
            for chunk in chunks:
                data += chunk
                if len(data) > _ERROR_BODY_BYTES:
                    break
        except (DeadlineExceeded, ProtocolError, TransportError) as exc:
            if self.status == 200 or (isinstance(exc, DeadlineExceeded) and exc.deadline == "total"):
                raise
        finally:
            chunks.close()  # type: ignore[attr-defined]
        return bytes(data[:_ERROR_BODY_BYTES]).decode("utf-8-sig", "replace")


def _decompressor(encoding: Optional[str], secrets: Collection[str]) -> Optional[Callable[[bytes], bytes]]:
    """For a server that compresses although identity was asked for; unlike urllib3's it notices a cut-off end."""
    if encoding is None or encoding.strip().lower() in ("", "identity"):
        return None
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise ProtocolError(f"Expected an uncompressed body, came Content-Encoding {redact_text(encoding, secrets)!r}.")
    state = zlib.decompressobj(_GZIP_OR_ZLIB)

    def decompress(data: bytes) -> bytes:
        nonlocal state
        if not data and not state.eof:
            raise ProtocolError("The compressed body ended before its end marker: it was cut off.")
        pieces = []
        while data:
            if state.eof:
                if not data.strip(b"\0"):
                    break  # padding, as gzip's own tools pass over
                state = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                pieces.append(state.decompress(data))
            except zlib.error as exc:
                raise ProtocolError(f"The compressed body is damaged: {exc}.") from exc
            data = state.unused_data
        return b"".join(pieces)

    return decompress
