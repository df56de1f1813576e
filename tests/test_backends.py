"""Holds the two backends to what a chunk is and is not: odd events, envelopes, content types, counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gemini_sync import ApiError, Endpoints, ProtocolError, Reply, Retry, ServerError, stream_gemini_api_key
from gemini_sync import stream_gemini_oauth as stream_oauth
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import TIMEOUTS, chunk

SSE = "text/event-stream"
WHOLE = json.dumps(chunk("Hello", finish="STOP").raw).encode()
ONCE = Retry(1)


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def by_key(emulator: Emulator, body: bytes, content_type: str = SSE) -> Reply:
    emulator.api_key.answer(body=body, content_type=content_type)
    given = {"endpoints": Endpoints(**emulator.urls), "timeouts": TIMEOUTS, "retry": ONCE}
    return stream_gemini_api_key("Hi", emulator.key, **given)


def by_oauth(emulator: Emulator, body: bytes) -> Reply:
    emulator.oauth.answer(body=body, content_type=SSE)
    given = {"endpoints": Endpoints(**emulator.urls), "timeouts": TIMEOUTS, "retry": ONCE}
    return stream_oauth("Hi", emulator.issue_token(), "my-project", **given)


@pytest.mark.parametrize("data", [b"", b" ", b"\t "])
def test_event__without_data_is_a_sign_of_life(emulator: Emulator, data: bytes) -> None:
    assert list(by_key(emulator, event(data) + event(WHOLE) + event(data))) == ["Hello"]
    with pytest.raises(ProtocolError, match="before the first chunk"):
        list(by_key(emulator, event(data)))


@pytest.mark.parametrize("data", [WHOLE + b" ", b" " + WHOLE, WHOLE.replace(b": ", b" :\t")])
def test_event__may_have_white_space_around(emulator: Emulator, data: bytes) -> None:
    assert list(by_key(emulator, event(data))) == ["Hello"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"null", "came NoneType"),
        (b"[]", "came list"),
        (b"3", "came int"),
        (b'"text"', "came str"),
        (WHOLE + WHOLE, "is not JSON"),
        (b"{bad", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[DONE]", "is not JSON"),
        (b'{"error": "odd"}', "odd"),
        (b'{"error": 5}', "came an object"),
    ],
)
def test_event__that_is_no_chunk(emulator: Emulator, data: bytes, told: str) -> None:
    with pytest.raises((ProtocolError, ApiError), match=told):
        list(by_key(emulator, event(data)))


def test_object__outside_the_events(emulator: Emulator) -> None:
    with pytest.raises(ProtocolError, match="an object outside the events"):
        list(by_key(emulator, b'{"candidates": []}\n'))
    with pytest.raises(ServerError, match="503 UNAVAILABLE: busy"):
        list(by_key(emulator, b'{"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}\n'))


def test_error__that_is_null_is_none(emulator: Emulator) -> None:
    assert list(by_key(emulator, event(WHOLE[:-1] + b', "error": null}'))) == ["Hello"]


@pytest.mark.parametrize(
    "content_type", ["text/event-stream; charset=utf-8", "Text/Event-Stream", " text/event-stream "]
)
def test_content_type__is_read_as_http_says(emulator: Emulator, content_type: str) -> None:
    assert list(by_key(emulator, event(WHOLE), content_type)) == ["Hello"]


@pytest.mark.parametrize("content_type", ["application/json", "text/html", "text/event-streams"])
def test_content_type__of_something_else(emulator: Emulator, content_type: str) -> None:
    """The message names it, with a bounded part of what came."""
    with pytest.raises(ProtocolError, match=f"came status 200 with {content_type}") as caught:
        list(by_key(emulator, b"<p>" + b"x" * 10_000, content_type))
    assert caught.value.code == 200
    assert len(str(caught.value)) < 800


def test_json_error__as_a_200_counts_as_its_code(emulator: Emulator) -> None:
    body = b'[{"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}]'
    with pytest.raises(ServerError, match="503 UNAVAILABLE: busy"):
        list(by_key(emulator, body, "application/json"))


def test_envelope__is_kept_beside_the_chunk(emulator: Emulator) -> None:
    sent = {
        "response": chunk("Hello", finish="STOP").raw,
        "traceId": "t-1",
        "remainingCredits": [{"creditAmount": "5"}],
    }
    (came,) = by_oauth(emulator, event(json.dumps(sent).encode())).chunks()
    assert (came.raw, came.envelope, came.trace_id) == (sent["response"], sent, "t-1")


@pytest.mark.parametrize("odd", [{}, {"response": None}, {"response": []}, {"response": "text"}, {"traceId": 5}])
def test_envelope__without_a_response_is_an_empty_chunk(emulator: Emulator, odd: dict[str, Any]) -> None:
    whole = {"response": chunk("Hello", finish="STOP").raw}
    reply = by_oauth(emulator, event(json.dumps(odd).encode()) + event(json.dumps(whole).encode()))
    assert [came.text for came in reply.chunks()] == ["", "Hello"]


def test_unwrapped_chunk__on_the_oauth_route_is_no_answer(emulator: Emulator) -> None:
    reply = by_oauth(emulator, event(WHOLE))
    with pytest.raises(Exception, match="without a finish reason"):
        list(reply)
    assert reply.text == ""
