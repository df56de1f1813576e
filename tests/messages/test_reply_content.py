"""Tests of the turn that chunks add up to: texts are joined, all else is verbatim, and it is right at any moment."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.parts import function_calls
from gemini_sync.messages.reply_content import ReplyContent
from gemini_sync.messages.request import build
from gemini_sync.messages.sse import BareJsonEvent, events
from tests.messages.reply_kit import chunk


def turn_of(*chunks: Chunk) -> ReplyContent:
    turn = ReplyContent()
    for one in chunks:
        turn.add(one)
    return turn


# -- merging

NOTHING: list[dict[str, Any]] = [{}, {"text": None}, {"thought": True}, {"text": "", "thought": True}]


@pytest.mark.parametrize(
    ("parts", "merged"),
    [
        ([{"text": "a"}, {"text": "b"}, {"text": "c"}], [{"text": "abc"}]),
        ([{"text": "a", "thought": False}, {"text": "b"}], [{"text": "ab"}]),
        (
            [{"text": "a", "thought": True}, {"text": "b", "thought": True}, {"text": "c"}, {"text": "d"}],
            [{"text": "ab", "thought": True}, {"text": "cd"}],
        ),
        (
            [{"text": "a"}, {"text": "b", "thoughtSignature": "c2ln"}, {"text": "c"}, {"text": "d"}],
            [{"text": "a"}, {"text": "b", "thoughtSignature": "c2ln"}, {"text": "cd"}],
        ),
        (
            [{"text": "a"}, {"text": "", "thoughtSignature": "c2ln"}],
            [{"text": "a"}, {"text": "", "thoughtSignature": "c2ln"}],
        ),
        ([{"thoughtSignature": "c2ln"}], [{"thoughtSignature": "c2ln"}]),
        (
            [{"text": "a"}, {"text": "b", "functionCall": None, "thoughtSignature": None}, {"text": "c"}],
            [{"text": "abc"}],
        ),
        (
            [{"text": "a"}, {"functionCall": {"name": "f"}, "x": [1]}, {"functionCall": {"name": "g"}}, {"text": "b"}],
            [{"text": "a"}, {"functionCall": {"name": "f"}, "x": [1]}, {"functionCall": {"name": "g"}}, {"text": "b"}],
        ),
        ([{"text": ""}], []),
        *(([{"text": "a"}, nothing, {"text": "b"}], [{"text": "ab"}]) for nothing in NOTHING),
        (
            [{"text": "a", "thought": True}, {"text": ""}, {"text": "b", "thought": True}],
            [{"text": "ab", "thought": True}],
        ),
        ([{"text": "a"}, {"text": ""}, {"text": "b"}], [{"text": "ab"}]),
        ([{"text": "", "thought": True, "unknown": "s"}], [{"text": "", "thought": True, "unknown": "s"}]),
    ],
)  # fmt: skip
def test_merging__texts_join_and_other_parts_stay(parts: list[Any], merged: list[Any]) -> None:
    before = copy.deepcopy(parts)
    assert turn_of(*map(chunk, parts)).parts == merged
    assert turn_of(chunk(*parts)).parts == merged, "all parts in one chunk"
    assert parts == before


def test_merging__many_short_texts() -> None:
    texts = [f"{number} " for number in range(3000)]
    turn = turn_of(*(chunk({"text": piece}) for piece in texts))
    assert turn.parts == [{"text": "".join(texts)}]
    assert pickle.loads(pickle.dumps(turn)).text() == "".join(texts)


def test_merging__goes_on_after_parts_and_after_a_pickle() -> None:
    turn = turn_of(chunk({"text": "a"}))
    turn.parts[0]["text"] = "changed"
    assert turn.parts == [{"text": "a"}]
    turn = pickle.loads(pickle.dumps(turn))
    turn.add(chunk({"text": "b"}))
    assert turn.parts == [{"text": "ab"}]


@given(st.lists(st.tuples(st.text(max_size=3), st.booleans(), st.booleans()), max_size=8), st.data())
@settings(max_examples=100, deadline=None)
def test_merging__is_the_same_in_any_division_into_chunks(texts: list[tuple[str, bool, bool]], data: Any) -> None:
    parts = [
        {"text": text, **({"thought": True} if thought else {}), **({"thoughtSignature": "s"} if signed else {})}
        for text, thought, signed in texts
    ]
    turn, position = ReplyContent(), 0
    while position < len(parts):
        end = data.draw(st.integers(position + 1, len(parts)))
        turn.add(chunk(*parts[position:end]))
        position = end
    assert turn.parts == turn_of(chunk(*parts)).parts
    assert turn.text() == "".join(text for text, thought, _ in texts if not thought)
    signed_parts = [part for part in parts if "thoughtSignature" in part]
    assert [part for part in turn.parts if "thoughtSignature" in part] == signed_parts


@pytest.mark.parametrize(
    "parts",
    [
        [{"text": "a"}, {"text": "", "thoughtSignature": "c2ln"}],
        [{"text": "a"}, {}, {"text": "b"}],
        [{"functionCall": {"name": "f"}}, {"text": ""}],
    ],
)
def test_turn__its_parts_make_a_request(parts: list[Any]) -> None:
    history: list[Any] = [{"role": "model", "parts": turn_of(chunk(*parts)).parts}, "go on"]
    assert build(history).fields


# -- what else a turn keeps


def test_turn__finish_and_usage_are_the_last_that_came() -> None:
    turn = turn_of(
        chunk({"text": "a"}, finishReason="STOP", finishMessage="first"),
        Chunk({"usageMetadata": {"totalTokenCount": 1}}),
        chunk({"text": "b"}, finishReason="MAX_TOKENS"),
        chunk(finishReason=None),
        Chunk({"usageMetadata": {"totalTokenCount": 9}}),
        Chunk({"usageMetadata": None}),
    )
    assert (turn.finish_reason, turn.finish_message, turn.chunks) == ("MAX_TOKENS", "first", 6)
    assert turn.usage_metadata == {"totalTokenCount": 9}


@pytest.mark.parametrize(
    ("feedback", "reason"),
    [
        ({"blockReason": "SAFETY"}, "SAFETY"),
        ({"blockReason": "NEW"}, "NEW"),
        ({"blockReasonMessage": "no"}, "BLOCKED"),
        ({"blockReason": [], "blockReasonMessage": "no"}, "BLOCKED"),
        ({"safetyRatings": []}, None),
        ({}, None),
        (None, None),
    ],
)
def test_turn__block_reason(feedback: Any, reason: Any) -> None:
    assert turn_of(chunk({"text": "a"}), Chunk({"promptFeedback": feedback}), chunk()).block_reason == reason


@pytest.mark.parametrize("odd", [None, {}, [], 5, "x"])
def test_turn__block_reason_stays(odd: Any) -> None:
    assert (
        turn_of(Chunk({"promptFeedback": {"blockReason": "OTHER"}}), Chunk({"promptFeedback": odd})).block_reason
        == "OTHER"
    )


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [{}],
        [{"text": ""}],
        [{"thoughtSignature": "s"}],
        [{"text": "", "thoughtSignature": "s"}],
        [{"text": "a", "thought": True}],
    ],
)
def test_turn__empty(parts: list[Any]) -> None:
    assert turn_of(chunk(*parts)).empty


@pytest.mark.parametrize(
    "part",
    [
        {"text": " "},
        {"functionCall": {}},
        {"inlineData": {}},
        {"executableCode": {}},
        {"codeExecutionResult": {}},
        {"new": 1},
    ],
)
def test_turn__not_empty(part: Any) -> None:
    assert not turn_of(chunk(part)).empty
    assert not turn_of(chunk({"text": "a", "thought": True}, part)).empty


@pytest.mark.parametrize("position", [0, 1, 2])
def test_turn__names_are_right_at_any_moment(position: int) -> None:
    turn = ReplyContent()
    for number in range(3):
        raw = {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}
        names: Any = {"modelVersion": "m", "responseId": "r"} if number == position else {}
        turn.add(Chunk({**raw, **names}, {"traceId": "t"} if number == position else {}))
        expected = ("m", "r", "t") if number >= position else (None, None, None)
        assert (turn.model_version, turn.response_id, turn.trace_id) == expected


@pytest.mark.parametrize(
    ("names", "envelope", "expected"),
    [
        ({"modelVersion": "m"}, None, ("m", None, None)),
        ({"responseId": "r"}, None, (None, "r", None)),
        ({}, {"traceId": "t"}, (None, "t", "t")),
    ],
    ids=["modelVersion", "responseId", "traceId"],
)
def test_turn__each_name_may_come_alone(names: Any, envelope: Any, expected: Any) -> None:
    raw = {"candidates": [{"content": {"parts": [{"text": "a"}]}}], **names}
    turn = turn_of(Chunk(raw, envelope))
    assert (turn.model_version, turn.response_id, turn.trace_id) == expected


@pytest.mark.parametrize("odd", ["", 0, 5, True, ["x"], {"x": "x"}], ids=repr)
def test_turn__name_that_is_no_text_is_passed_over(odd: Any) -> None:
    turn = turn_of(Chunk({"modelVersion": odd, "responseId": odd}, {"traceId": odd}))
    assert (turn.model_version, turn.response_id, turn.trace_id) == (None, None, None)
    turn.add(Chunk({"modelVersion": "m", "responseId": "r"}, {"traceId": "t"}))
    assert (turn.model_version, turn.response_id, turn.trace_id) == ("m", "r", "t")


def test_response_id__is_the_trace_id_if_there_is_no_other() -> None:
    assert turn_of(Chunk({}, {"traceId": "t"})).response_id == "t"
    assert turn_of(Chunk({"responseId": "r"}, {"traceId": "t"})).response_id == "r"


# -- recordings


def test_turn__recorded_streams(corpus: Path) -> None:
    recorded = json.loads((corpus / "streams" / "expected.json").read_text("utf-8"))
    assert len(recorded) >= 20
    for expected in recorded:
        body, turn, bare = (corpus / "streams" / expected["file"]).read_bytes(), ReplyContent(), 0
        for event in events([body], 2**20):
            if isinstance(event, BareJsonEvent):
                bare += 1
            else:
                turn.add(Chunk(json.loads(event.data)))
        calls = [{"name": call.name, "args": call.args} for call in function_calls(turn.parts)]
        seen = {
            "n_events": turn.chunks,
            "concatenated_text": turn.text(),
            "thought_text": turn.text(thought=True),
            "function_calls": calls,
            "finish_reason": turn.finish_reason,
            "finish_message": turn.finish_message,
            "block_reason": turn.block_reason,
            "last_usage": turn.usage_metadata,
            "model_version": turn.model_version,
            "thought_signatures": sum("thoughtSignature" in part for part in turn.parts),
        }
        assert seen == {name: expected[name] for name in seen}, expected["file"]
        assert bare == (expected["error_body"] is not None), expected["file"]
