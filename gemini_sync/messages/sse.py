"""Knows Server-Sent Events: bytes in any segmentation to events, sseclient inside; knows nothing of what they carry."""

from __future__ import annotations

import codecs
import json
import logging
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Optional, Union

import sseclient

from gemini_sync.errors import ProtocolError

# At DEBUG sseclient formats a line for each event, which costs more than parsing it.
logging.getLogger(sseclient.__name__).setLevel(logging.INFO)
_log = logging.getLogger(__name__)

Event = sseclient.Event

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"[\r\n]")
_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n")
_FIELD = re.compile(rb"(?:data|event|id|retry)(?::|$)|:")
_JSON_STRING = re.compile(
    rb'"(?:[^"\\]+|\\.?)*"?'
)  # also one that is not closed: a match never fails, so none is tried twice
_LARGE_BLOCK_BYTES = 2 * 1024  # sseclient copies a block nine times
_STAND_IN = b"data:\n\n"


class ForeignEvent(Event):
    """Lines between the events that are no SSE but JSON: how servers report an error outside the protocol."""


def events(chunks: Iterable[bytes], max_event_bytes: int) -> Iterator[Event]:
    """The events in a byte stream, each as soon as the line end that completes it is there.

    Follows the parsing rules of the HTML standard (section 9.2.6) with two differences: a last block without its blank
    line is an event when its data is one JSON value (Google's servers leave that line out at times), and bare JSON
    objects or arrays outside the fields come out as ``ForeignEvent``. An exception of ``chunks`` passes through, and
    the unfinished block is dropped then.

    Raises:
        ProtocolError: an event is larger than ``max_event_bytes``.
    """
    framer = _Framer(chunks, max_event_bytes)
    for event in sseclient.SSEClient(framer).events():  # type: ignore[arg-type]  # any iterable of bytes will do
        if framer.instead is None:
            yield event
        else:
            yield framer.take()  # named nowhere here: a waiting generator must not keep a large event alive


class _Framer:
    """Hands sseclient complete blocks only, one at a time, in the one form it reads without loss.

    What must go round sseclient (large blocks: it copies each seven times; foreign lines) waits in ``instead``, and an
    empty event takes its place in the order.
    """

    def __init__(self, chunks: Iterable[bytes], max_event_bytes: int) -> None:
        self.instead: Optional[Event] = None
        self._chunks = chunks
        self._max_event_bytes = max_event_bytes
        self._line: list[bytes] = []  # pieces of the line whose end has not come
        # Lines of the block whose blank line has not come; of a large data line, its value, decoded already.
        self._block: list[Union[bytes, str]] = []
        self._foreign: list[bytes] = []  # lines of a JSON value outside the fields, while brackets are open
        self._depth = 0  # how many are
        self._foreign_bytes = 0
        self._complete_foreign: list[bytes] = []  # such values that wait for the block they came in
        self._held = 0  # bytes in all of these
        self._skip_newline = False  # the last byte was a CR: an LF that follows belongs to it

    def __iter__(self) -> Iterator[bytes]:
        for chunk in _without_bom(self._chunks):
            if self._is_within():
                # Only up to the next blank line: a burst must not go on in this lane because one read ended in it.
                blank = _BLANK_LINE.search(chunk) if b"\n" in chunk else None
                end = blank.end() if blank else len(chunk)
                yield from self._feed(chunk[:end])
                chunk = chunk[end:]
            if not self._is_within():
                begin = start = 0
                for end, stop in _plain_blocks(chunk, self._max_event_bytes):
                    if end - start > _LARGE_BLOCK_BYTES:
                        yield from self._pass(chunk[begin:start])
                        value = chunk[start + (6 if chunk[start + 5 : start + 6] == b" " else 5) : end]
                        self.instead = Event(data=value.decode("utf-8", "replace"))  # type: ignore[call-arg]
                        del value
                        yield _STAND_IN
                        begin = stop
                    start = stop
                yield from self._pass(chunk[begin:start])
                chunk = chunk[start:]
            if chunk:
                yield from self._feed(chunk)
            del chunk
        yield from self._end()

    def _pass(self, blocks: bytes) -> Iterator[bytes]:
        """Complete blocks, as they are where sseclient can decode them."""
        if _is_utf8(blocks):
            yield blocks
        else:
            yield from self._feed(blocks)

    def _is_within(self) -> bool:
        """True while something has begun whose end has not come."""
        return bool(self._line or self._block or self._foreign or self._skip_newline)

    def take(self) -> Event:
        """The event that waits in ``instead``."""
        event, self.instead = self.instead, None
        assert event is not None
        return event

    def _feed(self, chunk: bytes) -> Iterator[bytes]:
        """The blocks that ``chunk`` completes, by the rules in full."""
        if self._skip_newline and chunk:
            self._skip_newline = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        if b"\n" not in chunk and b"\r" not in chunk:
            self._hold(self._line, chunk)
            return
        line = self._end_line(chunk) if self._line else None
        if line is not None:
            chunk = chunk[_LINE_END.search(chunk).start() :]  # type: ignore[union-attr]
        lines: list[bytes] = chunk.splitlines(True)
        self._skip_newline = chunk.endswith(b"\r")
        del chunk
        unfinished = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        lines.reverse()
        if line is not None:
            lines.pop()  # the line end itself
            if isinstance(line, bytes):
                lines.append(line)
            del line
        while lines:
            yield from self._sort(lines.pop().rstrip(b"\r\n"))
        self._hold(self._line, unfinished)

    def _end_line(self, chunk: bytes) -> Union[bytes, str]:
        """The line that ``chunk`` ends; a large ``data`` line goes into the block right away.

        Joined once, decoded piece by piece: an event of many megabytes is nowhere copied as a whole.
        """
        self._hold(self._line, chunk[: _LINE_END.search(chunk).start()])  # type: ignore[union-attr]
        pieces, self._line = self._line, []
        size = sum(map(len, pieces))
        if size > _LARGE_BLOCK_BYTES and pieces[0].startswith(b"data:"):
            self._close_foreign()
            self._block.append(_decode_value(pieces))
            return self._block[-1]
        self._held -= size
        return b"".join(pieces)

    def _hold(self, where: list[Any], data: bytes) -> None:
        self._held += len(data)
        if self._held > self._max_event_bytes:
            raise ProtocolError(
                f"An event is larger than max_event_bytes ({self._max_event_bytes} bytes). "
                "Raise that limit if answers of this size are wanted."
            )
        if data:
            where.append(data)

    def _sort(self, line: bytes) -> Iterator[bytes]:
        """Sort one complete line; the blocks it completes."""
        if _FIELD.match(line):
            self._close_foreign()
            if line[:1] != b":":
                self._hold(self._block, line)
        elif self._foreign or line.lstrip()[:1] in (b"{", b"["):
            self._hold(self._foreign, line)
            self._foreign_bytes += len(line)
            bare = _JSON_STRING.sub(b"", line)
            self._depth += bare.count(b"{") + bare.count(b"[") - bare.count(b"}") - bare.count(b"]")
            if self._depth <= 0:
                self._close_foreign()
        elif line:
            # The standard ignores unknown fields; whoever looks for lost text should still find a trace.
            _log.debug("ignored a line of %d bytes that is no field of an event stream", len(line))
        if not line or not (self._block or self._foreign):
            yield from self._dispatch()

    def _close_foreign(self) -> None:
        if self._foreign:
            self._complete_foreign.append(b"\n".join(self._foreign))
            self._foreign, self._depth, self._foreign_bytes = [], 0, 0

    def _dispatch(self) -> Iterator[bytes]:
        """The block so far and the foreign values that came in it."""
        lines, self._block = self._block, []
        foreign, self._complete_foreign = self._complete_foreign, []
        self._held = self._foreign_bytes
        if str in map(type, lines) or sum(map(len, lines)) > _LARGE_BLOCK_BYTES:
            self.instead = _parse_large(lines)
            del lines
            if self.instead is not None:
                yield _STAND_IN
        elif lines:
            block = b"\n".join(lines)  # type: ignore[arg-type]
            yield (block if _is_utf8(block) else block.decode("utf-8", "replace").encode()) + b"\n\n"
        for value in foreign:
            text = value.decode("utf-8", "replace")
            if _is_json(text):
                self.instead = ForeignEvent(data=text)  # type: ignore[call-arg]
                yield _STAND_IN
            else:
                _log.warning("ignored %d characters outside the events of a stream that are no JSON", len(text))

    def _end(self) -> Iterator[bytes]:
        """What a clean end of the body leaves."""
        if self._line:
            line = b"".join(self._line)
            self._line.clear()
            self._held -= len(line)
            yield from self._sort(line)
        self._close_foreign()
        data = "\n".join(_values(self._block, b"data"))
        if not data or not _is_json(data):
            self._block = []
        yield from self._dispatch()


def _without_bom(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """``chunks`` without a byte order mark at the very beginning, which may come in pieces."""
    rest = iter(chunks)
    start = b""
    for chunk in rest:
        start += chunk
        if len(start) >= len(_BOM) or not _BOM.startswith(start):
            break
    return chain([start[len(_BOM) :] if start.startswith(_BOM) else start], rest)


def _plain_blocks(chunk: bytes, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Where the line and the block end, of each block that is what servers send nearly always: one ``data`` line.

    Ends at the first that is not, or not whole. It looks for single bytes only: those searches run at the speed of
    memory, all others a byte at a time.
    """
    crlf = b"\r" in chunk
    line_end, separator = (b"\r", b"\r\n\r\n") if crlf else (b"\n", b"\n\n")
    size, start = len(separator), 0
    while chunk.startswith(b"data:", start):
        end = chunk.find(line_end, start)
        stop = end + size
        if chunk[end:stop] != separator or end - start > max_bytes or (crlf and chunk.find(b"\n", start, end) >= 0):
            return
        yield end, stop
        start = stop


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _decode_value(pieces: list[bytes]) -> str:
    """The value of a ``data`` line; empties the list piece by piece, so that never both are there whole."""
    if len(pieces[0]) == len(b"data:"):
        pieces[:2] = [b"".join(pieces[:2])]
    pieces[0] = pieces[0][6 if pieces[0][5:6] == b" " else 5 :]
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    pieces.reverse()
    texts = []
    while pieces:
        texts.append(decode(pieces.pop(), not pieces))
    return "".join(texts)


def _values(lines: Iterable[Union[bytes, str]], field: bytes) -> Iterator[str]:
    """The values of a field, each decoded from a view: of a large one there is no further copy."""
    start = len(field) + 1
    for line in lines:
        if isinstance(line, str):
            if field == b"data":
                yield line
        elif line == field or line[:start] == field + b":":
            yield str(memoryview(line)[start + (line[start : start + 1] == b" ") :], "utf-8", "replace")


def _parse_large(lines: list[Union[bytes, str]]) -> Optional[Event]:
    """What sseclient makes of a block (event type and data), in linear time and without its copies."""
    data = list(_values(lines, b"data"))
    if not data:
        return None
    kinds = list(_values(lines, b"event"))
    lines.clear()
    value = data[0] if len(data) == 1 else "\n".join(data)
    return Event(event=kinds[-1] if kinds and kinds[-1] else "message", data=value)  # type: ignore[call-arg]
