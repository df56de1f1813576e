"""The parser of Server-Sent Events, from bytes in any pieces to events. It is built on sseclient."""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Callable

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
_JSON_DATA = re.compile(rb"data: ?\{")
_LARGE_BLOCK_BYTES = 2 * 1024  # sseclient copies a block several times
_TOO_LARGE = "An event is larger than max_event_bytes ({} bytes). Raise that limit if answers of this size are wanted."


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


def events(chunks: Iterable[bytes], max_event_bytes: int) -> Iterator[Event]:
    """The events in a byte stream. Each comes as soon as the line end that completes it has come.

    Follows the parsing rules of the HTML standard (section 9.2.6) with three differences. A last block without its
    blank line is an event if its data is one JSON value, because Google's servers sometimes leave that line out. A line
    of data begins another event if it and the only data before hold a JSON object each, because some gateways drop all
    blank lines. Bare JSON objects and arrays outside the fields become ``BareJsonEvent``, each after the event of the
    block it came in. An exception of ``chunks`` passes through, and the unfinished block is dropped.

    Raises:
        ProtocolError: an event is larger than ``max_event_bytes``.
    """
    parse = _block_parser()
    block: list[bytes] = []  # the fields since the last blank line
    bare: list[bytes] = []  # the lines of a bare JSON value with open brackets
    depth = 0  # how many brackets are open
    ready: deque[Event] = deque()  # complete events; no name refers to one, so a taken event is freed at once
    size = 0  # the bytes in these
    for line in _lines(chunks, max_event_bytes):
        if line and block and _begins_another(block, line):
            ready.extendleft(parse(block, size))
            block, size = [], sum(map(len, bare))
            while ready:
                yield ready.popleft()
        if not line:
            pass
        elif _FIELD.match(line):
            block.append(line)
            size += len(line)
            depth = 0
        elif line.startswith(b":"):
            depth = 0
        elif bare or _BARE_JSON.match(line):
            bare.append(line)
            size += len(line)
            outside = _JSON_STRING.sub(b"", line)
            depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
        else:
            # The standard ignores unknown fields. A trace in the log helps to find lost text.
            _log.debug("ignored a line of %d bytes that is no field of an event stream", len(line))
        if size > max_event_bytes:
            raise ProtocolError(_TOO_LARGE.format(max_event_bytes))
        if bare and depth <= 0:
            ready.extend(_parse_bare(bare))
            bare, depth = [], 0
        if line and block:
            continue
        if block:
            ready.extendleft(parse(block, size))
            block, size = [], sum(map(len, bare))
        elif not bare:
            size = 0
        while ready:
            yield ready.popleft()
    if bare:
        ready.extend(_parse_bare(bare))
    for event in parse(block, size):
        if _is_json(event.data):
            ready.appendleft(event)
        else:
            _log.warning("ignored an event of %d bytes that was cut off at the end of a stream", size)
        del event
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


def _block_parser() -> Callable[[list[bytes], int], list[Event]]:
    """A function that takes the fields of one block and their size. It returns the event, or none without data."""
    blocks: list[bytes] = []  # sseclient takes its next block from here
    parsed = _Client(iter(blocks.pop, None)).events()

    def parse(fields: list[bytes], size: int) -> list[Event]:
        if size > _LARGE_BLOCK_BYTES:
            return _parse_large(fields)
        block = b"\n".join(fields)
        if not block.startswith(b"data") and b"\ndata" not in block:
            return []  # sseclient would skip the block and ask for the next one
        if not block.isascii():
            block = block.decode("utf-8", "replace").encode()  # sseclient fails if bytes are no UTF-8
        blocks.append(block + b"\n\n")
        return [next(parsed)]

    return parse


def _begins_another(block: list[bytes], line: bytes) -> bool:
    """True if ``line`` is a JSON object, and the only data of ``block`` is one. Both together would be no JSON."""
    if len(block) > _LINES_OF_AN_OBJECT or not _JSON_DATA.match(line):
        return False
    data = [field for field in block if field.startswith(b"data")]
    return len(data) == 1 and _JSON_DATA.match(data[0]) is not None and data[0].rstrip().endswith(b"}")


def _parse_large(fields: list[bytes]) -> list[Event]:
    """The event that sseclient makes of a block, but without copies of large values."""
    kind, data = "", []
    for field in fields:
        if field.startswith(b"data"):
            data.append(str(memoryview(field)[6 if field[5:6] == b" " else 5 :], "utf-8", "replace"))
        elif field.startswith(b"event"):
            kind = field[6:].removeprefix(b" ").decode("utf-8", "replace")
    return [Event(event=kind or "message", data="\n".join(data))] if data else []  # type: ignore[call-arg]


def _parse_bare(lines: list[bytes]) -> list[Event]:
    text = b"\n".join(lines).decode("utf-8", "replace")
    if _is_json(text):
        return [BareJsonEvent(data=text)]  # type: ignore[call-arg]
    _log.warning("ignored %d characters outside the events of a stream that are no JSON", len(text))
    return []


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
