"""The deadlines of the services: of counting tokens, and of readers that are slow."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
import requests

from gemini_sync import (
    DeadlineExceeded,
    ProtocolError,
    Reply,
    Retry,
    StreamInterrupted,
    Timeouts,
)
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Rig, chunk
from tests.network.transport_kit import Canned, Pieces, endless, mocked

ONCE = Retry(1)
WORDS = [("a", None), ("b", None), ("c", None), ("d", "STOP")]


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


# -- deadlines


@pytest.mark.parametrize(("first_token", "seconds"), [(2.5, 2.5), (30, 30.0), (120, 30.0), (None, 30.0)])
def test_count_tokens__waits_no_longer_than_for_a_first_token(first_token: Optional[float], seconds: float) -> None:
    """The limit is for the headers (the timeout that requests gets) and for the body, which comes a byte a second."""
    now = [0.0]

    def pass_time() -> None:
        now[0] += 1.0

    canned = Canned(lambda: Pieces(endless(b" "), pass_time))
    limits = Timeouts(connect=7, first_token=first_token)
    adapter = mocked(session_factory=canned.session, timeouts=limits, clock=lambda: now[0], retry=ONCE)
    with adapter, pytest.raises(DeadlineExceeded) as caught:
        adapter.count_tokens("Hi")
    assert [sent["timeout"] for sent in canned.sent] == [(7, seconds)]
    deadline, step = ("first_token", "Raise Timeouts.first_token") if seconds < 30 else ("answer", "No setting changes")
    assert (caught.value.deadline, caught.value.seconds) == (deadline, seconds)
    assert f"within {seconds:g} s. {step}" in str(caught.value)
    assert now == [math.ceil(seconds)]


def test_count_tokens__on_the_oauth_route_too(emulator: Emulator, tmp_path: Path) -> None:
    timeouts: list[Any] = []

    class Session(requests.Session):
        def send(self, request: Any, **options: Any) -> requests.Response:
            timeouts.append((request.url.rpartition(":")[2], options["timeout"]))
            return super().send(request, **options)

    with Rig(emulator, tmp_path) as rig:
        limits = Timeouts(connect=20, first_token=12.5)
        adapter = rig.adapter(session_factory=Session, timeouts=limits, clock=lambda: 0.0)
        assert adapter.count_tokens("Hi") > 0
    assert timeouts[-1] == ("countTokens", (20, 12.5))


@pytest.mark.parametrize("total", ["true", '"five"', "null", "5.5", "{}"])
def test_count_tokens__without_a_number_in_the_answer(emulator: Emulator, tmp_path: Path, total: str) -> None:
    emulator.api_key.answer(body=b'{"totalTokens": %b}' % total.encode(), content_type="application/json")
    with (
        Rig(emulator, tmp_path) as rig,
        pytest.raises(ProtocolError, match="Expected a JSON object with a number in totalTokens"),
    ):
        rig.adapter(oauth_creds_path=None).count_tokens("Hi")


@pytest.mark.parametrize("total", ["5", '"5"', "5.0"])
def test_count_tokens__as_a_string_or_a_float(emulator: Emulator, tmp_path: Path, total: str) -> None:
    emulator.api_key.answer(body=b'{"totalTokens": %b}' % total.encode(), content_type="application/json")
    with Rig(emulator, tmp_path) as rig:
        assert rig.adapter(oauth_creds_path=None).count_tokens("Hi") == 5


@pytest.mark.parametrize("way", [iter, Reply.chunks])
def test_total__ends_a_reader_after_the_last_read(way: Callable[[Reply], Iterator[Any]]) -> None:
    """The whole answer came with the first read, so no later read can notice that the deadline passed."""
    now, reads = [0.0], []
    body = b"".join(event(json.dumps(chunk(text, finish).raw).encode()) for text, finish in WORDS)
    canned = Canned(lambda: Pieces([body], lambda: reads.append(now[0])))
    limits = Timeouts(first_token=None, idle=None, total=10)
    with mocked(session_factory=canned.session, timeouts=limits, clock=lambda: now[0]) as adapter:
        reply = adapter.stream("Hi")
        coming = way(reply)
        next(coming)
        now[0] += 9.0
        next(coming)
        now[0] += 1.0
        with pytest.raises(StreamInterrupted) as caught:
            next(coming)
    cause = caught.value.__cause__
    assert isinstance(cause, DeadlineExceeded)
    assert (cause.deadline, cause.seconds, caught.value.cancelled) == ("total", 10, False)
    assert (reply.text, reads, len(canned.sent)) == ("ab", [0.0], 1)


def test_total__is_the_only_deadline_of_a_slow_reader() -> None:
    """A reader may be slower than ``idle``, because that deadline is for the server alone."""
    now = [0.0]
    body = b"".join(event(json.dumps(chunk(text, finish).raw).encode()) for text, finish in WORDS)
    canned = Canned(lambda: Pieces([body]))
    limits = Timeouts(first_token=5, idle=5, total=100)
    with mocked(session_factory=canned.session, timeouts=limits, clock=lambda: now[0]) as adapter:
        came = []
        for text in adapter.stream("Hi"):
            came.append(text)
            now[0] += 20.0
    assert came == [text for text, _ in WORDS]
