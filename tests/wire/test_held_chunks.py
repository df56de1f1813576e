"""Chunks without content commit a call to nothing, on real sockets: until the first with some, it may go elsewhere."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from gemini_sync import (
    DeadlineExceeded,
    EmptyResponseError,
    InvalidRequestError,
    Reply,
    ServerError,
    StreamInterrupted,
    Timeouts,
)
from gemini_sync.routing import holding
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import Rig
from tests.auth.credentials_kit import Clock
from tests.wire.raw_server import SECONDS
from tests.wire.support import chunk, drain

TEXT = default_text("Hi")
BUSY = {"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}
NO_KEY = {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}


def parts(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(items)}, **fields}]}


THOUGHT = parts({"text": "Hmm.", "thought": True})
WITHOUT = {
    "token counts": {"usageMetadata": {"promptTokenCount": 7}},
    "an empty object": {},
    "an empty text": chunk(""),
    "no parts": parts(),
    "no content": {"candidates": [{"index": 0}]},
    "a signature": parts({"text": "", "thoughtSignature": "c2ln"}),
    "a part that is not set": parts({"text": "", "functionCall": None}),
    "a thought": THOUGHT,
    "grounding": {"candidates": [{"groundingMetadata": {"webSearchQueries": ["sky"]}}]},
    "feedback that blocks nothing": {"promptFeedback": {"safetyRatings": []}},
    "another candidate": {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}}]},
    "a finish reason that is not set": {"candidates": [{"finishReason": "FINISH_REASON_UNSPECIFIED"}]},
}
WITH = {
    "text": chunk("one"),
    "text of an index": {"candidates": [{"index": 0, "content": {"parts": [{"text": "one"}]}}]},
    "text behind a thought": parts({"text": "Hmm.", "thought": True}, {"text": "one"}),
    "a function call": parts({"functionCall": {"name": "f", "args": {}}}),
    "inline data": parts({"inlineData": {"mimeType": "image/png", "data": "aGk="}}),
    "code": parts({"executableCode": {"code": "1", "language": "PYTHON"}}),
    "a finish reason": {"candidates": [{"finishReason": "SAFETY"}]},
    "a refused prompt": {"promptFeedback": {"blockReason": "SAFETY"}},
}


@pytest.fixture
def rig(emulator: Emulator, tmp_path: Path) -> Iterator[Rig]:
    with Rig(emulator, tmp_path) as rig:
        yield rig


def play(rig: Rig, *chunks: dict[str, Any], route: str = "oauth", **fields: Any) -> None:
    """Let ``route`` answer once with ``chunks``."""
    wrapped = [item if route == "api_key" or "error" in item else {"response": item, "traceId": "t"} for item in chunks]
    body = b"".join(b"data: " + json.dumps(item).encode() + b"\r\n\r\n" for item in wrapped)
    getattr(rig.emulator, route).answer(body=body, times=1, **fields)


@pytest.mark.parametrize("route", ["oauth", "api_key"])
@pytest.mark.parametrize("first", WITHOUT.values(), ids=WITHOUT)
def test_error__behind_a_chunk_without_content_is_retried(rig: Rig, first: dict[str, Any], route: str) -> None:
    play(rig, first, BUSY, route=route)
    reply = rig.adapter(**({"oauth_creds_path": None} if route == "api_key" else {})).stream("Hi")
    assert ("".join(reply), reply.route) == (TEXT, route)
    assert [(a.route, a.outcome, type(a.error)) for a in reply.attempts] == [
        (route, "failed", ServerError),
        (route, "answered", type(None)),
    ]
    assert (sum(rig.counts), rig.flips, len(rig.slept)) == (2, [], 1)


@pytest.mark.parametrize("first", WITHOUT.values(), ids=WITHOUT)
def test_error__behind_a_chunk_without_content_falls_back(rig: Rig, first: dict[str, Any]) -> None:
    play(rig, first, NO_KEY)
    adapter = rig.adapter()
    reply = adapter.stream("Hi")
    assert ("".join(reply), reply.route, adapter.fallback_active) == (TEXT, "api_key", True)
    assert (rig.counts, len(rig.flips)) == ((1, 1), 1)
    assert reply.thoughts == ""


@pytest.mark.parametrize("first", WITH.values(), ids=WITH)
def test_error__behind_content_interrupts(rig: Rig, first: dict[str, Any]) -> None:
    play(rig, WITHOUT["token counts"], first, BUSY)
    reply = rig.adapter().stream("Hi")
    came, error = drain(reply.chunks())
    assert [item.raw for item in came] == [WITHOUT["token counts"], first]
    assert isinstance(error, StreamInterrupted)
    assert isinstance(error.__cause__, ServerError)
    assert (rig.counts, rig.slept, rig.flips) == ((1, 0), [], [])


def asks_for_thoughts(rig: Rig) -> tuple[Reply, Callable[[Reply], Any]]:
    config = {"thinkingConfig": {"includeThoughts": True}}
    return rig.adapter().stream("Hi", generation_config=config), iter  # type: ignore[typeddict-item]


def iterates_chunks(rig: Rig) -> tuple[Reply, Callable[[Reply], Any]]:
    return rig.adapter().stream("Hi"), Reply.chunks


@pytest.mark.parametrize("way", [asks_for_thoughts, iterates_chunks])
def test_thought__is_content_if_the_caller_sees_it(rig: Rig, way: Any) -> None:
    play(rig, WITHOUT["token counts"], THOUGHT, BUSY)
    reply, iterate = way(rig)
    _, error = drain(iterate(reply))
    assert isinstance(error, StreamInterrupted)
    assert error.partial is not None
    assert (error.partial.thoughts, rig.counts) == ("Hmm.", (1, 0))


@pytest.mark.parametrize("way", [asks_for_thoughts, iterates_chunks])
def test_chunks__without_anything_to_see_are_held_back_in_any_way(rig: Rig, way: Any) -> None:
    play(rig, WITHOUT["token counts"], WITHOUT["a signature"], BUSY)
    reply, iterate = way(rig)
    assert drain(iterate(reply))[1] is None
    assert (reply.text, rig.counts) == (TEXT, (2, 0))


def test_held_chunks__come_in_order_and_count(rig: Rig) -> None:
    sent = [WITHOUT["token counts"], THOUGHT, WITHOUT["a signature"], chunk("one "), chunk("two", "STOP")]
    for _ in range(2):
        play(rig, *sent)
    adapter = rig.adapter()
    reply = adapter.stream("Hi")
    assert list(reply) == ["one ", "two"]
    assert (reply.thoughts, reply.usage and reply.usage.prompt_token_count) == ("Hmm.", 7)
    assert reply.content["parts"][0] == {"text": "Hmm.", "thought": True}
    assert (reply.attempts[0].trace_id, reply.response_id) == ("t", "t")
    assert [item.raw for item in adapter.stream("Hi").chunks()] == sent


def test_trace_id__is_that_of_the_first_chunk_that_has_one(rig: Rig) -> None:
    body = [{"response": {}}, {"response": {}, "traceId": "late"}, {"response": chunk("one", "STOP"), "traceId": "x"}]
    rig.emulator.oauth.answer(body=b"".join(b"data: %s\n\n" % json.dumps(item).encode() for item in body))
    reply = rig.adapter().generate("Hi")
    assert [attempt.trace_id for attempt in reply.attempts] == ["late"]


@pytest.mark.parametrize(
    ("held", "retried"),
    [
        ([{}] * 99, True),
        ([{}] * 100, False),
        ([WITHOUT["token counts"], parts({"thought": True, "text": "x" * 2**20})], False),
    ],
    ids=["99 chunks", "100 chunks", "large"],
)
def test_held_chunks__are_bounded(rig: Rig, held: list[dict[str, Any]], retried: bool) -> None:
    play(rig, *held, BUSY)
    texts, error = drain(rig.adapter().stream("Hi"))
    if retried:
        assert ("".join(texts), error, rig.counts) == (TEXT, None, (2, 0))
    else:
        assert (texts, type(error), rig.counts) == ([], StreamInterrupted, (1, 0))


@pytest.mark.parametrize(("end", "error"), [("clean", StreamInterrupted), ("finish", EmptyResponseError)])
def test_end__before_any_content(rig: Rig, end: str, error: type[Exception]) -> None:
    """A clean end is an answer that broke off, but one with a finish reason is an empty one. Neither is asked again."""
    last = [{"candidates": [{"finishReason": "STOP"}]}] if end == "finish" else []
    play(rig, WITHOUT["token counts"], *last)
    reply = rig.adapter().stream("Hi")
    texts, raised = drain(reply)
    assert (texts, type(raised), rig.counts) == ([], error, (1, 0))
    assert reply.usage is not None


def test_end__before_any_content_if_no_finish_is_required(rig: Rig) -> None:
    play(rig, WITHOUT["token counts"])
    reply = rig.adapter(require_finish=False).stream("Hi")
    assert type(drain(reply)[1]) is EmptyResponseError
    assert (rig.counts, reply.usage and reply.usage.prompt_token_count) == ((1, 0), 7)


def test_flip__is_made_by_the_first_content_of_the_key(rig: Rig) -> None:
    """A key that sends token counts and then an error has not answered, so nothing flips."""
    play(rig, NO_KEY)
    play(rig, WITHOUT["token counts"], {"error": {"code": 400, "message": "bad"}}, route="api_key")
    adapter = rig.adapter()
    _, error = drain(adapter.stream("Hi"))
    assert isinstance(error, InvalidRequestError)
    assert (adapter.fallback_active, rig.flips, rig.counts) == (False, [], (1, 1))
    play(rig, NO_KEY)
    play(rig, WITHOUT["token counts"], chunk("one", "STOP"), route="api_key")
    reply = adapter.stream("Hi")
    assert (next(reply), len(rig.flips), adapter.fallback_active) == ("one", 1, True)


@pytest.mark.parametrize("name", ["idle", "total"])
def test_deadline__while_chunks_are_held(rig: Rig, name: str) -> None:
    """A held chunk is a sign of life, so ``idle`` runs behind it. It is not waited for a second time."""
    ticks = itertools.count()
    rig.emulator.oauth.answer(chunks=[WITHOUT["token counts"]], finish_reason=None)
    rig.emulator.oauth.fail("drip", after=1, interval=0.001, data=b":\n")
    limits = {"connect": None, "first_token": None, "idle": None, "total": None, name: 50.0}
    adapter = rig.adapter(clock=lambda: float(next(ticks)), timeouts=Timeouts(**limits))
    reply = adapter.stream("Hi")
    texts, error = drain(reply)
    failed = reply.attempts[0].error
    assert isinstance(failed, DeadlineExceeded)
    assert failed.deadline == name
    if name == "idle":
        assert ("".join(texts), reply.route, rig.counts, rig.slept) == (TEXT, "api_key", (1, 1), [])
    else:
        assert (texts, type(error), rig.counts) == ([], DeadlineExceeded, (1, 0))


def test_first_token__ends_with_a_held_chunk(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands at 15 s as the first chunk comes, and at 30 s as the second is waited for."""
    clock, is_held, size = Clock(0.0), threading.Event(), holding._size

    def measure(held: Any) -> int:
        clock.advance(15.0)
        is_held.set()
        return size(held)

    def pace(position: int) -> float:
        assert position == 0 or is_held.wait(SECONDS)
        return 0.0

    monkeypatch.setattr(holding, "_size", measure)
    sent = [WITHOUT["token counts"], chunk("one", "STOP")]
    rig.emulator.oauth.answer(chunks=sent, pace=pace, before=lambda: clock.advance(15.0))
    adapter = rig.adapter(clock=clock, timeouts=Timeouts(first_token=20, idle=20))
    assert adapter.generate("Hi").text == "one"
    assert rig.counts == (1, 0)


@pytest.mark.parametrize("way", ["cancel", "close"])
def test_cancel__while_chunks_are_held(rig: Rig, way: str) -> None:
    rig.emulator.oauth.answer(chunks=[WITHOUT["token counts"], chunk("one", "STOP")])
    rig.emulator.oauth.fail("stall", after=1)
    adapter = rig.adapter()
    reply = adapter.stream("Hi")
    ender = threading.Thread(target=lambda: (rig.emulator.oauth.wait_for(1), getattr(reply, way)()))
    ender.start()
    texts, error = drain(reply)
    ender.join()
    assert (texts, type(error)) == ([], StreamInterrupted)
    assert isinstance(error, StreamInterrupted)
    assert error.cancelled
    assert (rig.counts, rig.flips, adapter.fallback_active) == ((1, 0), [], False)
    assert reply.attempts[0].outcome == "cancelled"
