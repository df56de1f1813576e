"""One response: its body as bytes while they arrive, or a small answer as a whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, Optional

import requests
from urllib3.response import BaseHTTPResponse

from gemini_sync.errors import DeadlineExceeded, ProtocolError, TransportError, cancelled_error
from gemini_sync.network.cancelling import Call
from gemini_sync.network.error_mapping import LIBRARY_ERRORS, map_error
from gemini_sync.network.receiving import RECEIVE_BYTES, DeadlineResponse
from gemini_sync.redaction import redact_text

_ERROR_BODY_BYTES = 2**20
_ERROR_BODY_SECONDS = 5.0
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # zlib recognises either by its first bytes


class Answer:
    """A response that was read to its end or its limit: ``status``, ``headers``, ``text``."""

    def __init__(self, status: int, headers: Mapping[str, str], text: str) -> None:
        self.status, self.headers, self.text = status, headers, text


class Exchange:
    """One response whose headers are there; its user closes it.

    Args:
        release: called once, when the exchange is closed; True if the session can serve another call.
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
        """Keep the connection for the next call if ``reusable``, else close it. Idempotent."""
        if self._open:
            self._open = False
            self.call.detach()
            raw = self._response.raw
            if reusable and isinstance(raw, BaseHTTPResponse):
                raw.release_conn()  # back to its pool, or else the next line would close it
            if raw is not None:
                self._response.close()
            self._release(reusable)

    def chunks(self) -> Iterator[bytes]:
        """The body, each piece as soon as it arrives; the exchange is closed at the end and after an error.

        Raises:
            TransportError: the connection broke, or a deadline passed (``DeadlineExceeded``).
            StreamInterrupted: the call was cancelled.
            ProtocolError: the content encoding is unknown or the compressed body was cut off.
        """
        call, response = self.call, self._response
        try:
            if getattr(response, "_content", False) is not False:
                yield response.content  # a hook of the session has read it, or an adapter for tests has made it up
            else:
                decompress = _decompressor(self.headers.get("Content-Encoding"), call.secrets)
                for data in iter(_body_reader(response.raw, call), b""):
                    yield data if decompress is None else decompress(data)
                if call.cancelled:  # cancel() shut the socket down, which to the reader looks like a clean end
                    raise cancelled_error()
                if decompress is not None:
                    decompress(b"")
            self.close(reusable=True)
        except LIBRARY_ERRORS as exc:
            raise map_error(exc, call, self.url) from exc
        finally:
            self.close()

    def answer(self, seconds: float = _ERROR_BODY_SECONDS) -> Answer:
        """The body as text: the first MiB of it, and what arrives within ``seconds``."""
        left = self.call.remaining()
        if left is not None and left <= seconds:  # the error must name the deadline that is over first
            return Answer(self.status, self.headers, self._read_text())
        with self.call.bounded(seconds, "The body of the answer"):
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


def _body_reader(raw: Any, call: Call) -> Callable[[], bytes]:
    """A function that reads the next bytes of a body, still compressed, and gives ``b""`` at its end."""
    response = getattr(raw, "_original_response", None)
    if isinstance(response, DeadlineResponse):
        read: Callable[[], bytes] = partial(
            response.read1, RECEIVE_BYTES
        )  # urllib3 around it costs 14 us for each read
    elif isinstance(raw, BaseHTTPResponse):
        read = partial(raw.read1, RECEIVE_BYTES, decode_content=False)
    elif raw is None:
        read = bytes
    else:
        read = partial(getattr(raw, "read1", None) or raw.read, RECEIVE_BYTES)  # a file, from an adapter for tests
    if call.socket is not None:  # a connection of ours, which keeps the deadlines at each receive
        return read

    def read_in_time() -> bytes:
        call.begin_read()
        call.check()
        return read()

    return read_in_time


def _decompressor(encoding: Optional[str], secrets: Collection[str]) -> Optional[Callable[[bytes], bytes]]:
    """A function for a body that is compressed although we asked for none of it; ``b""`` says that the body ended.

    Unlike urllib3 it raises if the body was cut off before its end marker.
    """
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
                    break  # padding, which the gzip command ignores as well
                state = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                pieces.append(state.decompress(data))
            except zlib.error as exc:
                raise ProtocolError(f"The compressed body is damaged: {exc}.") from exc
            data = state.unused_data
        return b"".join(pieces)

    return decompress
