"""Tests of what a reply shows while an answer arrives, as text and as chunks."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_sync.errors import Attempt, EmptyResponseError, FinishReasonError, ProtocolError, StreamInterrupted
from gemini_sync.messages.call_record import CallRecord
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.parts import Blob, FunctionCall
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.usage import Usage
from tests.messages.odd_json import RESPONSES
from tests.messages.reply_kit import STOP, chunk, reply_of


def test_text__comes_as_it_arrives() -> None:
    reply = reply_of(chunk("Hel"), chunk({"text": "hm", "thought": True}), chunk(""), chunk("lo", "!"), STOP)
    seen = []
    for text in reply:
        seen.append((text, reply.text, reply.thoughts))
    assert seen == [("Hel", "Hel", ""), ("lo!", "Hello!", "hm"), ("b", "Hello!b", "hm")]
    assert reply.finish_reason == "STOP"


def test_chunks__come_as_they_arrive() -> None:
    chunks = [chunk("a"), chunk({"text": "hm", "thought": True}), chunk(), STOP]
    reply = reply_of(*chunks)
    assert [(one, reply.text) for one in reply.chunks()] == [
        (chunks[0], "a"),
        (chunks[1], "a"),
        (chunks[2], "a"),
        (chunks[3], "ab"),
    ]


def test_text_and_chunks__share_one_stream() -> None:
    reply = reply_of(chunk("1"), chunk("2"), chunk("3"), chunk("4"), STOP)
    assert next(reply) == "1"
    raw = reply.chunks()
    assert next(raw).text == "2"
    assert next(reply) == "3"
    assert next(raw).text == "4"
    assert next(iter(reply)) == "b"
    assert (list(raw), list(reply), reply.text) == ([], [], "1234b")


def test_text_and_chunks__one_goes_on_after_the_other_was_dropped() -> None:
    reply = reply_of(chunk("1"), chunk("2"), chunk("3"), STOP)
    assert next(reply.chunks()).text == "1"
    for text in reply:
        assert text == "2"
        break
    assert [one.text for one in reply.chunks()] == ["3", "b"]
    assert reply.text == "123b"
    assert "state='complete'" in repr(reply)


def test_reply__takes_nothing_before_the_first_next() -> None:
    chunks = iter([STOP])
    reply = Reply(chunks)
    reply.chunks()
    assert list(chunks) == [STOP]
    assert (reply.text, reply.thoughts, reply.content) == ("", "", {"role": "model", "parts": []})
    assert (reply.finish_reason, reply.usage, reply.route, reply.attempts) == (None, None, None, ())


def test_properties__are_right_while_the_answer_arrives_and_after() -> None:
    record = CallRecord()
    call = {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"}
    data = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    reply = reply_of(
        chunk("a", call, usage={"promptTokenCount": 3}, envelope={"traceId": "t"}),
        chunk(data, finishReason="MAX_TOKENS", finishMessage="why", usage={"totalTokenCount": 9}),
        Chunk({"modelVersion": "m", "responseId": "r", "promptFeedback": {}}),
        record=record,
    )
    raw = reply.chunks()
    next(raw)
    record.route = "oauth"
    record.attempts.append(Attempt("oauth", 1.0, 0.5, "answered"))
    assert (reply.function_calls, reply.inline_data) == ((FunctionCall("f", {"x": 1}),), ())
    assert (reply.usage, reply.finish_reason, reply.response_id) == (Usage(3, raw={"promptTokenCount": 3}), None, "t")
    assert (reply.route, reply.attempts) == ("oauth", (Attempt("oauth", 1.0, 0.5, "answered"),))
    assert list(raw)
    assert (reply.inline_data, reply.content["parts"]) == ((Blob("image/png", b"hi"),), [{"text": "a"}, call, data])
    assert reply.usage == Usage(total_token_count=9, raw={"totalTokenCount": 9})
    assert (reply.finish_reason, reply.finish_message) == ("MAX_TOKENS", "why")
    assert (reply.model_version, reply.response_id) == ("m", "r")


def test_inline_data__that_is_no_base64__raises_only_when_read() -> None:
    reply = reply_of(chunk({"inlineData": {"data": "a"}}), STOP)
    assert list(reply) == ["b"]
    with pytest.raises(ProtocolError, match="base64"):
        _ = reply.inline_data


@given(st.lists(RESPONSES, max_size=4))
@settings(max_examples=100, deadline=None)
def test_json_of_a_wrong_shape__raises_nothing_but_a_verdict(responses: list[Any]) -> None:
    reply = reply_of(*map(Chunk, responses))
    partial: Optional[Reply] = reply
    try:
        list(reply)
    except (StreamInterrupted, FinishReasonError, EmptyResponseError) as exc:
        partial = exc.partial
    assert partial is not None
    assert partial.text == reply.text == "".join(Chunk(raw).text for raw in responses)
    assert isinstance(repr(reply), str)
