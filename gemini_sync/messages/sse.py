"""The parser of Server-Sent Events, from bytes in any pieces to events. It is built on sseclient."""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace

import sseclient

from gemini_sync.errors import ProtocolError

_log = logging.getLogger(__name__)

Event = sseclient.Event

_LF, _CR = 10, 13  # numbers, because `in` finds a number in bytes several times faster than it finds bytes
_FIELD = re.compile(rb"(?:data|event|id|retry)(?::|$)")
_BARE_JSON = re.compile(rb"\s*[{\[]")
# It matches an unclosed string as well. A match never fails, so a line full of quotes takes linear time.
_JSON_STRING = re.compile(rb'"(?:[^"\\]+|\\.?)*"?')
_LINES_OF_AN_OBJECT = 7  # one of each field, and the names before the next data
_MOST_WARNINGS = 100  # of one stream
_JSON_DATA = re.compile(rb"data: ?\{")
_LARGE_BLOCK_BYTES = 2 * 1024  # sseclient copies a block several times
_TOO_LARGE = "An event is larger than max_event_bytes ({} bytes). Raise that limit if answers of this size are wanted."
# Decoded, a value of two bytes may take two hundred. No answer has as many values as these two allow.
_MOST_VALUES, _BYTES_FOR_A_VALUE = 2**20, 64
_TOO_MANY = (
    "An event has more than {0} {1}, which would take far more memory than its bytes. No answer of Gemini is so: check "
    "the endpoint and proxies, or raise max_event_bytes above {0} x 64 bytes if it is wanted."
)


class BareJsonEvent(Event):
    """A JSON object or array in lines that are no fields. Servers report errors outside the protocol in this form."""


class _Client(sseclient.SSEClient):
    """sseclient's parser, for blocks that are whole.

    Its constructor asks for a logger, and a Ctrl-C at that moment could leave the lock of the logging module taken.
    """

    _char_enc = "utf-8"
    # sseclient logs each event at DEBUG. The look at the level alone costs as much as a tenth of the parsing.
    _logger = SimpleNamespace(debug=lambda *args: None)

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._event_source = blocks

    def _read(self) -> Iterator[bytes]:
        return self._event_source


def events(
    chunks: Iterable[bytes], max_event_bytes: int, skipped: Callable[[int], object] = lambda size: None
) -> Iterator[Event]:
    """The events in a byte stream. Each comes as soon as the line end that completes it has come.

    Follows the parsing rules of the HTML standard (section 9.2.6) with three differences. A last block without its
    blank line is an event if its data is one JSON value, because Google's servers sometimes leave that line out. A line
    of data begins another event if it and the only data before hold a JSON object each, because some gateways drop all
    blank lines. Bare JSON objects and arrays outside the fields become ``BareJsonEvent``, each after the event of the
    block it came in. An exception of ``chunks`` passes through, and the unfinished block is dropped.

    Args:
        skipped: called with the size of each comment, ignored or blank line, and block without data. It may raise.

    Raises:
        ProtocolError: an event is larger than ``max_event_bytes``, or has too many lines or values.
    """
    most = max(_MOST_VALUES, max_event_bytes // _BYTES_FOR_A_VALUE)
    parse, bare = _block_parser(most, skipped), _BareValue(most, skipped)
    block: list[bytes] = []  # the fields since the last blank line
    ready: deque[Event] = deque()  # complete events; no name refers to one, so a taken event is freed at once
    size = 0  # the bytes in the block, and of bare values since it began
    for line in _lines(chunks, max_event_bytes):
        if not line or (block and _begins_another(block, line, most)):
            if block:
                ready.extendleft(parse(block, size))
            else:
                skipped(0)
            block, size = [], bare.size
            while ready:
                yield ready.popleft()
            if not line:
                continue
        if _FIELD.match(line):
            block.append(line)
            size += len(line)
            if bare.size:
                ready.extend(bare.end())
        elif line.startswith(b":"):
            skipped(len(line))
            ready.extend(bare.end())
        elif bare.size or _BARE_JSON.match(line):
            size += len(line)
            ready.extend(bare.add(line))
        else:
            # The standard ignores unknown fields. A trace in the log helps to find lost text.
            _log.debug("ignored a line of %d bytes that is no field of an event stream", len(line))
            skipped(len(line))
        if size > max_event_bytes:
            raise ProtocolError(_TOO_LARGE.format(max_event_bytes))
        if not block:
            size = bare.size
            while ready:
                yield ready.popleft()
    ready.extend(bare.end())
    if block:
        ready.extendleft(filter(_is_last_event, parse(block, size)))
    block, line = [], b""  # a suspended generator would keep them in memory
    while ready:
        yield ready.popleft()


def _lines(chunks: Iterable[bytes], max_event_bytes: int) -> Iterator[bytes]:
    """The lines without their ends. Each comes as soon as the first byte of its end has come."""
    pieces: list[bytes] = []  # of the line whose end has not come
    bom = b"\xef\xbb\xbf"  # what the first line may begin with
    size = -len(bom)  # the bytes in the pieces
    after_cr = False  # a line feed that follows belongs to the same line end
    for chunk in filter(None, chunks):
        if after_cr:
            chunk = chunk.removeprefix(b"\n")
        after_cr = chunk.endswith(b"\r")
        # Search first: the search is as fast as memory, but splitlines goes byte by byte.
        lines = chunk.splitlines() if _LF in chunk or _CR in chunk else [chunk]
        rest = b"" if chunk.endswith((b"\n", b"\r")) else lines.pop()
        if lines:
            pieces.append(lines.pop(0))
            line = b"".join(pieces).removeprefix(bom)
            pieces, size, bom = [], 0, b""
            yield line
            del line  # a suspended generator would keep a large line in memory
            yield from lines
        if rest:
            pieces.append(rest)
            size += len(rest)
            if size > max_event_bytes:
                raise ProtocolError(_TOO_LARGE.format(max_event_bytes))
    if pieces:
        yield b"".join(pieces).removeprefix(bom)


def _block_parser(most: int, skipped: Callable[[int], object]) -> Callable[[list[bytes], int], list[Event]]:
    """A function that takes the fields of one block and their size. It returns the event, or none without data."""
    blocks: list[bytes] = []  # sseclient takes its next block from here
    parsed = _Client(iter(blocks.pop, None)).events()

    def skip(size: int) -> list[Event]:
        skipped(size)
        return []

    def parse(fields: list[bytes], size: int) -> list[Event]:
        if size > _LARGE_BLOCK_BYTES:
            _check_values(fields, size, most)
            return _parse_large(fields) or skip(size)
        block = b"\n".join(fields)
        if not block.startswith(b"data") and b"\ndata" not in block:
            return skip(size)  # sseclient would skip the block and ask for the next one
        if not block.isascii():
            block = block.decode("utf-8", "replace").encode()  # sseclient fails if bytes are no UTF-8
        blocks.append(block + b"\n\n")
        return [next(parsed)]

    return parse


def _begins_another(block: list[bytes], line: bytes, most: int) -> bool:
    """True if ``line`` is a JSON object, and the only data of ``block`` is one. Both together would be no JSON."""
    if len(block) > most:
        raise ProtocolError(_TOO_MANY.format(most, "lines"))
    if len(block) > _LINES_OF_AN_OBJECT or not _JSON_DATA.match(line):
        return False
    data = [field for field in block if field.startswith(b"data")]
    return len(data) == 1 and _JSON_DATA.match(data[0]) is not None and data[0].rstrip().endswith(b"}")


def _check_values(lines: Iterable[bytes], size: int, most: int) -> None:
    """Refuse JSON with more than ``most`` values before it is decoded: each begins with a bracket or a comma."""
    if size > most and sum(line.count(b"{") + line.count(b"[") + line.count(b",") for line in lines) > most:
        raise ProtocolError(_TOO_MANY.format(most, "values"))


def _parse_large(fields: list[bytes]) -> list[Event]:
    """The event that sseclient makes of a block, but without copies of large values."""
    kind, data = "", []
    for field in fields:
        if field.startswith(b"data"):
            data.append(str(memoryview(field)[6 if field[5:6] == b" " else 5 :], "utf-8", "replace"))
        elif field.startswith(b"event"):
            kind = field[6:].removeprefix(b" ").decode("utf-8", "replace")
    return [Event(event=kind or "message", data="\n".join(data))] if data else []  # type: ignore[call-arg]


class _BareValue:
    """A JSON value in lines that are no fields, until its last bracket closes. ``size`` is that of an open value."""

    def __init__(self, most: int, skipped: Callable[[int], object]) -> None:
        self.size = 0
        self._most, self._skipped = most, skipped
        self._lines: list[bytes] = []
        self._depth = 0  # how many brackets are open
        self._ignored = 0  # how many values were no JSON

    def add(self, line: bytes) -> list[Event]:
        """Take another line in. Returns the event if the value ends with it."""
        self._lines.append(line)
        self.size += len(line)
        if len(self._lines) > self._most:
            raise ProtocolError(_TOO_MANY.format(self._most, "lines"))
        outside = _JSON_STRING.sub(b"", line)
        self._depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
        return self.end() if self._depth <= 0 else []

    def end(self) -> list[Event]:
        """The event for the lines so far, or none if there are none, or if they are no JSON."""
        if not self._lines:
            return []
        _check_values(self._lines, self.size, self._most)
        text = b"\n".join(self._lines).decode("utf-8", "replace")
        size, self.size, self._lines, self._depth = self.size, 0, [], 0
        if _is_json(text):
            return [BareJsonEvent(data=text)]  # type: ignore[call-arg]
        self._ignored += 1
        if self._ignored <= _MOST_WARNINGS:
            _log.warning("ignored %d characters outside the events of a stream that are no JSON", len(text))
        self._skipped(size)
        return []


def _is_last_event(event: Event) -> bool:
    """True if the block that a stream ended in is whole, as far as its data shows."""
    if _is_json(event.data):
        return True
    _log.warning("ignored an event of %d characters that was cut off at the end of a stream", len(event.data))
    return False


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
