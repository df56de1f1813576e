"""Answers that come in an odd form from gateways, over real sockets. What can be read is read, and bought once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Optional

import pytest

from gemini_sync import DeadlineExceeded, ProtocolError, StreamInterrupted, Timeouts
from gemini_sync.errors import UNREADABLE_ANSWER
from tests.wire.raw_server import Peer, RawServer
from tests.wire.support import AT_ONCE, ask, chunk, drain

SSE = b"Content-Type: text/event-stream\r\n"
ROUTES = ("api_key", "oauth")
TRIES = AT_ONCE.max_attempts


def wrapped(text: str, finish: Optional[str], route: str) -> dict[str, Any]:
    return {"response": chunk(text, finish)} if route == "oauth" else chunk(text, finish)


def answer_in(route: str) -> list[dict[str, Any]]:
    return [wrapped("Hel", None, route), wrapped("lo ", None, route), wrapped("you", "STOP", route)]


def as_events(chunks: list[Any], end: bytes = b"\r\n\r\n") -> bytes:
    return b"".join(b"data: " + (one if isinstance(one, bytes) else json.dumps(one).encode()) + end for one in chunks)


@contextlib.contextmanager
def serving(body: bytes, headers: bytes = SSE, status: bytes = b"200 OK") -> Iterator[RawServer]:
    """A server that answers each request in this way, and then closes the connection."""

    def script(peer: Peer) -> None:
        request = peer.read_request()
        if request:
            server.requests.append(request)
            peer.send(b"HTTP/1.1 " + status + b"\r\n" + headers + b"Connection: close\r\n\r\n" + body)

    with RawServer(script) as server:
        yield server


# -- what can be read

HEADERS = {
    "text/plain": b"Content-Type: text/plain; charset=utf-8\r\n",
    "text/html": b"Content-Type: text/html\r\n",
    "json": b"Content-Type: application/json\r\n",
    "binary": b"Content-Type: application/octet-stream\r\n",
    "no type": b"",
    "empty type": b"Content-Type:\r\n",
    "twice": SSE * 2,
    "twice in one": b"Content-Type: text/event-stream, text/event-stream\r\n",
    "two types": SSE + b"Content-Type: application/json\r\n",
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", b": ping\n\n", b"\r\nevent: message\n", b"retry: 10\n\n"])
def test_content_type__events_are_read_under_any(route: str, headers: bytes, begin: bytes) -> None:
    with serving(begin + as_events(answer_in(route)), headers) as server:
        reply = ask(server.url, route)
        assert drain(reply) == (["Hel", "lo ", "you"], None)
        assert (len(server.requests), len(reply.attempts)) == (1, 1)


@pytest.mark.parametrize("status", [b"201 Created", b"206 Partial Content", b"202 Accepted"])
def test_status__any_good_one_is_read(status: bytes) -> None:
    with serving(as_events(answer_in("api_key")), SSE, status) as server:
        assert drain(ask(server.url)) == (["Hel", "lo ", "you"], None)
        assert len(server.requests) == 1


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("headers", [SSE, HEADERS["json"], HEADERS["no type"]])
@pytest.mark.parametrize("layout", ["compact", "indented", "as Google sends it"])
def test_array__of_chunks_is_read(route: str, headers: bytes, layout: str) -> None:
    chunks = answer_in(route)
    body = {
        "compact": json.dumps(chunks),
        "indented": "\n" + json.dumps(chunks, indent=2) + "\n",
        "as Google sends it": "[" + "\n,\r\n".join(json.dumps(one, indent=2) for one in chunks) + "\n]\n",
    }[layout]
    with serving(body.encode(), headers) as server:
        assert drain(ask(server.url, route)) == (["Hel", "lo ", "you"], None)
        assert len(server.requests) == 1


@pytest.mark.parametrize("route", ROUTES)
def test_one_object__is_read_as_the_only_chunk(route: str) -> None:
    with serving(json.dumps(wrapped("Hello", "STOP", route), indent=2).encode(), HEADERS["json"]) as server:
        assert drain(ask(server.url, route)) == (["Hello"], None)


@pytest.mark.parametrize("headers", [SSE, HEADERS["text/plain"]])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_events__that_end_with_one_newline(headers: bytes, newline: bytes) -> None:
    with serving(as_events(answer_in("api_key"), newline), headers) as server:
        assert drain(ask(server.url)) == (["Hel", "lo ", "you"], None)
        assert len(server.requests) == 1


def test_stream__under_another_type_arrives_as_it_is_sent() -> None:
    """The first text is there while the server still waits to send the second."""
    first, second = as_events(answer_in("api_key")[:1]), as_events(answer_in("api_key")[2:])

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")
        for piece in (first[:3], first[3:]):
            peer.send(piece)
        peer.read_request()  # until the client has gone
        peer.send(second)

    with RawServer(script) as server:
        reply = ask(server.url)
        assert next(reply) == "Hel"
        reply.close()


# -- what cannot be read


@pytest.mark.parametrize("body", [b"<!DOCTYPE html><p>Log in", b"upstream connect error", b"{bad", b"da", b""])
@pytest.mark.parametrize("headers", [HEADERS["text/plain"], HEADERS["text/html"], HEADERS["no type"]])
def test_body__of_a_proxy_is_tried_again_and_its_words_are_shown(body: bytes, headers: bytes) -> None:
    with serving(body, headers) as server:
        _, error = drain(ask(server.url))
        assert isinstance(error, ProtocolError)
        assert f"{body.decode()!r}. A proxy or login page may have answered" in str(error)
        assert (error.code, error.reason, len(server.requests)) == (200, None, TRIES)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"choices": [{"text": "Hello"}]}', HEADERS["json"]),
        (b'{"choices": [{"text": "Hello"}]}', SSE),
        (b"[1, 2]", HEADERS["json"]),
        (b"data: 5\n\n", SSE),
        (b"\x0a\x08\x12\x06", b"Content-Type: application/grpc\r\n"),
    ],
)
def test_body__of_another_format_has_a_reason_of_its_own(body: bytes, headers: bytes) -> None:
    """The table of decisions can tell it from a broken stream, because it would come in the same way each time."""
    with serving(body, headers) as server:
        _, error = drain(ask(server.url))
        assert isinstance(error, ProtocolError)
        assert error.reason == UNREADABLE_ANSWER


def test_body__that_drips_is_bounded() -> None:
    def script(peer: Peer) -> None:
        if peer.read_request():
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nno events here")
            peer.wait_gone()

    with RawServer(script) as server:
        _, error = drain(ask(server.url, timeouts=Timeouts(first_token=0.1)))
        assert isinstance(error, DeadlineExceeded)


# -- events that are no JSON object


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "odd", [b"data: [DONE]\n\n", b"data: null\n\n", b"event: ping\ndata: still here\n\n", b"data:\n\n"]
)
@pytest.mark.parametrize("place", range(4))
def test_odd_event__is_passed_over(route: str, odd: bytes, place: int) -> None:
    chunks = answer_in(route)
    with serving(as_events(chunks[:place]) + odd + as_events(chunks[place:])) as server:
        assert drain(ask(server.url, route)) == (["Hel", "lo ", "you"], None)
        assert len(server.requests) == 1


@pytest.mark.parametrize("odd", [b"bye", b"5", b"[]", b"{bad"])
def test_odd_event__after_a_finish_reason_is_passed_over(odd: bytes) -> None:
    with serving(as_events([*answer_in("api_key"), odd])) as server:
        assert drain(ask(server.url)) == (["Hel", "lo ", "you"], None)


def test_odd_event__before_a_finish_reason_interrupts_and_shows_its_words() -> None:
    with serving(as_events([*answer_in("api_key")[:2], b"upstream timed out"])) as server:
        texts, error = drain(ask(server.url))
        assert texts == ["Hel", "lo "]
        assert isinstance(error, StreamInterrupted)
        assert "'upstream timed out'" in str(error)
        assert error.reason is None


# -- halves of characters


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("old_model", [False, True], ids=["", "a finish reason on each chunk"])
def test_emoji__in_two_chunks_is_one(route: str, old_model: bool) -> None:
    texts = ["Hi \ud83d", "\ude00!", " \ud83d", " \ude00", "x\ud83d"]
    finishes = ["STOP"] * 5 if old_model else [None] * 4 + ["STOP"]
    chunks = [wrapped(text, finish, route) for text, finish in zip(texts, finishes)]
    with serving(as_events(chunks)) as server:
        reply = ask(server.url, route)
        came, error = drain(reply)
    assert error is None
    assert "".join(came) == reply.text == "Hi \U0001f600! \ufffd \ufffdx\ufffd"
    assert reply.content == {"role": "model", "parts": [{"text": reply.text}]}
    for piece in came:
        assert piece.encode()
