"""Holds the reply to what it shows while an answer arrives, and to when it lets go of the stream."""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_sync.errors import (
    Attempt,
    BlockedError,
    EmptyResponseError,
    FinishReasonError,
    ProtocolError,
    StreamInterrupted,
)
from gemini_sync.messages.call_record import CallRecord
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.response import Blob, Chunk, FunctionCall, Usage
from tests.messages.odd_json import RESPONSES


def chunk(*parts: Any, envelope: Optional[dict[str, Any]] = None, usage: Any = None, **candidate: Any) -> Chunk:
    content = {
        "content": {"role": "model", "parts": [{"text": part} if isinstance(part, str) else part for part in parts]}
    }
    return Chunk({"candidates": [{**content, **candidate}], **({"usageMetadata": usage} if usage else {})}, envelope)


class Source:
    """Makes a chunk iterator, keeps no reference to it, and knows whether it was closed."""

    def __init__(self, *chunks: Chunk) -> None:
        self._chunks = chunks
        self.closed = False

    def open(self) -> Generator[Chunk, None, None]:
        try:
            yield from self._chunks
        finally:
            self.closed = True


def reply_of(*chunks: Chunk, **options: Any) -> Reply:
    return Reply(Source(*chunks).open(), **options)


STOP = chunk("b", finishReason="STOP")


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Whatever ends in the test ends by reference counting alone."""
    gc.disable()
    yield
    gc.enable()


# -- one stream, two ways


def test_text__as_it_arrives() -> None:
    reply = reply_of(chunk("Hel"), chunk({"text": "hm", "thought": True}), chunk(""), chunk("lo", "!"), STOP)
    seen = []
    for text in reply:
        seen.append((text, reply.text, reply.thoughts))
    assert seen == [("Hel", "Hel", ""), ("lo!", "Hello!", "hm"), ("b", "Hello!b", "hm")]
    assert reply.finish_reason == "STOP"


def test_chunks__as_they_arrive() -> None:
    chunks = [chunk("a"), chunk({"text": "hm", "thought": True}), chunk(), STOP]
    reply = reply_of(*chunks)
    assert [(one, reply.text) for one in reply.chunks()] == [
        (chunks[0], "a"),
        (chunks[1], "a"),
        (chunks[2], "a"),
        (chunks[3], "ab"),
    ]


def test_text_and_chunks__share_one_stream() -> None:
    reply = reply_of(chunk("1"), chunk("2"), chunk("3"), chunk("4"), STOP)
    assert next(reply) == "1"
    raw = reply.chunks()
    assert next(raw).text == "2"
    assert next(reply) == "3"
    assert next(raw).text == "4"
    assert next(iter(reply)) == "b"
    assert (list(raw), list(reply), reply.text) == ([], [], "1234b")


def test_text_and_chunks__a_dropped_way_leaves_the_other(no_gc: None) -> None:
    reply = reply_of(chunk("1"), chunk("2"), chunk("3"), STOP)
    assert next(reply.chunks()).text == "1"
    for text in reply:
        assert text == "2"
        break
    assert [one.text for one in reply.chunks()] == ["3", "b"]
    assert reply.text == "123b"
    assert "state='complete'" in repr(reply)


def test_nothing_is_taken_before_the_first_next() -> None:
    chunks = Source(STOP).open()
    reply = Reply(chunks)
    reply.chunks()
    assert inspect.getgeneratorstate(chunks) == inspect.GEN_CREATED
    assert (reply.text, reply.thoughts, reply.content) == ("", "", {"role": "model", "parts": []})
    assert (reply.finish_reason, reply.usage, reply.route, reply.attempts) == (None, None, None, ())


def test_properties__while_the_answer_arrives_and_after() -> None:
    record = CallRecord()
    call = {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"}
    data = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    reply = reply_of(
        chunk("a", call, usage={"promptTokenCount": 3}, envelope={"traceId": "t"}),
        chunk(data, finishReason="MAX_TOKENS", finishMessage="why", usage={"totalTokenCount": 9}),
        Chunk({"modelVersion": "m", "responseId": "r", "promptFeedback": {}}),
        record=record,
    )
    raw = reply.chunks()
    next(raw)
    record.route = "oauth"
    record.attempts.append(Attempt("oauth", 1.0, 0.5, "answered"))
    assert (reply.function_calls, reply.inline_data) == ((FunctionCall("f", {"x": 1}),), ())
    assert (reply.usage, reply.finish_reason, reply.response_id) == (Usage(3, raw={"promptTokenCount": 3}), None, "t")
    assert (reply.route, reply.attempts) == ("oauth", (Attempt("oauth", 1.0, 0.5, "answered"),))
    assert list(raw)
    assert (reply.inline_data, reply.content["parts"]) == ((Blob("image/png", b"hi"),), [{"text": "a"}, call, data])
    assert reply.usage == Usage(total_token_count=9, raw={"totalTokenCount": 9})
    assert (reply.finish_reason, reply.finish_message) == ("MAX_TOKENS", "why")
    assert (reply.model_version, reply.response_id) == ("m", "r")


def test_inline_data__no_base64__raises_where_it_is_asked_for() -> None:
    reply = reply_of(chunk({"inlineData": {"data": "a"}}), STOP)
    assert list(reply) == ["b"]
    with pytest.raises(ProtocolError, match="base64"):
        _ = reply.inline_data


@given(st.lists(RESPONSES, max_size=4))
@settings(max_examples=100, deadline=None)
def test_wrong_shapes__end_in_a_verdict_or_in_none(responses: list[Any]) -> None:
    reply = reply_of(*map(Chunk, responses))
    partial: Optional[Reply] = reply
    try:
        list(reply)
    except (StreamInterrupted, FinishReasonError, EmptyResponseError) as exc:
        partial = exc.partial
    assert partial is not None
    assert partial.text == reply.text == "".join(Chunk(raw).text for raw in responses)
    assert isinstance(repr(reply), str)


# -- letting go


def _closed(reply: Reply) -> None:
    reply.close()


def _closed_by_with(reply: Reply) -> None:
    with reply as same:
        assert same is reply


def _closed_by_an_exception(reply: Reply) -> None:
    with pytest.raises(KeyError), reply:
        raise KeyError


@pytest.mark.parametrize("start", [next, lambda reply: next(reply.chunks()), lambda reply: None])
@pytest.mark.parametrize("end", [_closed, _closed_by_with, _closed_by_an_exception])
def test_close__ends_the_source(no_gc: None, start: Callable[[Reply], Any], end: Callable[[Reply], None]) -> None:
    chunks = Source(chunk("a"), STOP).open()
    reply = Reply(chunks)
    start(reply)
    end(reply)
    end(reply)
    assert inspect.getgeneratorstate(chunks) == inspect.GEN_CLOSED
    assert "state='closed'" in repr(reply)
    for way in (list, next, lambda reply: next(reply.chunks())):
        with pytest.raises(StreamInterrupted, match="the reply was closed") as caught:
            way(reply)
        assert caught.value.cancelled
        assert caught.value.partial is not None
        assert caught.value.partial.text == reply.text


@pytest.mark.parametrize("way", [iter, Reply.chunks])
def test_dropped__ends_the_source(no_gc: None, way: Callable[[Reply], Iterator[Any]]) -> None:
    sources = [Source(chunk("a"), STOP) for _ in range(3)]
    reply = Reply(sources[0].open())
    next(way(reply))
    assert not sources[0].closed
    del reply
    for _ in way(Reply(sources[1].open())):
        break
    iterator = way(Reply(sources[2].open()))  # the iterator alone keeps the stream going
    next(iterator)
    assert [source.closed for source in sources] == [True, True, False]
    del iterator
    assert sources[2].closed


def test_dropped__behind_an_exception_that_is_kept(no_gc: None) -> None:
    source = Source(chunk("a"), STOP)

    def consume() -> None:
        with Reply(source.open()) as reply:
            for _ in reply:
                raise KeyError

    with pytest.raises(KeyError) as kept:
        consume()
    assert source.closed
    assert kept.traceback


def test_close__after_the_end__changes_nothing() -> None:
    reply = reply_of(STOP)
    assert list(reply) == ["b"]
    reply.close()
    assert "state='complete'" in repr(reply)
    assert (list(reply), list(reply.chunks())) == ([], [])


def test_close__of_an_iterator_without_close() -> None:
    reply = Reply(iter([STOP]))
    reply.close()
    reply.cancel()  # nobody to tell
    assert "state='closed'" in repr(reply)
    for way in (iter, Reply.chunks):
        with pytest.raises(StreamInterrupted, match="the reply was closed"):
            next(way(reply))


@pytest.mark.parametrize("way", [iter, Reply.chunks])
def test_close__from_another_thread__cancels(way: Callable[[Reply], Iterator[Any]]) -> None:
    reading, cancelled = threading.Event(), threading.Event()

    def source() -> Iterator[Chunk]:
        yield chunk("a")
        reading.set()
        assert cancelled.wait(30)
        raise StreamInterrupted("The call was cancelled.", cancelled=True)

    reply, caught = Reply(source(), cancel=cancelled.set), []

    def read() -> None:
        try:
            list(way(reply))
        except StreamInterrupted as exc:
            caught.append(exc)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert reading.wait(30)
    reply.close()
    reader.join(30)
    assert caught[0].cancelled
    assert caught[0].partial is not None
    assert caught[0].partial.text == "a"
    assert "state='interrupted'" in repr(reply)


class _Raw(dict):  # type: ignore[type-arg]
    """A dict that can be referred to weakly."""


def test_chunk__is_let_go_of_while_the_next_one_is_awaited(no_gc: None) -> None:
    seen: list[weakref.ref[_Raw]] = []
    alive: list[bool] = []

    def source() -> Iterator[Chunk]:
        for number in range(4):
            alive.extend(one() is not None for one in seen)
            raw = _Raw(chunk(str(number)).raw)
            seen.append(weakref.ref(raw))
            made = Chunk(raw)
            del raw
            yield made
            del made
        alive.extend(one() is not None for one in seen)

    reply = Reply(source(), require_finish=False)
    assert (next(reply), next(reply.chunks()).text) == ("0", "1")
    for one in reply.chunks():
        assert one.text == "2"
        del one
        break
    assert list(reply) == ["3"]
    assert alive == [False] * 10


def test_verdict__is_freed_without_gc(no_gc: None) -> None:
    reply = reply_of(chunk("a", finishReason="SAFETY"))
    try:
        list(reply)
    except BlockedError as exc:
        gone = weakref.ref(exc)
    assert gone() is None
