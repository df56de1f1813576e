"""Faults over a recording and over a stream made by ``add_stream``, and what a caller sees of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import responses

from gemini_sync import (
    ApiError,
    DeadlineExceeded,
    GeminiDualAdapter,
    QuotaError,
    Retry,
    StreamInterrupted,
    TransportError,
)
from gemini_sync.testing import add_stream, broken, faults, replay
from gemini_sync.testing.cassette.storing import save
from gemini_sync.testing.cassette.values import Body, Cassette, Exchange, Request, Response
from gemini_sync.testing.faults import Turn, apply
from gemini_sync.testing.synthetic import stream_response, token_exchange
from tests.testing.cassette_kit import ANSWER, ask_plain, exchange, tape_of
from tests.testing.mocks_kit import dual
from tests.wire.support import drain

PROMPT = {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]}


def outcome(reply: Any) -> tuple[str, Any]:
    chunks, error = drain(reply.chunks())
    return "".join(chunk.text for chunk in chunks), error


def interrupted(reply: Any) -> tuple[str, BaseException]:
    text, error = outcome(reply)
    assert isinstance(error, StreamInterrupted)
    assert error.partial.text == text
    assert error.__cause__ is not None
    return text, error.__cause__


@pytest.fixture(params=["cassette", "stream"])
def serve(request):
    """Serves three events with faults, from a cassette or from a mock; the result asks for them."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        players = []

        def start(*given, **settings):
            if request.param == "stream":
                add_stream(mock, ["one", " two", " three"], faults=given)
            else:
                players.append(replay(broken(tape_of(exchange()), given)))
                players[-1].__enter__()
            return ask_plain("Why?", **settings)

        yield start
        for player in players:
            player.__exit__(None, None, None)


# -- a stream that breaks


@pytest.mark.parametrize("fault", [faults.cut, faults.reset])
@pytest.mark.parametrize(("after", "text"), [(1, "one"), (2, "one two"), (3, "one two three")])
def test_connection__that_ends(serve, fault, after, text):
    got, cause = interrupted(serve(fault(after=after)))
    assert got == text
    assert isinstance(cause, TransportError)


def test_connection__that_ends_at_a_byte():
    with replay(broken(tape_of(exchange()), faults.cut(at=len(ANSWER[0]) + 20))):
        assert interrupted(ask_plain())[0] == "one"


@pytest.mark.parametrize("fault", [faults.cut(after=0), faults.cut(at=0), faults.reset(at=5), faults.truncate(after=0)])
def test_connection__that_ends_before_any_chunk(serve, fault):
    text, error = outcome(serve(fault, retry=Retry(max_attempts=1)))
    assert text == ""
    assert error is not None
    assert not isinstance(error, StreamInterrupted) or error.partial.text == ""


def test_stall__in_mid_stream(serve):
    text, cause = interrupted(serve(faults.stall(after=1)))
    assert text == "one"
    assert isinstance(cause, DeadlineExceeded)
    assert cause.deadline == "idle"


def test_stall__before_the_headers(serve):
    text, error = outcome(serve(faults.stall(), retry=Retry(max_attempts=1)))
    assert text == ""
    assert isinstance(error, DeadlineExceeded)
    assert error.deadline == "first_token"


def test_truncate__is_a_stream_without_a_finish_reason(serve):
    assert outcome(serve(faults.truncate(after=2)))[0] == "one two"


def test_error_event__after_stop(serve):
    text, error = outcome(serve(faults.error_event(429, retry_after=7)))
    assert text == "one two three"
    cause = error.__cause__ or error
    assert isinstance(cause, QuotaError)
    assert (cause.code, cause.retry_after) == (429, 7)


def test_error_event__in_the_middle(serve):
    text, cause = interrupted(serve(faults.error_event(503, after=1, reason="MODEL_CAPACITY_EXHAUSTED")))
    assert text == "one"
    assert isinstance(cause, ApiError)
    assert (cause.code, cause.reason) == (503, "MODEL_CAPACITY_EXHAUSTED")


# -- what comes before a stream


def test_refused__429_and_then_200(serve):
    reply = serve(faults.refused(429, retry_after=0.001))
    assert outcome(reply) == ("one two three", None)
    assert [attempt.outcome for attempt in reply.attempts] == ["failed", "answered"]
    assert reply.attempts[0].retry_after == 0.001


def test_refused__several_times_and_then_a_cut(serve):
    reply = serve(faults.refused(503, times=2), faults.cut(after=1))
    assert interrupted(reply)[0] == "one"
    assert len(reply.attempts) == 3


def code_assist(text: str = "Hi") -> Exchange:
    body = {"model": "m", "project": "p", "request": PROMPT}
    url = "https://cloudcode-pa.googleapis.com/v1internal:streamGenerateContent?alt=sse"
    response = stream_response([text, " there"], route="oauth", model="m")
    return Exchange(Request("POST", url, {}, json.dumps(body).encode()), response)


def dual_on_m(folder: Path, **settings: Any) -> GeminiDualAdapter:
    return dual(folder, expired=False, model="m", project="p", **settings)


@pytest.mark.parametrize("recorded", [True, False])
def test_expired_token__in_a_cassette_is_refreshed(tmp_path, recorded):
    tape = tape_of(*[token_exchange()] * recorded, code_assist())
    adapter = dual(tmp_path, expired=recorded, model="m", project="p")
    with adapter, replay(broken(tape, faults.expired_token())) as player:
        reply = adapter.generate("Why?")
        assert (reply.text, reply.route, adapter.fallback_active) == ("Hi there", "oauth", False)
        assert player.unused == []


def test_expired_token__beside_mocks(tmp_path):
    with responses.RequestsMock() as mock, dual_on_m(tmp_path) as adapter:
        add_stream(mock, "Hi", route="oauth", faults=faults.expired_token())
        assert adapter.generate("Why?").route == "oauth"


def test_expired_token__of_an_api_key_refreshes_nothing():
    assert len(broken(tape_of(exchange()), faults.expired_token()).exchanges) == 2


def test_fallback__over_a_broken_route(tmp_path):
    with responses.RequestsMock() as mock:
        add_stream(mock, "by OAuth", route="oauth", faults=faults.refused(429, reason="QUOTA_EXHAUSTED"))
        add_stream(mock, "by key")
        mock.assert_all_requests_are_fired = False
        with dual_on_m(tmp_path, on_fallback=lambda event: None) as adapter:
            assert adapter.generate("Why?").text == "by key"
            assert adapter.fallback_active


# -- which exchange, which faults


def test_broken__file_stays_as_it_is(tmp_path):
    path = tmp_path / "a.yaml"
    save(tape_of(exchange()), path)
    before = path.read_bytes()
    with replay(broken(path, faults.cut(after=1))) as player:
        assert interrupted(ask_plain())[0] == "one"
        assert player.cassette.path == str(path)
    assert path.read_bytes() == before


def test_broken__takes_the_first_stream_or_the_one_that_is_named():
    other = Exchange(Request("GET", "https://example.com/"), Response())
    tape = tape_of(other, exchange(), exchange(), other)
    first = broken(tape, faults.cut(after=1)).exchanges
    assert [len(one.response.body.segments) for one in first] == [0, 1, 3, 0]
    third = broken(tape, [faults.refused(), faults.cut(after=2)], exchange=3).exchanges
    assert [one.response.status for one in third] == [200, 200, 429, 200, 200]
    assert [len(one.response.body.segments) for one in third] == [0, 3, 1, 2, 0]


@pytest.mark.parametrize("number", [None, 1, 2])
def test_broken__needs_a_stream(number):
    tape = Cassette((Exchange(Request("GET", "https://example.com/"), Response()),), "a.yaml")
    with pytest.raises(ValueError, match=r"a\.yaml has 1 exchanges, but no stream"):
        broken(tape, faults.cut(after=1), exchange=number)


def test_broken__keeps_the_borders_and_the_pace():
    body = Body((b"data: 1\r\n", b"\r\ndata: 2", b"\r\n\r\n"), (0.1, 0.2, 0.3))
    turn = Turn(Response(200, {}, body), "api_key")
    (after,) = apply(faults.cut(after=1), turn)
    assert after.response.body == Body((b"data: 1\r\n", b"\r\n"), (0.1, 0.2), "cut")
    (at,) = apply([faults.stall(at=12)], turn)
    assert at.response.body == Body((b"data: 1\r\n", b"\r\nd"), (0.1, 0.2), "timeout")


def test_broken__request_of_unknown_body_stays():
    hop = broken(tape_of(exchange(body=None)), faults.hop())
    assert [one.request.body for one in hop.exchanges] == [None, None]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (faults.cut(after=4), "expected at most 3 events, because the stream has no more, came 4"),
        (faults.cut(at=10**6), "bytes, because the stream has no more"),
        (faults.error_event(after=-1), "came -1"),
        (faults.hop(after=3), "expected at most 2 events"),
        (faults.checkpoint(after=0), "at least 1"),
        ([faults.stall(), faults.cut(after=1)], "no stream left"),
    ],
)
def test_fault__that_cannot_happen(given, said):
    with pytest.raises(ValueError, match=said):
        broken(tape_of(exchange()), given)


@pytest.mark.parametrize("given", [{}, {"after": 1, "at": 1}])
def test_cut__takes_one_place(given):
    with pytest.raises(ValueError, match="give after="):
        faults.cut(**given)
