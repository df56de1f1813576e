"""Reads the files of other recording tools: cassettes of vcrpy, and files of the recorder of responses."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from typing import Any, Callable, Optional

from gemini_sync.testing.cassette.document import MarkedMapping, error
from gemini_sync.testing.cassette.values import Body, Cassette, Exchange, Request, Response, split_events

# The body is stored without chunk sizes, and its length may change as secrets are replaced.
FRAMING_HEADERS = frozenset({"transfer-encoding", "content-length", "connection", "keep-alive"})


def read_foreign(document: MarkedMapping, path: str) -> Cassette:
    """The exchanges in a file of another tool.

    Raises:
        CassetteError: it is of neither tool, or of another version, or has a mistake in it.
    """
    read: Optional[Callable[[Any], Exchange]] = None
    if "interactions" in document:
        items, read = document["interactions"], _interaction
        if document.get("version") != 1:
            raise error(path, document.line, f"expected version 1 of vcrpy's format, came {document.get('version')!r}")
    elif "responses" in document:
        items, read = document["responses"], _recorded_response
    if read is None:
        what = "expected a cassette of gemini_sync or vcrpy, or a file of responses' recorder, came another mapping"
        raise error(path, document.line, what)
    exchanges, line = [], document.line
    try:
        for item in items:
            line = getattr(item, "line", line)
            exchanges.append(read(item))
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        what = f"something is missing or of the wrong kind in this recording ({type(exc).__name__}: {exc})"
        raise error(path, line, what) from exc
    return Cassette(tuple(exchanges), path)


def _interaction(item: Any) -> Exchange:
    sent, came = item["request"], item["response"]
    body = came["body"]
    data = base64.b64decode(body["base64_string"]) if "base64_string" in body else _bytes(body.get("string"))
    request = Request(sent["method"], sent["uri"], _headers(sent.get("headers")), _bytes(sent.get("body")))
    response = Response(int(came["status"]["code"]), _headers(came.get("headers")), Body(split_events(data)))
    return Exchange(request, response)


def _recorded_response(item: Any) -> Exchange:
    came = item["response"]
    data = _bytes(came.get("body"))
    if isinstance(came.get("body"), str):
        with contextlib.suppress(UnicodeError):  # for a text without charset, requests reads each byte as a character
            data = came["body"].encode("latin-1").decode().encode()
    headers = _headers(came.get("headers"))
    kind = str(came.get("content_type") or "")
    if kind.startswith("text/plain") and data.startswith(b"data:"):
        kind = "text/event-stream"  # some versions of the recorder drop the type of the response
    if kind and "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = kind
    request = Request(came["method"], came["url"], {}, None)
    return Exchange(request, Response(int(came.get("status", 200)), headers, Body(split_events(data))))


def _headers(found: Optional[Mapping[str, Any]]) -> dict[str, str]:
    """Headers with one value each; vcrpy lists all values of a header."""
    headers = {}
    for name, value in (found or {}).items():
        if str(name).lower() not in FRAMING_HEADERS:
            headers[str(name)] = ", ".join(map(_text, value)) if isinstance(value, list) else _text(value)
    return headers


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, dict):  # vcrpy keeps some request bodies so
        return _bytes(value.get("string"))
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
