"""Reads a response as chunks: an event stream, or another body that holds the same."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from typing import Any, Optional, Union

from gemini_sync.errors import UNREADABLE_ANSWER, ApiError, ProtocolError
from gemini_sync.messages import sse
from gemini_sync.messages.api_errors import answer_error
from gemini_sync.messages.chunks import Chunk, has_content
from gemini_sync.messages.odd_events import UNDECODED, OddEvents
from gemini_sync.network.cancelling import Call
from gemini_sync.network.exchange import Answer, Exchange
from gemini_sync.network.redirects import refuse_redirect
from gemini_sync.redaction import redacted_excerpt, redacted_name
from gemini_sync.secret import Secret

_HEAD_BYTES = len("retry:")  # what tells an event stream from another body
_STREAM_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:(?:data|event|id|retry)(?:[:\r\n]|$)|[:{\[])")
# What a stream may bring besides chunks. A line or an event counts once, and once more for each 4 KiB of it.
_SKIPS_AT_ONCE, _SKIPS_FOR_A_SECOND, _SKIPS_FOR_A_CHUNK = 10_000, 1000, 16
_BYTES_FOR_A_SKIP, _SKIPS_FOR_A_LOOK = 4096, 100
_BODY_SECONDS, _BODY_BYTES = 5.0, 2**16  # what is read of a body that is no stream
_decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # json.loads costs half as much again

_log = logging.getLogger(__name__)
#: Takes the response in a chunk that has thought signatures.
Learn = Callable[[Mapping[str, Any]], None]


def chunks_of(
    exchange: Exchange, max_event_bytes: int, envelope: Optional[str], learn: Optional[Learn]
) -> Generator[Chunk, None, None]:
    """The chunks of a response, which is closed at the end.

    A suspended generator keeps its local variables alive, so it has no name for a large value at a ``yield``.
    """
    received = exchange.chunks()
    try:
        head, body = _stream_body(exchange, received)
        call, reader = exchange.call, _EventReader(envelope, exchange.call.secrets)
        has_total, skips = call.timeouts.total is not None, _Skips(call, reader)
        for event in sse.events(body, max_event_bytes, skips.add):
            chunks = reader.read(event)
            if type(chunks) is not tuple:  # the event was odd
                skips.add_event(event, chunks)
            signed = learn is not None and '"thoughtSignature"' in event.data  # few events are, so no other is searched
            del event
            for chunk in chunks:
                if signed and learn is not None:
                    learn(chunk.raw)
                yield chunk
                del chunk
                call.got_chunk, head = True, b""
                if call.cancelled or has_total:  # all other chunks may have arrived, so that no read would notice
                    call.check_total()
            del chunks
        if reader.odd is not None:
            yield from reader.odd.end()
        if head:
            raise error_of(_answer_of(exchange, head), "text/event-stream", call)
    finally:
        try:
            received.close()  # not left to the garbage collector, in which Python loses a Ctrl-C
        finally:
            exchange.close()


class _EventReader:
    """Makes the chunks of the events of one stream. Most events hold one chunk with one text; all others are odd."""

    def __init__(self, envelope: Optional[str], secrets: Collection[str]) -> None:
        self._envelope, self._secrets = envelope, secrets
        self.position, self._finished = 0, False  # the number of events so far
        self.odd: Optional[OddEvents] = None

    def read(self, event: sse.Event) -> Iterable[Chunk]:
        """The chunks in the next event."""
        self.position += 1
        envelope, data = self._envelope, event.data
        decoded: Any = UNDECODED
        try:
            value, end = _decode(data, 0)
            if end == len(data):  # else there is white space around the value, or more
                decoded = value
            raw = value if envelope is None else value[envelope]
            candidate = raw["candidates"][0]
            (part,) = candidate["content"]["parts"]
            text = part["text"]
            if not text.isascii() and "\\" in data:
                text.encode()  # fails if the text holds half a character, which only an escape can write
            usual = end == len(data) and "error" not in value and "error" not in raw
            if not text and "finishReason" not in candidate:
                usual = False  # a flood may be made of these
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, StopIteration):
            usual = False
        if usual and type(event) is not sse.BareJsonEvent:
            self._finished = self._finished or "finishReason" in candidate
            if self.odd is None or not self.odd.halves.waiting:
                return (Chunk(raw, None if envelope is None else value),)
        self.odd = self.odd or OddEvents(envelope, self._secrets)
        return self.odd.read(event, decoded, self.position, self._finished)


class _Skips:
    """Counts what a stream brings besides chunks, and ends a stream that brings little else.

    Comments keep a stream alive for hours, and some gateways pad each event. So the allowance grows with the seconds of
    the stream, and a little with each chunk. A flood passes every deadline between two receives, because a few
    compressed bytes can stand for millions of lines.
    """

    def __init__(self, call: Call, reader: _EventReader) -> None:
        self._call, self._reader = call, reader
        self._began = call.clock()
        self._count = self._events = 0
        self._next_look = _SKIPS_FOR_A_LOOK

    def add_event(self, event: sse.Event, chunks: Iterable[Chunk]) -> None:
        """Count ``event`` if it made no chunks, or one in which there is nothing to see."""
        if isinstance(chunks, list) and not any(has_content(chunk, thoughts=True) for chunk in chunks):
            self._events += 1
            self.add(0 if chunks else len(event.data))

    def add(self, size: int) -> None:
        """Count something of ``size`` bytes. Raises ``ProtocolError`` if it is too much, and like ``Call.check``."""
        self._count += 1 + size // _BYTES_FOR_A_SKIP
        if self._count < self._next_look:
            return
        call, chunks = self._call, self._reader.position - self._events
        self._next_look = self._count + _SKIPS_FOR_A_LOOK
        call.begin_read()
        call.check()
        seconds = max(0.0, call.clock() - self._began)
        if self._count > _SKIPS_AT_ONCE + _SKIPS_FOR_A_SECOND * seconds + _SKIPS_FOR_A_CHUNK * chunks:
            raise ProtocolError(
                f"The stream is a flood of nothing: expected events with chunks, came {self._count} comments, blank "
                f"lines and empty events beside {chunks} chunks within {seconds:.0f} s. Check the endpoint and proxies."
            )


def _stream_body(exchange: Exchange, chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The body of a response that is a stream. If only its first bytes tell that, they are the first value.

    Raises the error of another response, with a bounded part of its body.
    """
    if not 200 <= exchange.status < 300:
        refuse_redirect(exchange.status, exchange.headers, exchange.call.secrets)
        raise error_of(exchange.answer(), "text/event-stream", exchange.call)
    came = _content_type(exchange.headers)
    if came == "text/event-stream":
        return b"", chunks
    # Some gateways drop the content type, or change it, or send an array of chunks because they drop alt=sse.
    head = b""
    for piece in chunks:
        head += piece
        if len(head.lstrip()) >= _HEAD_BYTES or len(head) > _BODY_BYTES:
            break
    if _STREAM_BEGINS.match(head):
        came = redacted_name(came, exchange.call.secrets) or "no content type"
        _log.warning("a stream came as %s instead of text/event-stream", came)
        return head, itertools.chain([head], chunks)
    call, left = exchange.call, exchange.call.remaining()
    with call.bounded(_BODY_SECONDS if left is None else min(_BODY_SECONDS, left), "The body of the answer"):
        call.enter_answer()
        for piece in chunks:
            head += piece
            if len(head) > _BODY_BYTES:
                break
    raise error_of(_answer_of(exchange, head), "text/event-stream", call)


def _answer_of(exchange: Exchange, body: bytes) -> Answer:
    return Answer(exchange.status, exchange.headers, Secret(body.decode("utf-8-sig", "replace")))


def _content_type(headers: Mapping[str, str]) -> str:
    first = (headers.get("Content-Type") or "").partition(",")[0]  # some gateways send the header twice
    return first.partition(";")[0].strip().lower()


def error_of(answer: Answer, expected: str, call: Call) -> Union[ApiError, ProtocolError]:
    """The error of an answer that is not ``expected``."""
    error = answer_error(answer.status, answer.headers, answer.text, call.secrets)
    if error is not None:
        return error
    came = _content_type(answer.headers) or "no content type"
    # Text and broken JSON may come from a proxy that fails briefly. Another kind of body would come each time.
    may_pass = came == "no content type" or came.startswith("text/") or "json" in came or "xhtml" in came
    return ProtocolError(
        f"Expected {expected}, came status {answer.status} with {redacted_name(came, call.secrets)}: "
        f"{redacted_excerpt(answer.text, call.secrets)!r}. A proxy or login page may have answered instead.",
        code=answer.status,
        reason=None if may_pass or answer.status >= 300 else UNREADABLE_ANSWER,
    )
