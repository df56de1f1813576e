"""Tests of a reply that is iterated again: only a complete answer may end without an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gemini_sync.errors import BlockedError, GeminiSyncError, ServerError, StreamInterrupted
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.reply import Reply
from tests.adapter_kit import Gate, in_thread
from tests.messages.reply_kit import STOP, chunk, end_of, reply_of


@pytest.mark.parametrize(
    "items", [[chunk("a")], [chunk("a"), ServerError("503")], [ServerError("503")]], ids=["cut", "error", "first"]
)
@pytest.mark.parametrize("first", [list, lambda reply: list(reply.chunks())], ids=["text", "chunks"])
def test_second_iteration__after_an_interruption__raises_again(items: list[Any], first: Any) -> None:
    """It must never look like a complete answer, neither as text nor as chunks."""
    reply = reply_of(*items)
    with pytest.raises(GeminiSyncError):
        first(reply)
    for way in (lambda reply: next(reply.chunks()), next, list, list):
        with pytest.raises(StreamInterrupted, match="the stream is over, it was interrupted before") as caught:
            way(reply)
        assert not caught.value.cancelled
        assert caught.value.partial is not None
        assert caught.value.partial.text == reply.text


def test_second_iteration__text_after_chunks__raises_the_verdict_once() -> None:
    reply = reply_of(chunk("a", finishReason="SAFETY"))
    assert len(list(reply.chunks())) == 1
    error = end_of(reply)
    assert isinstance(error, BlockedError)
    for one in (reply, error.partial):  # the second time a complete answer just ends
        assert (list(one), list(one.chunks())) == ([], [])


def test_partial__cannot_be_iterated() -> None:
    error = end_of(reply_of(chunk("a")))
    assert isinstance(error, StreamInterrupted)
    assert error.partial is not None
    for way in (list, lambda partial: list(partial.chunks())):
        with pytest.raises(StreamInterrupted, match="the stream is over"):
            way(error.partial)
    with error.partial as partial:
        partial.cancel()
    assert partial.text == "a"


def passed_on(reply: Reply) -> Iterator[str]:
    yield from reply


@pytest.mark.parametrize("drop", [passed_on, iter], ids=["yield from", "its own generator"])
def test_dropped_half_way__goes_on_at_the_next_iteration(drop: Any) -> None:
    reply = reply_of(chunk("1"), chunk("2"), chunk("3"), STOP)
    texts = drop(reply)
    assert next(texts) == "1"
    texts.close()
    assert next(reply) == "2"
    assert list(reply) == ["3", "b"]
    assert (list(reply), reply.text) == ([], "123b")


def test_dropped_half_way__still_raises_the_verdict() -> None:
    reply = reply_of(chunk("1"), chunk("2", finishReason="SAFETY"))
    texts = passed_on(reply)
    next(texts)
    texts.close()  # type: ignore[attr-defined]
    assert isinstance(end_of(reply), BlockedError)


def test_closed__an_iterator_from_before_raises() -> None:
    reply = reply_of(chunk("1"), STOP)
    held = iter(reply)
    assert next(held) == "1"
    reply.close()
    for way in (held, reply):
        with pytest.raises(StreamInterrupted, match="the reply was closed") as caught:
            next(way)
        assert caught.value.cancelled


def test_closed__after_its_end__stays_interrupted_or_complete() -> None:
    complete, cut = reply_of(STOP), reply_of(chunk("a"))
    assert (list(complete), end_of(cut)) != ([], None)
    for reply in (complete, cut):
        reply.close()
    assert list(complete) == []
    with pytest.raises(StreamInterrupted, match="it was interrupted before") as caught:
        list(cut)
    assert not caught.value.cancelled


def test_close__by_another_thread__while_this_one_iterates() -> None:
    """The closing thread still runs the generator, because it gives the connection back."""
    gate = Gate()

    def source() -> Iterator[Chunk]:
        try:
            yield chunk("a")
            yield chunk("b", finishReason="STOP")
        finally:
            gate()

    reply = Reply(source())
    texts = iter(reply)
    assert next(texts) == "a"
    closed = in_thread(reply.close)
    gate.await_arrivals()
    with pytest.raises(StreamInterrupted, match="was closed") as caught:
        next(texts)
    assert caught.value.cancelled
    gate.open()
    closed()
    with pytest.raises(StreamInterrupted, match="was closed"):
        next(reply)
