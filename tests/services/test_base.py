"""What the services make of answers: odd events, envelopes, content types, refused tokens, large events."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any, Optional

import pytest

from gemini_sync import (
    ApiError,
    AuthError,
    Endpoints,
    ProtocolError,
    Reply,
    Retry,
    ServerError,
    StreamInterrupted,
    stream_gemini_api_key,
)
from gemini_sync import stream_gemini_oauth as stream_oauth
from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.credentials import Credentials
from gemini_sync.auth.sources import CallableSource
from gemini_sync.errors import UNREADABLE_ANSWER
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.services.api_key import ApiKeyService
from gemini_sync.services.base import JsonApi, with_token
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import TIMEOUTS, ask, chunk
from tests.network.transport_kit import HOST, Canned, Pieces

SSE = "text/event-stream"
WHOLE = json.dumps(chunk("Hello", finish="STOP").raw).encode()
PART = json.dumps(chunk("Hel").raw).encode()
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
def test_event__without_data_is_passed_over(emulator: Emulator, data: bytes) -> None:
    assert list(by_key(emulator, event(data) + event(WHOLE) + event(data))) == ["Hello"]
    with pytest.raises(ProtocolError, match="before the first chunk"):
        list(by_key(emulator, event(data)))


@pytest.mark.parametrize("data", [WHOLE + b" ", b" " + WHOLE, WHOLE.replace(b": ", b" :\t")])
def test_event__with_white_space_around(emulator: Emulator, data: bytes) -> None:
    assert list(by_key(emulator, event(data))) == ["Hello"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[]", "came list"),
        (b"3", "came int"),
        (b'"text"', "came str"),
        (WHOLE + WHOLE, "is not JSON"),
        (b"{bad", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"upstream timed out", "is not JSON.*'upstream timed out'"),
        (b"key=AIzaSyEXAMPLE-canary_00 is bad", r"is not JSON.*'key=\[redacted\] is bad'"),
        (b'{"error": "odd"}', "odd"),
        (b'{"error": 5}', "came an object"),
    ],
)
def test_event__that_is_no_chunk(emulator: Emulator, data: bytes, message: str) -> None:
    gc.collect()  # in the deep recursion of the parser, nothing of earlier tests can be finalized
    with pytest.raises((ProtocolError, ApiError), match=message):
        list(by_key(emulator, event(data)))


@pytest.mark.parametrize("data", [b"{bad", b"5"])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_event__that_is_no_chunk_has_a_number_in_the_message(emulator: Emulator, data: bytes, before: int) -> None:
    with pytest.raises((ProtocolError, StreamInterrupted), match=f"Event {before + 1} is "):
        list(by_key(emulator, event(PART) * before + event(data)))


def test_object__outside_the_events(emulator: Emulator) -> None:
    with pytest.raises(ProtocolError, match="an object outside the events") as caught:
        list(by_key(emulator, b'{"candidates": []}\n'))
    assert caught.value.reason == UNREADABLE_ANSWER
    with pytest.raises(ServerError, match="503 UNAVAILABLE: busy"):
        list(by_key(emulator, b'{"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}\n'))


def test_error__that_is_null_is_no_error(emulator: Emulator) -> None:
    assert list(by_key(emulator, event(WHOLE[:-1] + b', "error": null}'))) == ["Hello"]


@pytest.mark.parametrize(
    "content_type", ["text/event-stream; charset=utf-8", "Text/Event-Stream", " text/event-stream "]
)
def test_content_type__with_other_spellings(emulator: Emulator, content_type: str) -> None:
    assert list(by_key(emulator, event(WHOLE), content_type)) == ["Hello"]


@pytest.mark.parametrize("content_type", ["application/json", "text/html", "text/event-streams"])
def test_content_type__of_something_else(emulator: Emulator, content_type: str) -> None:
    """The message names the content type, with a bounded part of the body."""
    with pytest.raises(ProtocolError, match=f"came status 200 with {content_type}") as caught:
        list(by_key(emulator, b"<p>" + b"x" * 10_000, content_type))
    assert caught.value.code == 200
    assert len(str(caught.value)) < 800


def test_json_error__inside_a_200_has_its_own_code(emulator: Emulator) -> None:
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


def test_envelope__that_is_missing_is_no_answer(emulator: Emulator) -> None:
    reply = by_oauth(emulator, event(WHOLE))
    with pytest.raises(Exception, match="without a finish reason"):
        list(reply)
    assert reply.text == ""


# -- tokens


def test_with_token__that_the_server_refuses_is_not_sent_again() -> None:
    sent = []

    def refuse(token: AccessToken) -> None:
        sent.append(token.access_token)
        raise AuthError("401")

    with pytest.raises(AuthError):
        with_token(Credentials(CallableSource(lambda: "a-token")), Call(), refuse)
    assert sent == ["a-token"]


def test_with_token__that_the_server_refuses_is_dropped() -> None:
    tokens = ["first", "second"]

    class Provider:
        def fetch(self, call: Call) -> AccessToken:
            return AccessToken(tokens[0])

        def invalidate(self, access_token: str) -> None:
            tokens.remove(access_token)

    def use(token: AccessToken) -> str:
        if token.access_token == "first":
            raise AuthError("401")
        return token.access_token

    assert with_token(Provider(), Call(), use) == "second"


# -- memory


def test_large_event__is_in_memory_once() -> None:
    """Only the chunk stays in memory. Together with the text of its event it would be twice as large."""
    size = 4 * 2**20

    def body() -> Iterator[bytes]:
        yield b'data: {"candidates": [{"content": {"parts": [{"text": "'
        for _ in range(size // 2**16):
            yield b"x" * 2**16
        yield b'"}]}}]}\n\n'

    transport = Transport(Canned(lambda: Pieces(body())).session)
    service = ApiKeyService("a-key", transport, Endpoints(gemini=HOST))
    tracemalloc.start()
    try:
        first, rest = service.open(ask(), Call().start())
        held = tracemalloc.get_traced_memory()[0]
        assert len(first.text) == size
    finally:
        tracemalloc.stop()
    assert held < 1.5 * size
    assert list(rest) == []


@pytest.mark.parametrize("envelope", [None, "response"])
def test_large_chunk__is_freed_before_the_next_event_comes(envelope: Optional[str]) -> None:
    """A stream that waits for the next event keeps nothing of a chunk that its reader has dropped."""
    size, held = 4 * 2**20, []

    def wrapped(text: bytes) -> bytes:
        return b'data: {"response": {"text": "' + text + b'"}}\n\n'

    def body() -> Iterator[bytes]:
        large = wrapped(b"x" * size)
        yield from (large[start : start + 2**16] for start in range(0, len(large), 2**16))
        del large
        held.append(tracemalloc.get_traced_memory()[0])
        yield wrapped(b"small")

    api = JsonApi(Transport(Canned(lambda: Pieces(body())).session), HOST)
    tracemalloc.start()
    try:
        first, rest = api.stream(Call().start(), "/stream", {}, {}, envelope)
        assert len(json.dumps(first.raw)) > size
        del first
        next(rest)
    finally:
        tracemalloc.stop()
    assert len(held) == 1
    assert held[0] < 0.5 * size
