"""Shared by the tests of recorded responses: what a call gives, and the same call recorded and replayed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Optional

from gemini_sync import Endpoints, GeminiSyncError, Reply, Retry, Timeouts, stream_gemini_api_key, stream_gemini_oauth
from gemini_sync.testing import record, replay
from gemini_sync.testing.cassette.values import Body, Cassette, Exchange, Request, Response
from gemini_sync.testing.emulator import Emulator
from tests.wire.support import drain

STREAM_URL = "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse"
SSE = {"Content-Type": "text/event-stream"}
QUICK: dict[str, Any] = {"retry": Retry(backoff_base=0), "timeouts": Timeouts(connect=20, first_token=20, idle=20)}


def error_gist(error: Optional[BaseException]) -> Any:
    if not isinstance(error, GeminiSyncError):
        return None  # errors of other libraries are no part of what a caller may rely on
    names = ("code", "status", "reason", "details", "retry_after", "link", "trace_id", "route")
    return (type(error), str(error), [getattr(error, name, None) for name in names], error_gist(error.__cause__))


def outcome(reply: Reply) -> Any:
    """All that a caller sees of a reply but the times."""
    chunks, error = drain(reply.chunks())
    return {
        "chunks": [(chunk.raw, chunk.envelope) for chunk in chunks],
        "answer": (reply.text, reply.thoughts, reply.function_calls, reply.inline_data, reply.content),
        "end": (reply.finish_reason, reply.finish_message, reply.usage, reply.model_version, reply.response_id),
        "route": reply.route,
        "attempts": [(attempt.route, attempt.outcome, error_gist(attempt.error)) for attempt in reply.attempts],
        "error": error_gist(error),
    }


def ask(urls: Any, route: str, credential: str, prompt: str = "Why?", **settings: Any) -> Reply:
    settings = {**QUICK, "endpoints": Endpoints(**urls), **settings}
    if route == "oauth":
        return stream_gemini_oauth(prompt, credential, "a-project-of-mine", **settings)
    return stream_gemini_api_key(prompt, credential, **settings)


def both(path: Any, emulator: Emulator, route: str = "api_key", **settings: Any) -> tuple[Any, Any]:
    """What a call gives while it is recorded, and what it gives again after the emulator has stopped."""
    credential = emulator.key if route == "api_key" else emulator.issue_token()
    with record(path):
        live = outcome(ask(emulator.urls, route, credential, **settings))
    emulator.stop()
    with replay(path) as tape:
        again = outcome(ask(emulator.urls, route, "another-credential", **settings))
    assert tape.unused == []
    return live, again


def event(text: str, finish: Optional[str] = None) -> bytes:
    end = f',"finishReason": "{finish}"' if finish else ""
    return f'data: {{"candidates": [{{"content": {{"parts": [{{"text": "{text}"}}]}}{end}}}]}}\r\n\r\n'.encode()


ANSWER = (event("one"), event(" two"), event(" three", "STOP"))


def exchange(
    segments: Iterable[bytes] = ANSWER,
    *,
    url: str = STREAM_URL,
    body: bytes = b'{"contents":[{"role":"user","parts":[{"text":"Why?"}]}]}',
    status: int = 200,
    delays: tuple[float, ...] = (),
    end: str = "complete",
) -> Exchange:
    """An exchange as ``ask_plain`` makes one."""
    return Exchange(Request("POST", url, {}, body), Response(status, SSE, Body(tuple(segments), delays, end)))


def tape_of(*exchanges: Exchange) -> Cassette:
    return Cassette(exchanges, "tape.yaml")


def ask_plain(prompt: str = "Why?", *, key: str = "a-key-of-mine", **settings: Any) -> Reply:
    return stream_gemini_api_key(prompt, key, "m", **{**QUICK, **settings})
