"""Tests of events that are not simply one chunk: what is passed over, what is read, and what is an error."""

from __future__ import annotations

import json
import logging
from typing import Any, Optional

import pytest

from gemini_sync.errors import UNREADABLE_ANSWER, ApiError, ProtocolError, QuotaError, ServerError
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.odd_events import UNDECODED, OddEvents
from gemini_sync.messages.sse import BareJsonEvent, Event
from tests.messages.reply_kit import chunk

CANARY = "AIzaSyEXAMPLE-canary_00"  # no real key
A, STOP = chunk("a").raw, chunk("b", finishReason="STOP").raw


def read(*datas: Any, name: str = "message", bare: bool = False, envelope: Optional[str] = None) -> list[Chunk]:
    """The chunks of a stream with these events, which are text or JSON values."""
    odd, found = OddEvents(envelope, ()), []
    for position, data in enumerate(datas, 1):
        text = data if isinstance(data, str) else json.dumps(data)
        event = (BareJsonEvent if bare else Event)(event=name, data=text)
        found += odd.read(event, UNDECODED, position, False)
    return found + odd.end()


# -- events that are no JSON object


@pytest.mark.parametrize("data", ["[DONE]", " [DONE] ", "null", "", "  "])
@pytest.mark.parametrize("name", ["message", "error", "ping"])
def test_no_object__known_ones_are_passed_over_everywhere(data: str, name: str) -> None:
    assert [one.text for one in read(data, A, data, STOP, data, name=name)] == ["a", "b"]


@pytest.mark.parametrize("data", ["still here", "5", '"text"', "[]", "[5]", "{bad"])
def test_no_object__any_is_passed_over_after_a_finish_reason_or_under_a_name(data: str) -> None:
    assert [one.text for one in read(STOP, data)] == ["b"]
    assert [one.text for one in read(data, A, data, name="ping")] == ["a"]


@pytest.mark.parametrize("name", ["message", "error"])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("timed out", None), ("{bad", None), ("5", UNREADABLE_ANSWER), ('"out"', UNREADABLE_ANSWER),
        ("[5]", UNREADABLE_ANSWER),
    ],
)  # fmt: skip
def test_no_object__else_is_an_error_with_its_words(name: str, data: str, reason: Optional[str]) -> None:
    """If the first event is JSON but no chunk, another try would bring the same."""
    with pytest.raises(ProtocolError) as caught:
        read(data, name=name)
    assert str(caught.value).startswith("Event 1 is ")
    assert str(caught.value).endswith(f": {data!r}.")
    assert caught.value.reason == reason
    with pytest.raises(ProtocolError, match="Event 2 is ") as caught:
        read(A, data, name=name)
    assert caught.value.reason is None
    with pytest.raises(ProtocolError, match="Event 3 is ") as caught:
        read("null", "", data, name=name)
    assert caught.value.reason == reason


def test_no_object__words_are_redacted_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    words = f"key={CANARY} " + "x" * 10_000
    with pytest.raises(ProtocolError) as caught:
        read(words)
    read(words, name="ping")
    assert len(str(caught.value)) < 700
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert len(caplog.text) < 800
    assert "key=[redacted] xxx" in caplog.text
    assert CANARY not in f"{caught.value}{caplog.text}"


def test_no_object__each_leaves_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    read("null", A, "[DONE]", STOP, "bye")
    assert [record.getMessage() for record in caplog.records] == [
        "ignored event 1 of a stream (message): 'null'",
        "ignored event 3 of a stream (message): '[DONE]'",
        "ignored event 5 of a stream (message): 'bye'",
    ]


# -- arrays and bare objects


@pytest.mark.parametrize("bare", [False, True])
def test_array_of_chunks__is_read(bare: bool) -> None:
    assert [one.text for one in read([A, STOP], [A], bare=bare)] == ["a", "b", "a"]
    wrapped = read([{"response": A, "traceId": "t"}, {"response": STOP}], bare=bare, envelope="response")
    assert [(one.text, one.trace_id) for one in wrapped] == [("a", "t"), ("b", None)]


def test_bare_object__is_read_if_it_is_a_chunk() -> None:
    for raw in (A, {"promptFeedback": {"blockReason": "SAFETY"}}, {"usageMetadata": {"totalTokenCount": 1}}):
        assert [one.raw for one in read(raw, bare=True)] == [raw]


@pytest.mark.parametrize("raw", [{}, {"candidates": []}, {"choices": [{"text": "a"}]}, [{"choices": []}]])
def test_bare_object__that_is_no_chunk__is_unreadable(raw: Any) -> None:
    with pytest.raises(ProtocolError, match="an object outside the events") as caught:
        read(raw, bare=True)
    assert caught.value.reason == UNREADABLE_ANSWER


# -- errors


@pytest.mark.parametrize("empty", [{}, "", False, None, 0, []])
def test_error__that_is_empty_beside_a_chunk__is_none(empty: Any) -> None:
    assert [one.text for one in read({**A, "error": empty})] == ["a"]
    for wrapped in ({"response": A, "error": empty}, {"response": {**A, "error": empty}}):
        assert [one.text for one in read(wrapped, envelope="response")] == ["a"]


@pytest.mark.parametrize("envelope", [None, "response"])
@pytest.mark.parametrize(
    ("data", "cls"),
    [
        ({"response": {"error": {"code": 503, "message": "busy"}}}, ServerError),
        ({"response": {**A, "error": {"code": 503, "message": "busy"}}}, ServerError),
        ({"code": 429, "message": "busy", "status": "RESOURCE_EXHAUSTED"}, QuotaError),
        ({"error": "busy"}, ServerError),
        ([{"error": {"code": 429, "message": "busy"}}], QuotaError),
    ],
)
def test_error__in_other_forms(envelope: Optional[str], data: Any, cls: type[ApiError]) -> None:
    with pytest.raises(cls, match="busy"):
        read(data, envelope=envelope)


def test_error__in_an_array_comes_after_the_chunks_before_it() -> None:
    array = json.dumps([A, {"error": {"code": 429, "message": "busy"}}])
    found = iter(OddEvents(None, ()).read(Event(data=array), UNDECODED, 1, False))
    assert next(found).text == "a"
    with pytest.raises(QuotaError, match="busy"):
        next(found)


def test_error__counts_after_a_finish_reason_too() -> None:
    with pytest.raises(ServerError, match="busy"):
        read(STOP, {"error": {"code": 503, "message": "busy"}})


# -- halves of characters


def halves(*texts: str, **part: Any) -> list[Chunk]:
    return read(*(chunk({"text": text, **part}).raw for text in texts))


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        (["a\ud83d", "\ude00b"], ["a", "\U0001f600b"]),
        (["\ud83d", "\ude00"], ["", "\U0001f600"]),
        (["a\ud83d", "", "\ude00"], ["a", "", "\U0001f600"]),
        (["\ud83d\ude00"], ["\U0001f600"]),
        (["a\ud83d", "b"], ["a", "\ufffdb"]),
        (["a\ud83d", "\ud83d", "\ude00"], ["a", "\ufffd", "\U0001f600"]),
        (["\ude00a", "b\ude00"], ["\ufffda", "b\ufffd"]),
        (["a\ud83d\n"], ["a\ufffd\n"]),
        (["a\ud83d"], ["a", "\ufffd"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("thought", [False, True])
def test_halves__are_joined_over_chunks_or_replaced(sent: list[str], came: list[str], thought: bool) -> None:
    found = halves(*sent, **({"thought": True} if thought else {}))
    assert [one.thoughts if thought else one.text for one in found] == came
    assert [one.text if thought else one.thoughts for one in found] == [""] * len(came)


def test_halves__of_thoughts_and_of_the_answer_do_not_mix() -> None:
    found = read(*(chunk({"text": text, "thought": thought}).raw for text, thought in
                   [("t\ud83d", True), ("a\ud83d", False), ("\ude00", True), ("\ude01", False)]))  # fmt: skip
    assert "".join(one.thoughts for one in found) == "t\U0001f600"
    assert "".join(one.text for one in found) == "a\U0001f601"


def test_halves__between_the_parts_of_one_chunk_and_around_others() -> None:
    call = {"functionCall": {"name": "f", "args": {"a": ["\ud83d"], "\ude00": "\ud83d\ude00"}}}
    (one,) = read(chunk("a\ud83d", "\ude00", call, finishMessage="\ud83d").raw)
    assert [part.get("text") for part in one.parts] == ["a", "\U0001f600", None]
    assert one.function_calls[0].args == {"a": ["\ufffd"], "\ufffd": "\U0001f600"}
    assert one.finish_message == "\ufffd"
    assert json.dumps(one.raw, ensure_ascii=False).encode()
