"""Writes the YAML of a cassette.

PyYAML's own writer shows long texts and emojis in escapes, and takes a second for each megabyte.
"""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from gemini_sync.testing.cassette.body_text import is_block, to_parts
from gemini_sync.testing.cassette.values import (
    COMPLETE,
    END_LINE,
    VERSION,
    Cassette,
    Exchange,
    Failure,
    Request,
    Response,
    split_events,
)

HEAD = "# Recorded responses for gemini_sync.testing.replay. Secrets are replaced by names in capitals."

_PLAIN = re.compile(r"[A-Za-z/][\w./:;?=&%@+~$()*,<> -]*", re.ASCII)
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}  # to YAML 1.1 these are no texts
_UNSAFE_QUOTED = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")
_COLUMNS = 100


def dumps(cassette: Cassette) -> str:
    """The text of a cassette file."""
    lines = [HEAD, f"gemini_sync_cassette: {VERSION}", "exchanges:" if cassette.exchanges else "exchanges: []"]
    for exchange in cassette.exchanges:
        lines += _exchange(exchange)
    return "\n".join([*lines, END_LINE, ""])


def _exchange(exchange: Exchange) -> Iterator[str]:
    yield "- request:"
    yield from _indented(_request(exchange.request), 4)
    if isinstance(exchange.response, Failure):
        yield "  failure:"
        yield from _indented(_failure(exchange.response), 4)
    else:
        yield "  response:"
        yield from _indented(_response(exchange.response), 4)


def _request(request: Request) -> Iterator[str]:
    yield f"method: {scalar(request.method)}"
    yield f"url: {scalar(request.url)}"
    yield from _headers(request.headers)
    if request.body is None:
        yield "body: null  # not known"
    elif request.body:
        yield from _body(request.body)


def _response(response: Response) -> Iterator[str]:
    yield f"status: {response.status}"
    yield from _headers(response.headers)
    body = response.body
    if body.segments:
        yield from _body(body.data)
    if body.segments != split_events(body.data):
        yield from _numbers("segments", map(str, body.sizes))
    if body.delays:
        yield from _numbers("pace", (f"{delay:.3f}".rstrip("0").rstrip(".") for delay in body.delays))
    if body.end != COMPLETE:
        yield f"end: {body.end}"


def _failure(failure: Failure) -> Iterator[str]:
    yield f"kind: {failure.kind}"
    yield f"message: {scalar(failure.message)}"
    if failure.cause is not None:
        yield f"cause: {failure.cause[0]} {failure.cause[1]}"


def _headers(headers: Mapping[str, str]) -> Iterator[str]:
    if headers:
        yield "headers:"
        yield from _indented((f"{scalar(name)}: {scalar(value)}" for name, value in headers.items()), 2)


def _body(data: bytes) -> Iterator[str]:
    parts = to_parts(data)
    yield "body:"
    mark = "- " if len(parts) > 1 else ""
    for name, text in parts:
        yield f"  {mark}{name}: {_block_head(text)}"
        if text:
            yield from _indented(_block_lines(text), 6 if mark else 4)


def _block_head(text: str) -> str:
    """How a YAML block begins: ``2`` if its first line has an indentation of its own, then what becomes of its end."""
    indent = "2" if text[:1] in (" ", "\t", "\n", "") else ""
    ends = len(text) - len(text.rstrip("\n"))
    return f"|{indent}" + ("-" if not ends else "" if ends == 1 and text != "\n" else "+")


def _block_lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n")


def _numbers(name: str, numbers: Iterable[str]) -> Iterator[str]:
    """Numbers on as many lines as they need; ``0.1x3`` stands for three times 0.1."""
    runs = [(number, len(list(group))) for number, group in itertools.groupby(numbers)]
    text = " ".join(number if count == 1 else f"{number}x{count}" for number, count in runs)
    yield f"{name}: >-"
    yield from _indented(textwrap.wrap(text, _COLUMNS), 2)


def _indented(lines: Iterable[str], columns: int) -> Iterator[str]:
    indent = " " * columns
    return (indent + line if line else line for line in lines)


def scalar(value: object) -> str:
    """A value in one line: as it is if YAML reads it as a text, else in quotes."""
    text = str(value)
    plain = _PLAIN.fullmatch(text) and ": " not in text and " #" not in text and text[-1] not in ": "
    if plain and text.lower() not in _WORDS and is_block(text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNSAFE_QUOTED.sub(lambda found: f"\\u{ord(found.group()):04x}", quoted)
