"""Knows how the tests on real sockets call the package, and the recordings they serve; knows no expectations."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Optional, Union

from gemini_sync import Endpoints, GeminiSyncError, Reply, Retry, stream_gemini_api_key, stream_gemini_oauth
from gemini_sync.testing.emulator import Emulator
from tests.support import find_corpus

AT_ONCE = Retry(backoff_base=0)
ONCE = Retry(max_attempts=1)
FRAMINGS = ("chunked", "close", "length")


def ask(server: Union[Emulator, str], route: str = "api_key", **settings: Any) -> Reply:
    """A reply of one of the plain functions, from an emulator or a URL; by default it retries without waiting."""
    url = server if isinstance(server, str) else server.url
    settings = {"endpoints": Endpoints(gemini=url, code_assist=url), "retry": AT_ONCE, **settings}
    if route == "oauth":
        token = "a-token" if isinstance(server, str) else server.issue_token()
        return stream_gemini_oauth("Why?", token, "a-project", **settings)
    return stream_gemini_api_key("Why?", "a-key" if isinstance(server, str) else server.key, **settings)


def drain(iterator: Iterable[Any]) -> tuple[list[Any], Optional[GeminiSyncError]]:
    """What came out of ``iterator``, and the error that ended it or None."""
    items = []
    try:
        for item in iterator:
            items.append(item)
    except GeminiSyncError as exc:
        return items, exc
    return items, None


def recordings() -> list[dict[str, Any]]:
    """What ``expected.json`` says of each recorded stream, with its bytes as ``body``; empty without the corpus."""
    corpus = find_corpus()
    if corpus is None:
        return []
    told = json.loads((corpus / "streams" / "expected.json").read_text(encoding="utf-8"))
    return [{**expected, "body": (corpus / "streams" / expected["file"]).read_bytes()} for expected in told]


def chunk(text: str, finish: Optional[str] = None) -> dict[str, Any]:
    """A GenerateContentResponse with one text part."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    return {"candidates": [{**candidate, "finishReason": finish} if finish else candidate]}


def event(text: str, finish: Optional[str] = None) -> bytes:
    """The same as a server-sent event."""
    return b"data: " + json.dumps(chunk(text, finish)).encode() + b"\r\n\r\n"
