"""Streams that bring comments, blank lines and empty events without end, plain or out of a bomb, over real sockets.

The tests count what is skipped, and they measure memory. The clock stands still, or the tests move it.
"""

from __future__ import annotations

import threading
from typing import Any, Callable

import pytest

from gemini_sync import (
    DeadlineExceeded,
    ProtocolError,
    Reply,
    StreamInterrupted,
    Timeouts,
)
from gemini_sync.services import streams
from gemini_sync.testing.emulator import Emulator
from tests.network.call_kit import Clock
from tests.wire.bomb_kit import MIB, drained, packed, times
from tests.wire.raw_server import EVENT_STREAM, SECONDS, Peer, RawServer
from tests.wire.support import drain, event, telling

UNSEEN = b'data: {"candidates": [{"content": {"parts": [{"text": ""}]}}]}\n\n'
FLOODS = {
    "comments": b":\n",
    "blank lines": b"\n",
    "long comments": b": " + b"x" * 298 + b"\n",
    "ignored lines": b"nonsense\n",
    "comments in a block": b"data: 1\n" + b": x\n" * 2000,
    "blocks without data": b"id: 1\n\n",
    "empty events": b"data\n\n",
    "pings": b"event: ping\ndata: ping\n\n",
    "ends": b"data: [DONE]\n\n",
    "bare lines that are no JSON": b"{x}\n",
    "empty objects": b"data: {}\n\n",
    "token counts": b'data: {"usageMetadata": {"promptTokenCount": 1}}\n\n',
    "empty texts": UNSEEN,
}


@pytest.fixture
def skips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all that was skipped, one after the other."""
    sizes: list[int] = []
    add = streams._Skips.add

    def counting(self: Any, size: int) -> None:
        sizes.append(size)
        add(self, size)

    monkeypatch.setattr(streams._Skips, "add", counting)
    return sizes


# -- streams that bring nothing


@pytest.mark.parametrize(("begun", "encoding"), [(False, "gzip"), (True, "deflate")])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_flood__of_a_bomb_is_ended(
    emulator: Emulator,
    asking: Callable[..., Reply],
    skips: list[int],
    monkeypatch: pytest.MonkeyPatch,
    flood: bytes,
    begun: bool,
    encoding: str,
) -> None:
    monkeypatch.setattr(streams, "_SKIPS_AT_ONCE", 1000)
    bomb = packed(event("one ") * begun + times(flood, 6 * MIB), encoding)
    assert len(bomb["body"]) < MIB // 4
    emulator.api_key.answer(**bomb)
    texts, error, peak = drained(asking())
    assert (texts, type(error)) == (["one "] * begun, ProtocolError)
    assert "The stream is a flood of nothing: expected events with chunks, came " in str(error)
    assert f" beside {int(begun)} chunks within 0 s. Check the endpoint" in str(error)
    assert 1000 < len(skips) <= 1101
    assert peak < 4 * MIB


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_flood__that_is_endless_and_plain_is_ended(
    asking: Callable[..., Reply], skips: list[int], flood: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(EVENT_STREAM + b"\r\n")
        while True:
            peer.send(times(flood, 65536))

    with RawServer(script) as server:
        texts, error = drain(asking(url=server.url))
    assert texts == []
    assert "The stream is a flood of nothing" in str(error.__cause__ if isinstance(error, StreamInterrupted) else error)
    assert len(skips) <= 10_101


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
@pytest.mark.parametrize("begun", [False, True], ids=["at once", "after a chunk"])
def test_flood__cancel_ends_it_within_a_hundred_lines(
    emulator: Emulator, asking: Callable[..., Reply], monkeypatch: pytest.MonkeyPatch, flood: bytes, begun: bool
) -> None:
    """It does so in the middle of what has been received already, where no read of the socket would notice."""
    emulator.api_key.answer(**packed(event("one ") * begun + times(flood, MIB // 4)))
    reply, count, add = asking(), [0], streams._Skips.add

    def cancelling(self: Any, size: int) -> None:
        count[0] += 1
        if count[0] == 250:
            reply.cancel()
        add(self, size)

    monkeypatch.setattr(streams._Skips, "add", cancelling)
    texts, error = drain(reply)
    assert (texts, type(error)) == (["one "] * begun, StreamInterrupted)
    assert isinstance(error, StreamInterrupted)
    assert error.cancelled
    assert 250 <= count[0] <= 350


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
@pytest.mark.parametrize(("begun", "name"), [(False, "first_token"), (True, "idle"), (True, "total")])
def test_flood__passes_no_deadline(
    emulator: Emulator,
    asking: Callable[..., Reply],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    flood: bytes,
    begun: bool,
    name: str,
) -> None:
    """Each skipped line takes 10 ms of the clock. That is slow enough to be no flood, so the deadline ends it."""
    if name != "total" and flood in (FLOODS["empty objects"], FLOODS["token counts"], UNSEEN):
        name = "total"  # these are chunks, so they are signs of life for the other deadlines
    emulator.api_key.answer(**packed(event("one ") * begun + times(flood, MIB // 4)))
    count, add = [0], streams._Skips.add

    def ticking(self: Any, size: int) -> None:
        count[0] += 1
        clock.now += 0.01
        add(self, size)

    monkeypatch.setattr(streams._Skips, "add", ticking)
    limits = {"connect": None, "first_token": None, "idle": None, "total": None, name: 5.0}
    texts, error = drain(asking(timeouts=Timeouts(**limits)))
    error = error.__cause__ if isinstance(error, StreamInterrupted) else error
    assert texts == ["one "] * begun
    assert isinstance(error, DeadlineExceeded)
    assert (error.deadline, error.seconds) == (name, 5.0)
    assert 499 <= count[0] <= 700  # the call is looked at for each hundredth line


# -- streams that only look like a flood


def test_keep_alive__of_hours_ends_no_stream(asking: Callable[..., Reply], skips: list[int], clock: Clock) -> None:
    """Two comments a second for three hours, and what a gateway held back for a minute comes at once."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(EVENT_STREAM + b"\r\n" + event("one "))
        assert began.wait(SECONDS)
        for _ in range(180):
            clock.now += 60.0
            peer.send(b": keep-alive\r\n\r\n" * 120)
        peer.send(event("two", "STOP"))

    began, patient = threading.Event(), Timeouts(first_token=None, idle=None)
    with RawServer(script) as server:
        texts, error = drain(telling(asking(url=server.url, timeouts=patient), began))
    assert (texts, error) == (["one ", "two"], None)
    assert len(skips) == 180 * 120 * 2


def test_padding__between_the_events_of_a_burst_ends_no_stream(
    emulator: Emulator, asking: Callable[..., Reply], skips: list[int]
) -> None:
    """A long answer out of a cache comes at once, and a gateway has padded each event."""
    padding = b": " + b"x" * 2000 + b"\r\n\r\n\r\n"
    emulator.api_key.answer(**packed((event("one ") + padding) * 6000 + event("two", "STOP")))
    texts, error = drain(asking())
    assert (len(texts), texts[-1], error) == (6001, "two", None)
    assert len(skips) == 18_000
