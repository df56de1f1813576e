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
from gemini_sync.messages.chunk import Chunk
from gemini_sync.messages.odd_events import UNDECODED, OddEvents
from gemini_sync.network.cancelling import Call
from gemini_sync.network.exchange import Answer, Exchange
from gemini_sync.network.redirects import refuse_redirect
from gemini_sync.redaction import redacted_excerpt

_HEAD_BYTES = len("retry:")  # what tells an event stream from another body
_STREAM_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:(?:data|event|id|retry)(?:[:\r\n]|$)|[:{\[])")
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
    try:
        head, body = _stream_body(exchange)
        call, reader = exchange.call, _EventReader(envelope, exchange.call.secrets)
        has_total = call.timeouts.total is not None
        for event in sse.events(body, max_event_bytes):
            chunks = reader.read(event)
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
        exchange.close()


class _EventReader:
    """Makes the chunks of the events of one stream. Most events hold one chunk with one text; all others are odd."""

    def __init__(self, envelope: Optional[str], secrets: Collection[str]) -> None:
        self._envelope, self._secrets = envelope, secrets
        self._position, self._finished = 0, False
        self.odd: Optional[OddEvents] = None

    def read(self, event: sse.Event) -> Iterable[Chunk]:
        """The chunks in the next event."""
        self._position += 1
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
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, StopIteration):
            usual = False
        if usual and type(event) is not sse.BareJsonEvent:
            self._finished = self._finished or "finishReason" in candidate
            if self.odd is None or not self.odd.halves.waiting:
                return (Chunk(raw, None if envelope is None else value),)
        self.odd = self.odd or OddEvents(envelope, self._secrets)
        return self.odd.read(event, decoded, self._position, self._finished)


def _stream_body(exchange: Exchange) -> tuple[bytes, Iterator[bytes]]:
    """The body of a response that is a stream. If only its first bytes tell that, they are the first value.

    Raises the error of another response, with a bounded part of its body.
    """
    if not 200 <= exchange.status < 300:
        refuse_redirect(exchange.status, exchange.headers)
        raise error_of(exchange.answer(), "text/event-stream", exchange.call)
    chunks, came = exchange.chunks(), _content_type(exchange.headers)
    if came == "text/event-stream":
        return b"", chunks
    # Some gateways drop the content type, or change it, or send an array of chunks because they drop alt=sse.
    head = b""
    for piece in chunks:
        head += piece
        if len(head.lstrip()) >= _HEAD_BYTES:
            break
    if _STREAM_BEGINS.match(head):
        _log.warning("a stream came as %s instead of text/event-stream", came or "no content type")
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
    return Answer(exchange.status, exchange.headers, body.decode("utf-8-sig", "replace"))


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
        f"Expected {expected}, came status {answer.status} with {came}: "
        f"{redacted_excerpt(answer.text, call.secrets)!r}. A proxy or login page may have answered instead.",
        code=answer.status,
        reason=None if may_pass or answer.status >= 300 else UNREADABLE_ANSWER,
    )
