"""Tests of what a chunk shows of a response: every kind of part, and no error for JSON of a wrong shape."""

from __future__ import annotations

import base64
import copy
import dataclasses
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_sync.errors import ProtocolError
from gemini_sync.messages.chunk import Chunk
from gemini_sync.messages.parts import Blob, FunctionCall, function_calls
from gemini_sync.messages.reply_content import Turn
from gemini_sync.messages.usage import Usage, usage
from tests.messages.odd_json import RESPONSES
from tests.messages.reply_kit import chunk, reply_of

_PROPERTIES = [name for name in vars(Chunk) if isinstance(vars(Chunk)[name], property)]


# -- the chunk


def test_chunk__every_kind_of_part() -> None:
    parts = [
        {"text": "Let me ", "thought": True},
        {"text": "Hello "},
        {"text": "world", "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": "7"}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "g"}},
        {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
        {"fileData": {"fileUri": "gs://x"}},
        {"executableCode": {"language": "PYTHON", "code": "1"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"somethingNew": {"x": 1}},
    ]
    one = chunk(*parts, finishReason="STOP")
    assert one.parts == parts
    assert (one.text, one.thoughts, one.finish_reason) == ("Hello world", "Let me ", "STOP")
    assert one.function_calls == (FunctionCall("f", {"a": 1}, "7"), FunctionCall("g", {}))
    assert one.inline_data == (Blob("image/png", b"hi"),)
    assert repr(one) == "Chunk(text='Hello world', finish_reason='STOP', parts=10)"


def test_chunk__metadata() -> None:
    raw: dict[str, Any] = {
        "candidates": [
            {
                "finishMessage": "why",
                "groundingMetadata": {"g": 1},
                "citationMetadata": {"citationSources": [{"uri": "u"}]},
                "safetyRatings": [{"category": "c"}],
            }
        ],
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 1},
        "modelVersion": "m",
        "responseId": "r",
        "traceId": "t",
    }
    one = Chunk(raw)
    assert (one.finish_message, one.grounding_metadata, one.citations) == ("why", {"g": 1}, [{"uri": "u"}])
    assert (one.safety_ratings, one.prompt_feedback) == ([{"category": "c"}], {"blockReason": "SAFETY"})
    assert (one.model_version, one.response_id, one.trace_id) == ("m", "r", "t")
    assert one.usage == Usage(prompt_token_count=1, raw={"promptTokenCount": 1})
    assert (one.raw, one.envelope) == (raw, raw)


def test_chunk__older_spelling_of_citations() -> None:
    for unset in ({}, {"citationSources": None}):
        assert chunk(citationMetadata={**unset, "citations": [{"uri": "u"}]}).citations == [{"uri": "u"}]


def test_chunk__envelope() -> None:
    raw, envelope = {"responseId": "r"}, {"response": {"responseId": "r"}, "traceId": "t"}
    one = Chunk(raw, envelope)
    assert (one.raw, one.envelope, one.trace_id, one.response_id) == (raw, envelope, "t", "r")
    assert one != Chunk(raw)


def test_chunk__empty() -> None:
    one = Chunk({})
    empty = {name: getattr(one, name) for name in _PROPERTIES}
    assert {name for name, value in empty.items() if value is None} == {
        "finish_reason", "finish_message", "usage", "grounding_metadata", "prompt_feedback", "model_version",
        "response_id", "trace_id",
    }  # fmt: skip
    assert not any(empty.values())


def test_chunk__is_read_only() -> None:
    one = chunk({"text": "a"})
    for name in [*_PROPERTIES, "new"]:
        with pytest.raises(AttributeError):
            setattr(one, name, "changed")
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_chunk__its_lists_are_not_shared_with_other_chunks() -> None:
    for name in ("parts", "citations", "safety_ratings"):
        mine = getattr(Chunk({}), name)
        mine.append({"text": "mine"})
        try:
            assert getattr(Chunk({}), name) == []
        finally:
            mine.clear()


@pytest.mark.parametrize("duplicate", [lambda one: pickle.loads(pickle.dumps(one)), copy.copy, copy.deepcopy])
def test_chunk__copies_are_equal(duplicate: Any) -> None:
    for one in (chunk({"text": "a"}), Chunk({"responseId": "r"}, {"traceId": "t"})):
        assert duplicate(one) == one
        assert duplicate(one).envelope == one.envelope
        assert one != one.raw


@pytest.mark.parametrize("value", [Usage(1), FunctionCall("f", {}), Blob("a/b", b"")])
def test_values__are_frozen_and_picklable(value: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, "other")
    assert pickle.loads(pickle.dumps(value)) == value


def test_blob__repr_hides_the_data() -> None:
    assert repr(Blob("image/png", b"canary")) == "Blob(mime_type='image/png')"


def test_usage__repr_hides_the_raw_metadata() -> None:
    assert "canary" not in repr(Usage(1, raw={"canary": 1}))


def test_candidates__only_index_0_counts() -> None:
    both = [{"index": 1, "content": {"parts": [{"text": "second"}]}}, {"content": {"parts": [{"text": "first"}]}}]
    assert Chunk({"candidates": both}).text == "first"
    assert Chunk({"candidates": both[:1]}).text == ""
    for zero in ("0", 0, 0.0, None):
        assert Chunk({"candidates": [{**both[1], "index": zero}]}).text == "first"
    assert Chunk({"candidates": [{**both[1], "index": "1"}]}).text == ""
    assert Chunk({"candidates": [None, *both]}).text == "first"
    turn = Turn()
    assert [turn.add(Chunk({"candidates": some})) for some in (both, both[:1], both[::-1])] == ["first", "", "first"]
    assert turn.text() == "firstfirst"


# -- usage and inline data


def test_usage__counts_by_their_names() -> None:
    raw = {
        "promptTokenCount": 1, "candidatesTokenCount": 2, "thoughtsTokenCount": 3, "cachedContentTokenCount": 4,
        "totalTokenCount": 10, "toolUsePromptTokenCount": 5,
    }  # fmt: skip
    assert usage(raw) == Usage(1, 2, 3, 4, 10, raw)


@pytest.mark.parametrize("sent", [5, 5.0, "5", "5.0"])
def test_usage__counts_as_strings_and_floats(sent: Any) -> None:
    seen = usage({"promptTokenCount": sent, "totalTokenCount": sent})
    assert seen is not None
    assert (seen.prompt_token_count, seen.total_token_count) == (5, 5)
    assert isinstance(seen.prompt_token_count, int)


@pytest.mark.parametrize("wrong", [None, "", "five", "5.5", "\u0665", 1.5, float("inf"), float("nan"), True, [], {}])
def test_usage__a_value_that_is_no_count__is_none(wrong: Any) -> None:
    seen = usage({"promptTokenCount": wrong, "totalTokenCount": 0})
    assert seen is not None
    assert (seen.prompt_token_count, seen.total_token_count) == (None, 0)


@pytest.mark.parametrize("wrong", [None, [], "x", 5, True])
def test_usage__no_dict(wrong: Any) -> None:
    assert usage(wrong) is None


@given(st.binary(max_size=40))
@settings(max_examples=50, deadline=None)
def test_inline_data__both_alphabets_with_and_without_padding(data: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for text in (encode(data).decode(), encode(data).decode().rstrip("=")):
            assert chunk({"inlineData": {"mimeType": "a/b", "data": text}}).inline_data == (Blob("a/b", data),)


@pytest.mark.parametrize(
    "data", ["a", "aGk=x", "aGk==", "a b", "aGk\n", "é", "====", "a$$$", "AAAA!", "AAAA\n", "AAAAA"]
)
def test_inline_data__that_is_no_base64__raises(data: str) -> None:
    with pytest.raises(ProtocolError, match=rf"Expected base64 in inlineData, came {len(data)} characters"):
        _ = chunk({"inlineData": {"mimeType": "a/b", "data": data}}).inline_data


def test_inline_data__fields_that_are_not_set() -> None:
    for empty in ({}, {"data": None, "mimeType": None}):
        assert chunk({"inlineData": empty}, {"inlineData": None}).inline_data == (Blob("", b""),)


@pytest.mark.parametrize("wrong", ["x", 5, ["x"], {"data": 5}, {"data": ["aGk="]}])
def test_inline_data__wrong_types__raise(wrong: Any) -> None:
    with pytest.raises(ProtocolError, match=r"Expected .* inlineData, came"):
        _ = chunk({"inlineData": wrong}).inline_data


# -- function calls


def test_function_call__arguments_as_text() -> None:
    one = chunk({"functionCall": {"name": "f", "args": '{"a": {"b": 1}}'}})
    assert one.function_calls == (FunctionCall("f", {"a": {"b": 1}}),)


@pytest.mark.parametrize("unset", [None, "", {}, "{}"])
def test_function_call__without_arguments(unset: Any) -> None:
    assert chunk({"functionCall": {"name": "f", "args": unset}}).function_calls == (FunctionCall("f", {}),)


@pytest.mark.parametrize("args", [["a"], [], 5, 0, False, "{bad", "[1]", '"text"', "[" * 100_000])
def test_function_call__arguments_that_are_no_object__raise_when_asked_for(args: Any) -> None:
    one = chunk("a", {"functionCall": {"name": "f", "args": args}}, finishReason="STOP")
    reply = reply_of(one)
    assert list(reply) == ["a"], "the text comes, and the call is in the history as it came"
    for view in (one, reply):
        with pytest.raises(ProtocolError, match=r"Expected a JSON object in functionCall\.args, came"):
            _ = view.function_calls


@pytest.mark.parametrize("call", ["f", 5, ["f"], True])
def test_function_call__that_is_no_object__raises_when_asked_for(call: Any) -> None:
    with pytest.raises(ProtocolError, match="Expected a JSON object in functionCall, came"):
        _ = chunk({"functionCall": call}).function_calls


@pytest.mark.parametrize("call", [None, {}, {"name": ""}, {"name": None}, {"args": {"a": 1}}, {"willContinue": True}])
def test_function_call__without_a_name_is_none(call: Any) -> None:
    first = {"functionCall": {"name": "f"}}
    assert chunk(first, {"functionCall": call}).function_calls == (FunctionCall("f", {}),)


# -- names and reasons


@pytest.mark.parametrize("odd", ["", 0, True, ["x"], {"x": "x"}], ids=repr)
def test_names__that_are_no_text__are_none(odd: Any) -> None:
    names = {"modelVersion": odd, "responseId": odd, "traceId": odd}
    one = Chunk({"candidates": [{"finishReason": odd, "finishMessage": odd}], **names})
    assert (one.model_version, one.response_id, one.trace_id) == (None, None, None)
    assert (one.finish_reason, one.finish_message) == (None, None)
    assert chunk({"functionCall": {"name": "f", "id": odd}}).function_calls == (FunctionCall("f", {}, None),)


# -- JSON of a wrong shape


def calls_in(parts: list[Any]) -> tuple[FunctionCall, ...]:
    try:
        return function_calls(parts)
    except ProtocolError:
        return ()


@given(st.lists(st.tuples(RESPONSES, st.booleans()), min_size=1, max_size=4))
@settings(max_examples=120, deadline=None)
def test_json_of_a_wrong_shape__never_raises(responses: list[tuple[Any, bool]]) -> None:
    turn, texts, thoughts = Turn(), "", ""
    for raw, wrapped in responses:
        one = Chunk(raw, {"response": raw, "traceId": raw.get("traceId")}) if wrapped else Chunk(raw)
        for name in _PROPERTIES:
            try:
                getattr(one, name)
            except ProtocolError:
                assert name in ("inline_data", "function_calls")
        assert isinstance(repr(one), str)
        assert turn.add(one) == one.text
        texts, thoughts = texts + one.text, thoughts + one.thoughts
        assert (turn.text(), turn.text(thought=True)) == (texts, thoughts)
        assert turn.empty in (True, False)
        assert turn.block_reason is None or isinstance(turn.block_reason, str)
        assert [call for part in turn.parts for call in calls_in([part])] == [
            call
            for raw_before, _ in responses[: turn.chunks]
            for part in Chunk(raw_before).parts
            for call in calls_in([part])
        ]
    assert pickle.loads(pickle.dumps(turn)).parts == turn.parts
