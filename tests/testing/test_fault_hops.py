"""Answers in hops: a stream that ends with CONTINUATION, and one with a checkpoint that it can be resumed from."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
import responses

from gemini_sync.testing import add_stream, broken, faults, replay
from gemini_sync.testing.cassette.values import Exchange, Request
from gemini_sync.testing.synthetic import stream_response
from tests.testing.cassette_kit import STREAM_URL, ask_plain, tape_of
from tests.wire.support import drain

PROMPT = {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]}


def post(url: str, body: Any) -> list[Any]:
    response = requests.post(url, json=body, timeout=5)
    return [json.loads(event.removeprefix("data: ")) for event in response.text.split("\r\n\r\n")[:-1]]


def candidate(value: Any) -> Any:
    return value.get("response", value)["candidates"][0]


def texts(values: Any) -> list[str]:
    return [candidate(value)["content"]["parts"][0]["text"] for value in values]


URLS = {
    "api_key": STREAM_URL,
    "oauth": "https://cloudcode-pa.googleapis.com/v1internal:streamGenerateContent?alt=sse",
    "vertex_ai": "https://aiplatform.googleapis.com/v1beta1/projects/p/locations/global/publishers/google/models/m"
    ":streamGenerateContent?alt=sse",
}


def asked(route: str, token: str = "") -> Any:
    body = {**PROMPT, "continuationToken": token} if token else PROMPT
    return {"model": "m", "request": body} if route == "oauth" else body


@pytest.fixture(params=["cassette", "stream"])
def hops(request):
    def start(route, *given):
        if request.param == "stream":
            mock = responses.RequestsMock()
            add_stream(mock, ["one", " two", " three"], route=route, faults=given)
            return mock
        recorded = stream_response(["one", " two", " three"], route=route)
        sent = Request("POST", URLS[route], {}, json.dumps(asked(route)).encode())
        return replay(broken(tape_of(Exchange(sent, recorded)), given))

    return start


@pytest.mark.parametrize("route", URLS)
def test_hop__ends_with_a_token_that_gets_the_rest(hops, route):
    with hops(route, faults.hop(after=2)):
        first = post(URLS[route], asked(route))
        assert texts(first) == ["one", " two"]
        assert candidate(first[-1])["finishReason"] == "CONTINUATION"
        token = candidate(first[-1])["continuationToken"]
        assert "continuationToken" not in candidate(first[0])
        rest = post(URLS[route], asked(route, token))
        assert (texts(rest), candidate(rest[-1])["finishReason"]) == ([" three"], "STOP")


@pytest.mark.parametrize("route", URLS)
def test_checkpoint__that_a_cut_stream_resumes_from(hops, route):
    with hops(route, faults.checkpoint(after=1), faults.truncate(after=2)):
        first = post(URLS[route], asked(route))
        assert texts(first) == ["one", " two"]
        assert "finishReason" not in candidate(first[0])
        again = post(URLS[route], asked(route, candidate(first[0])["continuationToken"]))
        assert texts(again) == [" two", " three"]


def test_checkpoint__need_not_be_used():
    with responses.RequestsMock() as mock:
        add_stream(mock, ["one", " two"], faults=faults.checkpoint())
        chunks, error = drain(ask_plain().chunks())
        assert ([chunk.text for chunk in chunks], error) == (["one", " two"], None)


def test_hop__as_this_package_reads_it():
    with responses.RequestsMock() as mock:
        add_stream(mock, ["one", " two"], faults=faults.hop(after=1))
        reply = ask_plain()
        assert ("".join(reply), reply.finish_reason) == ("one", "CONTINUATION")
