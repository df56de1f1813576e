"""A parser of event streams that follows the HTML standard line by line. It shares no code with the tested parser."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gemini_sync.messages import sse
from gemini_sync.messages.sse import BareJsonEvent, events

MAX_EVENT_BYTES = 2**20
# Both parsers of a block, each with the limit that selects it: sseclient, and our own for large blocks.
PARSERS = {"sseclient": sse._LARGE_BLOCK_BYTES, "large": 0}


class Seen(NamedTuple):
    """One event as the tests compare it."""

    event: str
    data: str
    bare: bool = False


class Known(NamedTuple):
    """An event, and the number of bytes of the stream after which it is known."""

    seen: Seen
    after: int


def _lines(body: bytes) -> Iterator[tuple[str, int, bool]]:
    """Each line, the number of bytes after which it is known, and whether its line end has come."""
    position = 0
    for match in re.finditer(rb"([^\r\n]*)(\r\n|\r|\n)", body):
        yield match[1].decode("utf-8", "replace"), match.end(1) + 1, True
        position = match.end()
    if position < len(body):
        yield body[position:].decode("utf-8", "replace"), len(body) + 1, False


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _open_brackets(line: str) -> int:
    """How many more brackets ``line`` opens than it closes, outside of JSON strings."""
    count = position = 0
    while position < len(line):
        string = re.match(r'"([^"\\]|\\.)*"', line[position:], re.DOTALL)
        if string:
            position += string.end()
            continue
        count += {"{": 1, "[": 1, "}": -1, "]": -1}.get(line[position], 0)
        position += 1
    return count


def read_by_the_standard(stream: bytes) -> list[Known]:
    """The events of ``stream`` by the HTML standard, section 9.2.6, with three rules of this project.

    A line of data begins another event if it and the only data before hold a JSON object each. A last block without
    its blank line counts if its data is one JSON value. A JSON object or array in lines that are no fields counts too,
    without its blank lines. If it comes inside a block, it follows the event of that block.
    """
    bom = 3 if stream.startswith(b"\xef\xbb\xbf") else 0
    found: list[Known] = []
    data: list[str] = []
    bare: list[str] = []  # lines of a JSON value that is not complete
    waiting: list[str] = []  # complete values in a block that is not
    kind, fields = "", 0  # of the block

    def dispatch(after: int) -> None:
        nonlocal kind, fields
        if data:
            found.append(Known(Seen(kind or "message", "\n".join(data)), after + bom))
        found.extend(Known(Seen("message", text, bare=True), after + bom) for text in waiting if _is_json(text))
        kind, fields = "", 0
        data.clear()
        waiting.clear()

    after = 0
    for line, after, complete in _lines(stream[bom:]):
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if line.startswith(":"):
            bare.clear()
        elif name in ("data", "event", "id", "retry"):
            bare.clear()
            one_object = len(data) == 1 and fields <= 7 and re.match(r"\{.*\}[ \t\x0b\x0c]*$", data[0], re.DOTALL)
            if name == "data" and value.startswith("{") and one_object:
                dispatch(after)
            fields += 1
            if name == "data":
                data.append(value)
            elif name == "event":
                kind = value
        elif bare or line.lstrip(" \t\x0b\x0c").startswith(("{", "[")):
            bare.extend([line] if line else [])
            if sum(map(_open_brackets, bare)) <= 0:
                waiting.append("\n".join(bare))
                bare.clear()
        if complete and (not line or not fields):
            dispatch(after)
    if not _is_json("\n".join(data)):
        data.clear()
    dispatch(len(stream) + 1 - bom)
    return found


def cut(stream: bytes, at: Iterable[int]) -> list[bytes]:
    """``stream`` in the pieces that begin at the given offsets."""
    offsets = [0, *sorted(at), len(stream)]
    return [stream[start:end] for start, end in zip(offsets, offsets[1:])]


def segmentations(stream: bytes, seed: str) -> Iterator[list[bytes]]:
    """``stream`` whole, in single bytes, in pairs of bytes, and in 20 random divisions."""
    yield [stream]
    yield [stream[i : i + 1] for i in range(len(stream))]
    yield [stream[i : i + 2] for i in range(0, len(stream), 2)]
    chance = random.Random(seed)
    for _ in range(20):
        yield cut(stream, [chance.randint(0, len(stream)) for _ in range(chance.randint(0, 8))])


def read(pieces: Iterable[bytes], max_event_bytes: int = MAX_EVENT_BYTES) -> list[Known]:
    """What ``events`` makes of ``pieces``: each event, and the number of bytes that were taken before it came.

    The last piece that was taken must be the first piece that makes the event known. The end of the stream counts as
    one more byte.
    """
    taken = 0

    def feed() -> Iterator[bytes]:
        nonlocal taken
        for piece in pieces:
            taken += len(piece)
            yield piece
        taken += 1

    return [
        Known(Seen(event.event, event.data, isinstance(event, BareJsonEvent)), taken)
        for event in events(feed(), max_event_bytes)
    ]


def expected_from(pieces: list[bytes]) -> list[Known]:
    """What ``read`` must return by the standard: each event, and the end of the piece that makes it known."""
    stream = b"".join(pieces)
    ends = [sum(map(len, pieces[: number + 1])) for number in range(len(pieces))] + [len(stream) + 1]
    return [Known(seen, min(end for end in ends if end >= after)) for seen, after in read_by_the_standard(stream)]
