"""Tests of what a chunk shows of a response: every kind of part, and no error for JSON of a wrong shape."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_sync.errors import ProtocolError
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.parts import Blob, FunctionCall, function_calls
from gemini_sync.messages.reply_content import ReplyContent
from gemini_sync.messages.usage import Usage
from tests.messages.odd_json import RESPONSES
from tests.messages.reply_kit import chunk

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


def test_candidates__only_index_0_counts() -> None:
    both = [{"index": 1, "content": {"parts": [{"text": "second"}]}}, {"content": {"parts": [{"text": "first"}]}}]
    assert Chunk({"candidates": both}).text == "first"
    assert Chunk({"candidates": both[:1]}).text == ""
    for zero in ("0", 0, 0.0, None):
        assert Chunk({"candidates": [{**both[1], "index": zero}]}).text == "first"
    assert Chunk({"candidates": [{**both[1], "index": "1"}]}).text == ""
    assert Chunk({"candidates": [None, *both]}).text == "first"
    turn = ReplyContent()
    assert [turn.add(Chunk({"candidates": some})) for some in (both, both[:1], both[::-1])] == ["first", "", "first"]
    assert turn.text() == "firstfirst"


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
    turn, texts, thoughts = ReplyContent(), "", ""
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
