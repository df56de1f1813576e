"""Tests of the bounds of the event parser: the size of one event, its time, and its memory."""

from __future__ import annotations

import gc
import logging
import tracemalloc
import weakref
from collections.abc import Iterator

import pytest

from gemini_sync.errors import ProtocolError
from gemini_sync.messages import sse
from gemini_sync.messages.sse import events
from tests.messages.sse_kit import PARSERS, read, segmentations


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with each of the two parsers of a block."""
    monkeypatch.setattr(sse, "_LARGE_BLOCK_BYTES", PARSERS[request.param])
    return str(request.param)


# -- bounds


@pytest.mark.parametrize(
    ("block", "size"),
    [
        (b"data: 0123456789", 16),
        (b"data: 01234\ndata: 56789", 22),
        (b"event: long name\ndata", 20),
        (b'{"a":\n[1234567890]}', 18),
    ],
)
@pytest.mark.usefixtures("parser")
def test_max_event_bytes__is_exact_in_any_segmentation(block: bytes, size: int) -> None:
    for before in (b"", b"\xef\xbb\xbf", b"data: 1\n\n"):
        for pieces in [*segmentations(before + block + b"\n\n", "bound"), [before, block + b"\n\n"]]:
            assert len(read(pieces, size)) == (2 if b"data" in before else 1)
            with pytest.raises(ProtocolError, match=rf"larger than max_event_bytes \({size - 1} bytes\)"):
                read(pieces, size - 1)


def test_max_event_bytes__counts_bare_json_that_goes_on_after_a_block() -> None:
    stream = b'data: 1\n["0123456789",\n\n"0123456789"]\n'
    for pieces in segmentations(stream, "on"):
        assert len(read(pieces, 27)) == 2
        with pytest.raises(ProtocolError, match="max_event_bytes"):
            read(pieces, 26)


@pytest.mark.usefixtures("parser")
def test_max_event_bytes__stops_endless_lines_and_bare_text() -> None:
    def endless(piece: bytes) -> Iterator[bytes]:
        while True:
            yield piece

    for piece in (b"x", b"data: ", b"data: x\n", b"{\n", b"[1,\n", b":", b"id: 1\r\n"):
        with pytest.raises(ProtocolError, match="max_event_bytes"):
            read(endless(piece), 1000)


@pytest.mark.usefixtures("parser")
def test_max_event_bytes__limits_one_event_not_the_stream() -> None:
    stream = b"data: 0123456789\n\n: ping\n\n" * 50 + b"[1]\n" * 50
    for pieces in segmentations(stream, "many"):
        assert len(read(pieces, 16)) == 100


# -- time


@pytest.mark.parametrize("end", [b"", b'"', b"\\", b"}"])
def test_bare_line__full_of_quotes__takes_linear_time(end: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """In quadratic time these two megabytes would take hours. The log must not show the line."""
    line = b"{" + b'\\"' * 2**20 + end
    with caplog.at_level(logging.DEBUG):
        assert read([line + b"\n\ndata: 1\n\n"], 2**23)[-1].seen.data == "1"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] in (
        [],
        [f"ignored {len(line)} characters outside the events of a stream that are no JSON"],
    )
    assert '\\"' not in caplog.text


# -- memory


@pytest.mark.parametrize("end", [b"\n\n", b"\n", b""])
def test_large_event__is_freed_at_once(end: bytes) -> None:
    size, left = 4 * 2**20, []

    def feed() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        yield b'data: "'
        for _ in range(size // 65536):
            yield b"x" * 65536
        yield b'"' + end
        if end == b"\n\n":
            left.append(tracemalloc.get_traced_memory()[0] - before)
            yield b"data: 2\n\n"

    gc.disable()
    tracemalloc.start()
    try:
        stream = events(feed(), 2 * size)
        assert next(stream).data == "1"
        before = tracemalloc.get_traced_memory()[0]
        event = next(stream)
        assert len(event.data) == size + 2
        gone = weakref.ref(event)
        del event
        assert gone() is None  # at once, although the generator is suspended
        left.append(tracemalloc.get_traced_memory()[0] - before)
        assert len(list(stream)) == (end == b"\n\n")
        left.append(tracemalloc.get_traced_memory()[0] - before)
        assert max(left) < size // 8  # the parser keeps no copy, neither while it waits for bytes nor at the end
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.usefixtures("parser")
def test_endless_small_events__take_constant_memory() -> None:
    def feed() -> Iterator[bytes]:
        while True:
            yield b": ping\r\n\r\ndata: " + b"x" * 500 + b'\r\n\r\ndata: y\r\n{"a": 1}\r\n\r\n'

    stream, sizes = events(feed(), 10_000), []
    tracemalloc.start()
    try:
        for _ in range(3):
            for _ in range(300):
                next(stream)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(sizes) - sizes[0] < 10_000


def test_dropped_generator__closes_the_chunks_at_once() -> None:
    closed = []

    def feed() -> Iterator[bytes]:
        try:
            yield b"data: 1\n\ndata: 2\n\n"
        finally:
            closed.append(True)

    gc.disable()
    try:
        for drop in (True, False):
            stream = events(feed(), 100)
            next(stream)
            if drop:
                del stream
            else:
                stream.close()  # type: ignore[attr-defined]
            assert closed.pop()
    finally:
        gc.enable()


# -- what is skipped, and what is refused


@pytest.mark.usefixtures("parser")
def test_skipped__is_told_with_its_size() -> None:
    """Whatever the segmentation. The blank line behind a block belongs to it."""
    stream = b": c\n\n\ndata: 1\n: in\n\nodd line\nid: 7\nevent: x\n\n{x}\ndata: 2\n\n"
    for pieces in segmentations(stream, "skips"):
        sizes: list[int] = []
        assert [event.data for event in events(pieces, 1000, sizes.append)] == ["1", "2"]
        assert sizes == [3, 0, 0, 4, 8, 13, 3]


@pytest.mark.parametrize("end", [b"\n\n", b""])
@pytest.mark.parametrize("form", [b"data: %b", b"%b"])
def test_values__are_bounded_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch, form: bytes, end: bytes) -> None:
    monkeypatch.setattr(sse, "_MOST_VALUES", 2000)
    for most, limit in ((2000, 10_000), (4000, 256_000)):  # a limit above 64 bytes for a value allows more values
        body = b"[" + b"[]," * ((most - 2) // 2) + b"[]]"
        for extra, fits in ((b"", True), (b" " * 10 + b",1" * 3, False)):
            stream = form.replace(b"%b", body[:-1] + extra + b"]") + end
            if fits:
                assert len(read([stream], limit)) == 1
            else:
                with pytest.raises(ProtocolError, match=rf"more than {most} values"):
                    read([stream], limit)


def test_warnings__of_a_flood_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    assert read([b"{x}\n" * 1000]) == []
    assert len(caplog.records) == 100
