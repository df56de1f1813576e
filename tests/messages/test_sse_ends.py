"""Tests of the event parser at the end of a stream: events that are cut off, errors, nothing at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gemini_sync.messages.sse import events
from tests.messages.sse_kit import Seen, read


def test_cut_off_event__leaves_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    assert read([b'data: {"a": ']) == []
    assert "ignored an event of 12 bytes that was cut off" in caplog.text


def test_error_of_the_chunks__passes_through_and_drops_the_unfinished_block() -> None:
    def feed() -> Iterator[bytes]:
        yield b'data: 1\n\ndata: {"a": 1}\n'
        raise ConnectionError("broken")

    stream = events(feed(), 100)
    assert next(stream).data == "1"
    with pytest.raises(ConnectionError, match="broken"):
        next(stream)
    assert next(stream, None) is None


def test_empty_stream__has_no_events() -> None:
    for pieces in ([], [b""], [b"", b""], [b"\xef\xbb\xbf"], [b"\xef", b"\xbb"], [b"\n"], [b"\r", b"\n", b"\r"]):
        assert read(pieces) == []


def test_empty_pieces__are_ignored() -> None:
    for pieces in (
        [b"data: 1\r", b"", b"\ndata: 2\n\n"],
        [b"", b"\xef", b"", b"\xbb\xbfda", b"", b"ta: 1\ndata: 2\n", b"\n"],
    ):
        assert [known.seen for known in read(pieces)] == [Seen("message", "1\n2")]
