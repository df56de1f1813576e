"""Answers that are small on the wire and costly behind it, over real sockets. The tests measure memory and bytes."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any, Callable

import pytest

from gemini_sync import (
    GeminiSyncError,
    ProtocolError,
    Reply,
    ServerError,
    StreamInterrupted,
    redaction,
)
from gemini_sync.messages import sse
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Rig
from tests.wire.bomb_kit import MIB, drained, packed, times
from tests.wire.support import ONCE, drain, event

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
