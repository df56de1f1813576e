"""Answers that are small on the wire and huge, endless or costly behind it, over real sockets.

The tests count bytes and what is skipped, and they measure memory. The clocks stand still, or the tests move them.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from gemini_sync import (
    DeadlineExceeded,
    Endpoints,
    GeminiDualAdapter,
    GeminiSyncError,
    ProtocolError,
    Reply,
    ServerError,
    StreamInterrupted,
    Timeouts,
    redaction,
)
from gemini_sync.messages import sse
from gemini_sync.services import streams
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Rig
from tests.network.call_kit import Clock
from tests.wire.raw_server import EVENT_STREAM, SECONDS, Peer, RawServer
from tests.wire.support import ONCE, drain, event, telling

MIB = 2**20
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
def clock() -> Clock:
    return Clock()


@pytest.fixture
def asking(emulator: Emulator, clock: Clock) -> Iterator[Callable[..., Reply]]:
    """A function that calls the API-key route of the emulator once, by a clock that stands still."""
    with contextlib.ExitStack() as stack:

        def ask(**settings: Any) -> Reply:
            url = settings.pop("url", emulator.url)
            chosen = {"endpoints": Endpoints(gemini=url), "retry": ONCE, "clock": clock, **settings}
            return stack.enter_context(GeminiDualAdapter(emulator.key, **chosen)).stream("Why?")

        yield ask


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


def times(piece: bytes, size: int) -> bytes:
    """``piece`` again and again, ``size`` bytes in all or a little more."""
    return piece * (size // len(piece) + 1)


def packed(body: bytes, encoding: str = "gzip") -> dict[str, Any]:
    """What makes the emulator answer with ``body`` as one compressed piece."""
    data = gzip.compress(body, 1) if encoding == "gzip" else zlib.compress(body, 1)
    return {"body": data, "headers": {"Content-Encoding": encoding}, "pieces": len(data)}


def drained(reply: Reply) -> tuple[list[str], Optional[GeminiSyncError], int]:
    """The texts of ``reply``, what went wrong with the stream, and the peak of the memory in bytes."""
    tracemalloc.start()
    try:
        texts, error = drain(reply)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    cause = error.__cause__ if isinstance(error, StreamInterrupted) and not error.cancelled else error
    assert cause is None or isinstance(cause, GeminiSyncError)
    return texts, cause, peak


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


# -- compressed bodies that are none


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,deflate", "br"])
def test_encoding__that_is_nested_is_refused_unread(
    emulator: Emulator, asking: Callable[..., Reply], encoding: str
) -> None:
    bomb = gzip.compress(gzip.compress(b"\n" * 64 * MIB))
    emulator.api_key.answer(body=bomb, headers={"Content-Encoding": encoding})
    _, error, peak = drained(asking())
    assert type(error) is ProtocolError
    assert f"Expected an uncompressed body, came Content-Encoding {encoding!r}." in str(error)
    assert peak < MIB


def test_members__that_are_empty_are_no_body(emulator: Emulator, asking: Callable[..., Reply]) -> None:
    emulator.api_key.answer(body=gzip.compress(b"") * 50_000, headers={"Content-Encoding": "gzip"}, pieces=2 * MIB)
    _, error, peak = drained(asking())
    assert type(error) is ProtocolError
    assert "goes on and on and holds nothing" in str(error)
    assert peak < 4 * MIB


@pytest.mark.parametrize("kind", ["text/plain", "text/html", "application/json"])
@pytest.mark.parametrize("body", [b"\n", b" ", b"<p>", b"\r\n"])
def test_body__that_is_no_stream_is_read_in_part(
    emulator: Emulator, asking: Callable[..., Reply], kind: str, body: bytes
) -> None:
    emulator.api_key.answer(content_type=kind, **packed(times(body, 16 * MIB)))
    _, error, peak = drained(asking())
    assert type(error) is ProtocolError
    assert "Expected text/event-stream, came status 200 with" in str(error)
    assert peak < 3 * MIB


# -- errors


class Counting:
    """The pattern of credentials, which counts the characters that are searched."""

    def __init__(self) -> None:
        self.characters, self._pattern = 0, redaction._SECRET_SHAPES

    def sub(self, replacement: str, text: str) -> str:
        self.characters += len(text)
        return self._pattern.sub(replacement, text)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setattr(redaction, "_SECRET_SHAPES", counting)
    return counting


def error_with(**fields: Any) -> bytes:
    return json.dumps({"error": {"code": 503, "status": "UNAVAILABLE", **fields}}).encode()


HUGE = {
    "message": error_with(message="busy " * (4 * MIB)),
    "one word": error_with(message="busy" * (4 * MIB)),
    "brackets": error_with(message="{" * 900_000 + "x" * MIB),
    "hint": error_with(message="retry in " + "1s" * (8 * MIB)),
    "details": error_with(message="busy", details=["x" * 100] * (MIB // 8)),
}


@pytest.mark.parametrize("begun", [False, True], ids=["at once", "after a chunk"])
@pytest.mark.parametrize("form", [b"data: %b\n\n", b"%b\n\n"], ids=["event", "bare"])
@pytest.mark.parametrize("body", HUGE.values(), ids=HUGE)
def test_error_event__that_is_huge_is_cut_before_it_is_read(
    emulator: Emulator, asking: Callable[..., Reply], searched: Counting, body: bytes, form: bytes, begun: bool
) -> None:
    emulator.api_key.answer(**packed(event("one ") * begun + form.replace(b"%b", body)))
    texts, error = drain(asking())
    told = error.__cause__ if isinstance(error, StreamInterrupted) else error
    assert (texts, type(told)) == (["one "] * begun, ServerError)
    assert isinstance(told, ServerError)
    assert (told.code, told.status, told.details) == (503, "UNAVAILABLE", ())
    assert str(told).startswith("503 UNAVAILABLE: ")
    assert len(str(told)) < 10_200
    assert searched.characters < MIB


NO_CHUNKS = {
    "no JSON": b"data: %s\n\n" % (b"x" * 16 * MIB),
    "a string": b'data: "%s"\n\n' % (b"x" * 16 * MIB),
    "an odd error": b'data: {"error": ["%s"]}\n\n' % (b"x" * 16 * MIB),
    "a bare object": b'{"a": "%s"}\n\n' % (b"x" * 16 * MIB),
    "deep": b"data: %s\n\n" % (b"[" * MIB),
    "deep and bare": b"%s\n\n" % (b'{"a":' * (MIB // 5)),
}


@pytest.mark.parametrize("body", NO_CHUNKS.values(), ids=NO_CHUNKS)
def test_event__that_is_huge_and_no_chunk_is_quoted_in_part(
    emulator: Emulator, asking: Callable[..., Reply], searched: Counting, body: bytes
) -> None:
    emulator.api_key.answer(**packed(body))
    _, error = drain(asking())
    assert type(error) is ProtocolError
    assert len(str(error)) < 700
    assert searched.characters < MIB


@pytest.mark.parametrize("body", HUGE.values(), ids=HUGE)
def test_error_body__that_is_a_bomb_is_read_in_part(
    emulator: Emulator, asking: Callable[..., Reply], searched: Counting, body: bytes
) -> None:
    emulator.api_key.fail(503, body=gzip.compress(body), headers={"Content-Encoding": "gzip"})
    _, error, peak = drained(asking())
    assert isinstance(error, ServerError)
    assert error.code == 503
    assert searched.characters < 4 * MIB
    assert peak < 12 * MIB


@pytest.mark.parametrize("route", ["token", "load_code_assist", "count_tokens"])
@pytest.mark.parametrize("body", [b"\n", b'{"a": 1}', b"[", b'{"a":'], ids=["blank", "objects", "deep", "deep objects"])
def test_answer__that_is_a_bomb_is_read_in_part(emulator: Emulator, tmp_path: Path, route: str, body: bytes) -> None:
    with Rig(emulator, tmp_path) as rig:
        rig.path = emulator.write_credentials(rig.path, expires_in=-60)
        bomb = {**packed(times(body, 64 * MIB)), "framing": "length"}
        (emulator.api_key if route == "count_tokens" else getattr(emulator, route)).answer(**bomb)
        key = {"api_key": None} if route != "count_tokens" else {"oauth_creds_path": None}
        adapter = rig.adapter(retry=ONCE, **key)
        tracemalloc.start()
        try:
            with pytest.raises(GeminiSyncError) as caught:
                adapter.count_tokens("Why?") if route == "count_tokens" else adapter.generate("Why?")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert len(str(caught.value)) < 1000
    assert peak < 10 * MIB


# -- JSON inside the limit of an event


JSON_BOMBS = {
    "objects": b"data: [%s{}]\n\n" % (b"{}," * 2 * MIB),
    "arrays": b'data: {"candidates": [%s[]]}\n\n' % (b"[]," * 2 * MIB),
    "numbers": b"data: [%s0]\n\n" % (b"0," * 2 * MIB),
    "strings": b'data: ["a"%s]\n\n' % (b',"ab"' * 2 * MIB),
    "nested": b"data: %s1\n\n" % (b'{"a":' * 2 * MIB),
    "bare objects": b"[%s{}]\n\n" % (b"{}," * 2 * MIB),
    "objects behind a cut": b"data: [%s{}" % (b"{}," * 2 * MIB),
}


@pytest.mark.parametrize("body", JSON_BOMBS.values(), ids=JSON_BOMBS)
def test_json_bomb__is_refused_before_it_is_decoded(
    emulator: Emulator, asking: Callable[..., Reply], body: bytes
) -> None:
    emulator.api_key.answer(**packed(body))
    _, error, peak = drained(asking())
    assert type(error) is ProtocolError
    assert "An event has more than 1048576 values, which would take far more memory than its bytes." in str(error)
    assert peak < 3 * len(body) + 2 * MIB


LINES = {
    "data": b"data\n" * 10**5 + b"\n",
    "fields": b"id\n" * 10**5 + b"\n",
    "bare": b"[\n" + b"12\n" * 10**5 + b"]\n\n",
}


@pytest.mark.parametrize("body", LINES.values(), ids=LINES)
def test_event__of_millions_of_lines_is_refused(
    emulator: Emulator, asking: Callable[..., Reply], monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(sse, "_MOST_VALUES", 2**14)
    emulator.api_key.answer(**packed(body))
    _, error, peak = drained(asking(max_event_bytes=2**20))
    assert type(error) is ProtocolError
    assert "An event has more than 16384 lines, which would take far more memory than its bytes." in str(error)
    assert peak < 6 * MIB
