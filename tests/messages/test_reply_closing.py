"""Tests of a reply that is closed, cancelled or dropped: it ends its stream, and keeps nothing in memory."""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from gemini_sync.errors import BlockedError, StreamInterrupted
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.reply import Reply
from tests.messages.reply_kit import STOP, chunk, reply_of


class Source:
    """It makes a chunk iterator without keeping a reference to it, and records whether that was closed."""

    def __init__(self, *chunks: Chunk) -> None:
        self._chunks = chunks
        self.closed = False

    def open(self) -> Generator[Chunk, None, None]:
        try:
            yield from self._chunks
        finally:
            self.closed = True


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Without the garbage collector, only reference counting ends what the test drops."""
    gc.disable()
    yield
    gc.enable()


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
def test_close__closes_the_stream(no_gc: None, start: Callable[[Reply], Any], end: Callable[[Reply], None]) -> None:
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
def test_dropped__closes_the_stream(no_gc: None, way: Callable[[Reply], Iterator[Any]]) -> None:
    sources = [Source(chunk("a"), STOP) for _ in range(3)]
    reply = Reply(sources[0].open())
    next(way(reply))
    assert not sources[0].closed
    del reply
    for _ in way(Reply(sources[1].open())):
        break
    iterator = way(Reply(sources[2].open()))  # only the iterator refers to the stream now
    next(iterator)
    assert [source.closed for source in sources] == [True, True, False]
    del iterator
    assert sources[2].closed


def test_close__by_with__although_the_exception_is_kept(no_gc: None) -> None:
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


def test_close__of_an_iterator_without_a_close_method() -> None:
    reply = Reply(iter([STOP]))
    reply.close()
    reply.cancel()  # does nothing, because there is no call
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
    """A dict that allows weak references."""


def test_chunk__is_freed_before_the_next_one_comes(no_gc: None) -> None:
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


def test_verdict__is_freed_without_the_garbage_collector(no_gc: None) -> None:
    reply = reply_of(chunk("a", finishReason="SAFETY"))
    try:
        list(reply)
    except BlockedError as exc:
        gone = weakref.ref(exc)
    assert gone() is None


def test_cancel__cancels_the_call_each_time() -> None:
    told: list[bool] = []
    reply = reply_of(STOP, cancel=lambda: told.append(True))
    reply.cancel()
    reply.cancel()
    assert told == [True, True]
