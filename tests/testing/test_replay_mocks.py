"""Replays together with the mocks of ``responses``, with one another, and with recordings."""

from __future__ import annotations

import io
import socket

import pytest
import requests
import responses
from requests.adapters import HTTPAdapter

from gemini_sync.network.cancelling import Call
from gemini_sync.testing import UnmatchedRequest, record, replay
from tests.testing.cassette_kit import (
    STREAM_URL,
    ask_plain,
    event,
    exchange,
    tape_of,
)

TEXT = "one two three"
OTHER = "https://api.example.com/v1/things"


def prompt_body(text):
    return b'{"contents":[{"role":"user","parts":[{"text":"%s"}]}]}' % text.encode()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Each connection is an error that no test expects."""

    def refuse(*_):
        raise AssertionError("the network was reached")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def text(*arguments, **named):
    return "".join(ask_plain(*arguments, **named))


def both_kinds():
    assert text() == TEXT
    assert requests.get(OTHER, timeout=5).json() == {"a": 1}
    with pytest.raises(UnmatchedRequest) as caught:
        requests.get("https://api.example.com/other", timeout=5)
    assert f"Nor do the mocks of responses:\n  - GET {OTHER}" in str(caught.value)


def test_mocks__around_the_block():
    with responses.RequestsMock() as mock:
        mock.add("GET", OTHER, json={"a": 1})
        with replay(tape_of(exchange())):
            both_kinds()
        assert requests.get(OTHER, timeout=5).json() == {"a": 1}
        with pytest.raises(requests.ConnectionError):
            text_by_requests()


def text_by_requests():
    return requests.post(STREAM_URL, prompt_body("Why?"), timeout=5).text


def test_mocks__inside_the_block():
    with replay(tape_of(exchange())), responses.RequestsMock() as mock:
        mock.add("GET", OTHER, json={"a": 1})
        both_kinds()


@responses.activate
@replay(tape_of(exchange()))
def test_mocks__decorators():
    responses.get(OTHER, json={"a": 1})
    both_kinds()


@replay(tape_of(exchange()))
@responses.activate
def test_mocks__decorators_the_other_way_round():
    responses.get(OTHER, json={"a": 1})
    both_kinds()


def test_mocks__of_the_user_win():
    with replay(tape_of(exchange())), responses.RequestsMock() as mock:
        mock.add("POST", STREAM_URL, body=event("mocked", "STOP"), content_type="text/event-stream")
        assert text() == "mocked"


def test_mocks__a_prefix_that_the_user_lets_through(monkeypatch):
    sent = []
    with (
        replay(tape_of(exchange())),
        responses.RequestsMock(
            real_adapter_send=lambda adapter, request, **_: sent.append(request.url) or made(request, adapter)
        ) as mock,
    ):
        mock.add_passthru("https://api.example.com/")
        requests.get(OTHER, timeout=5)
        assert text() == TEXT
    assert sent == [OTHER]


def made(request, adapter):
    return adapter.build_response(request, responses.HTTPResponse(io.BytesIO(), status=204, preload_content=False))


def test_replays__inside_one_another():
    inner, outer = tape_of(exchange([event("inner", "STOP")])), tape_of(exchange([event("outer", "STOP")]))
    with replay(outer) as outer_player, replay(inner):
        assert (text(), text()) == ("inner", "outer")
    assert outer_player.unused == []


def test_end__puts_everything_back():
    before = HTTPAdapter.send, responses.RequestsMock._find_match, Call.sleep
    with replay(tape_of()), replay(tape_of()):
        assert HTTPAdapter.send is not before[0]
    assert (HTTPAdapter.send, responses.RequestsMock._find_match, Call.sleep) == before


def test_record_inside_replay__does_not_reach_the_network(tmp_path):
    with replay(tape_of(exchange())), record(tmp_path / "new.yaml"):
        assert text() == TEXT
    with replay(tmp_path / "new.yaml"):
        assert text() == TEXT


def test_replay_inside_record__does_not_reach_the_network(tmp_path):
    with record(tmp_path / "new.yaml"), replay(tape_of(exchange())):
        assert text() == TEXT
        with pytest.raises(UnmatchedRequest):
            text("How?")
