"""``add_stream``: what a client of each service gets from one line beside mocks of ``responses``."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import requests
import responses
from responses.registries import OrderedRegistry

from gemini_sync import BlockedError, Endpoints, RefreshError, Retry, TransportError
from gemini_sync.testing import add_error, add_stream
from gemini_sync.testing.synthetic import stream_response
from tests.testing.mocks_kit import STREAM, ask, ask_vertex, dual, events_of

CALLS = [{"name": "now", "args": {}}, {"name": "later", "args": {"days": 2}}]


@pytest.fixture
def rsps():
    with responses.RequestsMock() as mock:
        yield mock


# -- streams


@pytest.mark.parametrize("route", ["api_key", "oauth"])
def test_stream__of_text(rsps, route):
    added = add_stream(rsps, ["Hel", "lo"], route=route)
    reply, again = ask(route), ask(route, iterate=False)
    assert (reply.text, reply.finish_reason, reply.route) == ("Hello", "STOP", route)
    assert [chunk.text for chunk in again.chunks()] == ["Hel", "lo"]
    assert reply.usage.total_token_count == 6
    assert reply.model_version == "gemini-3.8-flash"
    assert added.call_count == 2


@pytest.mark.parametrize("route", ["api_key", "oauth"])
def test_stream__with_everything(rsps, route):
    add_stream(
        rsps,
        "Text",
        route=route,
        thoughts=["First", "then"],
        function_calls=CALLS,
        finish_reason="MAX_TOKENS",
        usage={"totalTokenCount": 99, "cachedContentTokenCount": 7},
    )
    reply = ask(route)
    assert (reply.text, reply.thoughts, reply.finish_reason) == ("Text", "Firstthen", "MAX_TOKENS")
    assert [(call.name, call.args) for call in reply.function_calls] == [("now", {}), ("later", {"days": 2})]
    signed = ["thoughtSignature" in part for part in reply.content["parts"] if "functionCall" in part]
    assert signed == [True, False]
    assert (reply.usage.total_token_count, reply.usage.cached_content_token_count) == (99, 7)
    assert reply.usage.thoughts_token_count > 0


def test_stream__thoughts_alone_and_a_signed_answer(rsps):
    add_stream(rsps, "Yes", thoughts="Hm")
    assert "thoughtSignature" in ask().content["parts"][-1]
    add_stream(rsps, thoughts="Hm", finish_reason="MAX_TOKENS")
    assert [chunk.thoughts for chunk in ask(iterate=False).chunks()] == ["Hm"]


def test_stream__that_is_refused_before_any_text(rsps):
    add_stream(rsps, finish_reason="SAFETY")
    with pytest.raises(BlockedError, match="SAFETY"):
        ask()


def test_stream__of_whole_chunks(rsps):
    add_stream(rsps, [{"promptFeedback": {"blockReason": "OTHER"}}], route="oauth")
    with pytest.raises(BlockedError, match="OTHER"):
        ask("oauth")


def test_stream__without_a_finish_reason(rsps):
    add_stream(rsps, "Text", finish_reason=None)
    assert ask(require_finish=False).text == "Text"


@pytest.mark.parametrize(
    ("host", "location"),
    [
        ("aiplatform.googleapis.com", "global"),
        ("europe-west4-aiplatform.googleapis.com", "europe-west4"),
        ("aiplatform.eu.rep.googleapis.com", "eu"),
    ],
)
def test_stream__of_vertex_ai(rsps, host, location):
    add_stream(rsps, ["Hel", "lo"], route="vertex_ai", thoughts="Hm", function_calls=CALLS)
    events = events_of(ask_vertex(host, location))
    assert [event["usageMetadata"]["trafficType"] for event in events] == ["ON_DEMAND"] * 4
    assert ["totalTokenCount" in event["usageMetadata"] for event in events] == [False, False, False, True]
    assert all("createTime" in event for event in events)
    parts = [part for event in events for part in event["candidates"][0]["content"]["parts"]]
    assert "".join(part.get("text", "") for part in parts) == "HmHello"
    assert ["finishReason" in event["candidates"][0] for event in events] == [False, False, False, True]


def test_stream__of_vertex_ai_with_a_key_and_of_a_tuned_model(rsps):
    add_stream(rsps, "Hi", route="vertex_ai")
    for path in ("v1/publishers/google/models/m", "v1/projects/p/locations/us-central1/endpoints/7"):
        response = requests.post(f"https://aiplatform.googleapis.com/{path}{STREAM}", json={}, timeout=5)
        assert len(events_of(response)) == 1


@pytest.mark.parametrize("route", ["api_key", "oauth", "vertex_ai"])
def test_stream__has_the_form_of_the_emulator_and_of_recordings(rsps, route):
    added = add_stream(rsps, ["one", "two"], route=route)
    for event in added.response.body.segments:
        assert re.match(rb'data: \{"(candidates|response)": \{?\[?', event)
        assert event.endswith(b"}\r\n\r\n")
        assert b'"role": "model"}' in event
    rsps.reset()


@pytest.mark.parametrize(("segments", "first"), [(None, "event"), (100, 100), ([1, 9], 1)])
def test_segments__are_the_sizes_in_which_it_arrives(rsps, segments, first):
    whole = stream_response(["Hel", "lo"]).body
    body = add_stream(rsps, ["Hel", "lo"], segments=segments).response.body
    assert body.data == whole.data
    assert body.sizes[0] == (whole.sizes[0] if first == "event" else first)
    assert ask().text == "Hello"


def test_segments__one_for_each_event_and_what_is_left_is_the_last():
    whole = stream_response(["Hel", "lo"]).body
    assert len(whole.segments) == 2
    assert stream_response(["Hel", "lo"], segments=[1, 9]).body.sizes == (1, 9, len(whole.data) - 10)
    assert stream_response(["Hel", "lo"], segments=[len(whole.data)]).body.sizes == (len(whole.data),)
    assert set(stream_response(["Hel", "lo"], segments=1).body.sizes) == {1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"route": "vertex"}, "route must be one of api_key, oauth, vertex_ai, not 'vertex'"),
        ({"pieces": ["a", {}]}, "but not both"),
        ({"pieces": [{}, "a"]}, "but not both"),
        ({"segments": 0}, "at least 1 byte"),
        ({"segments": [0]}, "sizes above 0"),
        ({"segments": [10**6]}, "at most"),
    ],
)
def test_arguments__that_make_no_stream(arguments, said):
    with responses.RequestsMock() as mock, pytest.raises(ValueError, match=said):
        add_stream(mock, **{"pieces": "a", **arguments})


@pytest.mark.parametrize("route", ["api_key", "oauth"])
def test_model__answers_for_it_alone(rsps, route):
    add_stream(rsps, "A", route=route, model="model-a")
    add_stream(rsps, "B", route=route, model="model-b")
    assert (ask(route, "model-b").text, ask(route, "model-a").text) == ("B", "A")
    with pytest.raises(TransportError, match="ConnectionError"):  # by which responses says that nothing matches
        ask(route, "model-c", retry=Retry(max_attempts=1))


def test_several_streams__come_in_order(rsps):
    add_stream(rsps, "first")
    add_stream(rsps, "second")
    assert [ask().text for _ in range(3)] == ["first", "second", "second"]


@pytest.mark.parametrize("body", [None, b"no JSON", b"[]"])
def test_body__of_another_client_need_not_be_understood(rsps, body):
    add_stream(rsps, "Hi")
    url = "https://generativelanguage.googleapis.com/v1beta/models/m" + STREAM
    assert len(events_of(requests.post(url, body, timeout=5))) == 1
    with pytest.raises(requests.ConnectionError):  # without alt=sse the service sends a JSON array
        requests.post(url.partition("?")[0], body, timeout=5)


def test_base_url__of_another_place(rsps):
    add_stream(rsps, "Hi", base_url="https://example.com/proxy/v1beta/")
    assert ask(endpoints=Endpoints(gemini="https://example.com/proxy")).text == "Hi"


@responses.activate
def test_module__is_a_mock_as_well():
    add_stream(responses, "Hi", route="oauth")
    add_stream(responses, "Ho", route="oauth")
    assert [ask("oauth").text, ask("oauth").text] == ["Hi", "Ho"]
    assert len(responses.registered()) == 3  # the second stream, the token endpoint and the discovery


# -- what stands beside Code Assist


def test_oauth__needs_no_other_mock(rsps, tmp_path):
    added = add_stream(rsps, "Hi", route="oauth")
    reply = dual(tmp_path).generate("Why?")
    assert (reply.text, reply.route) == ("Hi", "oauth")
    sent = added.calls[0].request
    assert sent.headers["Authorization"] == "Bearer synthetic-access-token-1"
    assert json.loads(sent.body)["project"] == "synthetic-project"


def test_oauth__answers_of_the_test_win(rsps, tmp_path):
    add_stream(rsps, "by OAuth", route="oauth")
    add_stream(rsps, "by key")
    add_error(rsps, 400, route="token", reason="invalid_grant", message="Token has been revoked.")
    events: list[Any] = []
    adapter = dual(tmp_path, on_fallback=events.append)
    assert adapter.generate("Why?").text == "by key"
    assert adapter.fallback_active
    assert isinstance(events[0].error, RefreshError)
    assert "invalid_grant" in str(events[0].error)
    rsps.assert_all_requests_are_fired = False


def test_oauth__in_a_strict_order_only_what_is_asked():
    with responses.RequestsMock(registry=OrderedRegistry) as mock:
        add_stream(mock, "one", route="oauth")
        add_stream(mock, "two", route="oauth")
        assert [ask("oauth").text, ask("oauth").text] == ["one", "two"]


def test_expired_token__is_refreshed(rsps, tmp_path):
    add_error(rsps, 401, route="oauth")
    add_stream(rsps, "Hi", route="oauth")
    reply = dual(tmp_path).generate("Why?")
    assert (reply.text, reply.route) == ("Hi", "oauth")
