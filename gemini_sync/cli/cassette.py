"""The command ``cassette``, which shows, checks and scrubs recorded responses."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from typing import Any

from gemini_sync.cli.terminal import Output
from gemini_sync.errors import GeminiSyncError
from gemini_sync.messages.chunks import Chunk
from gemini_sync.redaction import one_line
from gemini_sync.testing.cassette.storing import load, locked, save
from gemini_sync.testing.cassette.values import COMPLETE, Cassette, Exchange, Failure, Request, Response, split_events
from gemini_sync.testing.matching import MATCHERS
from gemini_sync.testing.scrub.scrubber import Scrubber

_EXCERPT = 100


class SecretsFound(GeminiSyncError):
    """A cassette holds what is or looks like a secret."""


def run(options: argparse.Namespace, output: Output, error_output: Output) -> None:
    {"show": _show, "check": _check, "scrub": _scrub}[options.action](options, output)


def _show(options: argparse.Namespace, output: Output) -> None:
    cassette = load(options.file)
    output.write(f"{options.file}: {_count(len(cassette.exchanges), 'exchange')}\n")
    for number, exchange in enumerate(cassette.exchanges, 1):
        request, response = exchange.request, exchange.response
        what = " ".join(filter(None, (str(MATCHERS[name](request)) for name in ("method", "service", "model"))))
        output.write(f"\n{number}. {what}\n")
        for label, text in (("asked", _question(request)), ("answered", _answer(response))):
            if text:
                output.write(f"   {label}: {_excerpt(text)}\n")
        output.write(f"   {_facts(response)}\n")


def _facts(response: Any) -> str:
    if isinstance(response, Failure):
        return f"no response: {response.kind}: {_excerpt(response.message)}"
    body = response.body
    pieces = _count(len(split_events(body.data)), "event" if b"data:" in body.data else "part")
    facts = [f"status {response.status}", pieces, f"{len(body.data)} bytes in {_count(len(body.segments), 'segment')}"]
    facts += [f"{sum(body.delays):.1f} s"] if body.delays else []
    facts += [f"end: {body.end}"] if body.end != COMPLETE else []
    return ", ".join(facts)


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _excerpt(text: str) -> str:
    flat = one_line(text)
    return flat if len(flat) <= _EXCERPT else flat[: _EXCERPT - 1] + "…"


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _question(request: Request) -> str:
    """The text of the last content in a request."""
    decoded = _decoded(request.body or b"")
    try:
        inner = decoded.get("request", decoded)
        return "".join(part.get("text", "") for part in inner["contents"][-1]["parts"])
    except (AttributeError, KeyError, IndexError, TypeError):
        return ""


def _answer(response: Any) -> str:
    """The text of an answer, or the message of an error."""
    if isinstance(response, Failure):
        return ""
    return "".join(map(_text_in, _values(response)))


def _values(response: Response) -> Iterator[Any]:
    data = response.body.data
    for line in data.splitlines() if b"data:" in data else [data]:
        decoded = _decoded(line.removeprefix(b"data:"))
        yield from decoded if isinstance(decoded, list) else [decoded]


def _text_in(value: Any) -> str:
    try:
        inner = value.get("response", value)
        return inner["error"]["message"] if "error" in inner else Chunk(inner).text
    except (AttributeError, KeyError, IndexError, TypeError):
        return ""


def _check(options: argparse.Namespace, output: Output) -> None:
    cassette = load(options.file)
    places = list(_changes(cassette, _scrubbed(cassette)))
    for place in places:
        output.write(f"{options.file}: {place} holds what is or looks like a secret\n")
    if places:
        raise SecretsFound(f"{_count(len(places), 'place')} to scrub: gemini-sync cassette scrub {options.file}")
    output.write(f"{options.file}: {_count(len(cassette.exchanges), 'exchange')}, no secret found\n")


def _scrub(options: argparse.Namespace, output: Output) -> None:
    target = options.output or options.file
    with locked(target):
        cassette = load(options.file)
        scrubbed = _scrubbed(cassette)
        save(scrubbed, target)
    places = list(_changes(cassette, scrubbed))
    output.write(f"{target}: {_count(len(places), 'place')} scrubbed\n")
    for place in places:
        output.write(f"   {place}\n")


def _scrubbed(cassette: Cassette) -> Cassette:
    return Cassette(tuple(Scrubber((), os.environ).scrub(cassette.exchanges)), cassette.path)


def _changes(before: Cassette, after: Cassette) -> Iterator[str]:
    """The parts of exchanges that are not the same in both."""
    for number, pair in enumerate(zip(before.exchanges, after.exchanges), 1):
        old, new = (dict(_parts(exchange)) for exchange in pair)
        yield from (f"{name} {number}" for name, value in old.items() if new.get(name) != value)


def _parts(exchange: Exchange) -> Iterator[tuple[str, Any]]:
    request, response = exchange.request, exchange.response
    sides: list[tuple[str, Any]] = [("request", request), ("response", response)]
    yield "the URL of request", request.url
    yield "the body of request", request.body
    for side, value in sides:
        for name, header in getattr(value, "headers", {}).items():
            yield f"the header {name} of {side}", header
    yield "the body of response", response.message if isinstance(response, Failure) else response.body.data
