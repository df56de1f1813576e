"""Each event reaches the caller before the next one is sent, whatever carries it."""

from __future__ import annotations

import threading

import pytest

from tests.wire.raw_server import EVENT_STREAM, SECONDS, RawServer
from tests.wire.support import FRAMINGS, ask, chunk, event, telling

EVENTS = 50


@pytest.mark.parametrize("framing", FRAMINGS)
def test_event__arrives_before_the_next_is_sent(server, route, framing):
    received, in_time = threading.Semaphore(0), []

    def wait_for_reader(index):
        if index:
            in_time.append(received.acquire(timeout=SECONDS))

    texts = [f"piece {index} " for index in range(EVENTS)]
    chunks = [chunk(text) for text in texts[:-1]] + [chunk(texts[-1], "STOP")]
    getattr(server, route).answer(chunks=chunks, framing=framing, pace=wait_for_reader)
    came = []
    for text in ask(server, route):
        came.append(text)
        received.release()
    assert came == texts
    assert in_time == [True] * (EVENTS - 1)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_event__arrives_with_the_line_end_that_completes_it(server, framing):
    received, in_time = threading.Semaphore(0), []

    def wait_for_reader(index):
        # Write 3 completes a line end and holds the second event without its own; write 5 completes the second event.
        if index in (3, 5):
            in_time.append(received.acquire(timeout=SECONDS))

    writes = [b"da", b'ta: {"candidates": [{"content": {"parts": [{"text": "one"}]}}]}\r', b"\n\r"]
    writes += [
        b'\ndata:{"candidates": [{"finishReason": "STOP",',
        b'"content": {"parts": [{"text": "two"}]}}]}\n\n',
        b": end\n",
    ]
    server.api_key.answer(body=b"".join(writes), pieces=writes, framing=framing, pace=wait_for_reader)
    came = []
    for text in ask(server):
        came.append(text)
        received.release()
    assert came == ["one", "two"]
    assert in_time == [True, True]


def test_event__arrives_before_the_line_end_that_closes_its_http_chunk(context):
    received, in_time = threading.Event(), []
    first, last = event("one"), event("two", "STOP")

    def script(peer):
        peer.read_request()
        peer.send(EVENT_STREAM + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(first) + first)
        in_time.append(received.wait(SECONDS))
        peer.send(b"\r\n%x\r\n" % len(last) + last + b"\r\n0\r\n\r\n")

    with RawServer(script, tls=context) as raw:
        assert list(telling(ask(raw.url), received)) == ["one", "two"]
    assert in_time == [True]
