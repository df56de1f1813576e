"""Tests of the verdict on a complete answer: it is good, refused, failed or empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import pytest

from gemini_sync.errors import (
    Attempt,
    BlockedError,
    EmptyResponseError,
    FinishReasonError,
    GeminiSyncError,
    StreamInterrupted,
)
from gemini_sync.messages.call_record import CallRecord
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.sse import BareJsonEvent, events
from tests.messages.reply_kit import STOP, chunk, end_of, feedback, reply_of

_COMPLETE = "STOP MAX_TOKENS CONTINUATION SOMETHING_NEW".split()
_REFUSED = (
    "SAFETY RECITATION LANGUAGE BLOCKLIST PROHIBITED_CONTENT SPII ESCALATION MODEL_ARMOR IMAGE_SAFETY "
    "IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION PUP_LIMITED_DISABLED"
).split()
_FAILED = (
    "OTHER IMAGE_OTHER NO_IMAGE MALFORMED_FUNCTION_CALL MALFORMED_RESPONSE UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS "
    "MISSING_THOUGHT_SIGNATURE"
).split()


CANARY = "AIzaSyEXAMPLE-canary_00"  # no real key


# -- finish reasons


@pytest.mark.parametrize("reason", _COMPLETE)
def test_finish_reason__complete_or_unknown__is_no_error(reason: str) -> None:
    reply = reply_of(chunk("a"), chunk("b", finishReason=reason, finishMessage="why"))
    assert (end_of(reply), reply.text) == (None, "ab")
    assert (reply.finish_reason, reply.finish_message) == (reason, "why")
    assert "state='complete'" in repr(reply)


@pytest.mark.parametrize("reason", _REFUSED + _FAILED)
@pytest.mark.parametrize("text", ["b", ""])
def test_finish_reason__refused_or_failed__raises_after_the_text(reason: str, text: str) -> None:
    record = CallRecord("oauth", [Attempt("oauth", 1.0, 0.5, "answered")])
    reply = reply_of(chunk("a"), chunk(text, finishReason=reason, finishMessage="It is so."), record=record)
    with pytest.raises(FinishReasonError) as caught:
        list(reply)
    error = caught.value
    assert type(error) is (BlockedError if reason in _REFUSED else FinishReasonError)
    assert (error.reason, error.finish_message, error.partial.text) == (reason, "It is so.", "a" + text)
    assert f"({reason}): It is so. The text that came is in .partial." in str(error)
    assert (error.route, error.attempts) == ("oauth", tuple(record.attempts))
    assert "state='complete'" in repr(reply)
    assert list(reply) == []


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (1, "STOP"), (1.0, "STOP"), ("1", "STOP"), (2, "MAX_TOKENS"), (3, "SAFETY"), (4, "RECITATION"), (5, "OTHER"),
        (6, "6"), (-1, "-1"), ("stop", "STOP"), ("Max_Tokens", "MAX_TOKENS"), ("safety", "SAFETY"),
    ],
)  # fmt: skip
def test_finish_reason__as_a_number_or_in_lower_case(sent: Any, reason: str) -> None:
    """Google's two APIs mean the same only by the numbers to 5. A larger one is an unknown reason, and no error."""
    reply = reply_of(chunk("a", finishReason=sent))
    error = end_of(reply)
    assert (reply.finish_reason, chunk("a", finishReason=sent).finish_reason) == (reason, reason)
    assert type(error) is (
        BlockedError if reason in _REFUSED else FinishReasonError if reason == "OTHER" else type(None)
    )


@pytest.mark.parametrize("zero", ["FINISH_REASON_UNSPECIFIED", "finish_reason_unspecified", 0, 0.0, "0", None, ""])
def test_finish_reason__the_zero_of_the_enum_is_none(zero: Any) -> None:
    reply = reply_of(chunk("a", finishReason=zero))
    assert isinstance(end_of(reply), StreamInterrupted)
    assert (reply.finish_reason, chunk(finishReason=zero).finish_reason) == (None, None)
    assert end_of(reply_of(chunk("a", finishReason="STOP"), chunk("b", finishReason=zero))) is None


@pytest.mark.parametrize(
    "parts", [[], [""], [{"text": "hm", "thought": True}], [{"thoughtSignature": "c2ln"}]], ids=str
)
def test_continuation__is_partial_and_never_empty(parts: list[Any]) -> None:
    reply = reply_of(chunk(*parts), chunk(finishReason="CONTINUATION", continuationToken="dG9rZW4="))
    assert (end_of(reply), reply.text, reply.finish_reason) == (None, "", "CONTINUATION")


def test_finish_reason__without_a_message() -> None:
    assert "the server gave no explanation" in str(end_of(reply_of(chunk("a", finishReason="OTHER"))))


def test_finish_reason__text_that_follows_it_still_counts() -> None:
    reply = reply_of(chunk("a", finishReason="STOP"), chunk("b", finishReason="STOP"), chunk("c"))
    assert (end_of(reply), reply.text) == (None, "abc")


def test_chunks__raise_no_verdict() -> None:
    for last in (chunk("b", finishReason="SAFETY"), chunk("", finishReason="STOP"), feedback(blockReason="SAFETY")):
        reply = reply_of(chunk({"text": "hm", "thought": True}), last)
        assert len(list(reply.chunks())) == 2
        assert "state='complete'" in repr(reply)


# -- refused prompts


@pytest.mark.parametrize(
    "reason", "SAFETY OTHER BLOCKLIST PROHIBITED_CONTENT IMAGE_SAFETY MODEL_ARMOR JAILBREAK NEW".split()
)
def test_block_reason__raises_blocked(reason: str) -> None:
    reply = reply_of(feedback(blockReason=reason), record=CallRecord("api_key"))
    error = end_of(reply)
    assert isinstance(error, BlockedError)
    assert (error.reason, error.route, error.partial.text) == (reason, "api_key", "")
    assert str(error) == f"The prompt was refused ({reason}): Change the prompt."


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(1, "SAFETY"), ("2", "OTHER"), (3.0, "BLOCKLIST"), (4, "PROHIBITED_CONTENT"), (5, "5"), ("safety", "SAFETY")],
)
def test_block_reason__as_a_number_or_in_lower_case(sent: Any, reason: str) -> None:
    error = end_of(reply_of(feedback(blockReason=sent)))
    assert isinstance(error, BlockedError)
    assert error.reason == reason


@pytest.mark.parametrize("zero", ["BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED", 0, "0", None, ""])
def test_block_reason__the_zero_of_the_enum_is_none(zero: Any) -> None:
    assert end_of(reply_of(feedback(blockReason=zero), STOP)) is None


def test_block_reason__with_only_a_message() -> None:
    error = end_of(reply_of(feedback(blockReasonMessage="Not that.")))
    assert isinstance(error, BlockedError)
    assert (error.reason, str(error)) == ("BLOCKED", "The prompt was refused (BLOCKED): Not that.")


def test_block_reason__after_text__keeps_the_text() -> None:
    error = end_of(reply_of(chunk("a"), feedback(blockReason="SAFETY")))
    assert isinstance(error, BlockedError)
    assert error.partial.text == "a"


def test_prompt_feedback__without_a_block_reason__is_no_error() -> None:
    assert end_of(reply_of(feedback(safetyRatings=[]), STOP)) is None
    assert isinstance(end_of(reply_of(chunk("a"), feedback(safetyRatings=[]))), StreamInterrupted)


# -- empty answers


@pytest.mark.parametrize(
    "parts",
    [[], [{"text": ""}], [{"text": "hm", "thought": True}], [{"text": "", "thoughtSignature": "c2ln"}], None, "wrong"],
)
def test_empty__raises(parts: Any) -> None:
    reply = reply_of(
        Chunk({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}), record=CallRecord("oauth")
    )
    error = end_of(reply)
    assert isinstance(error, EmptyResponseError)
    assert (error.reason, error.route) == ("STOP", "oauth")
    assert str(error) == "The answer is empty: it ended with STOP and no text, call, data or code."
    assert error.partial.finish_reason == "STOP"


@pytest.mark.parametrize(
    "part", [{"functionCall": {"name": "f"}}, {"inlineData": {}}, {"executableCode": {}}, {"new": 1}]
)
def test_empty__a_call_data_or_code_is_not_empty(part: Any) -> None:
    reply = reply_of(Chunk({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}))
    assert list(reply) == []


@pytest.mark.parametrize(
    ("usage", "count"),
    [({"thoughtsTokenCount": 512}, "512"), ({"thoughtsTokenCount": 0}, "0"), ({}, "an unknown number of")],
)
def test_empty__thinking_used_up_the_tokens__is_explained(usage: Any, count: str) -> None:
    last = Chunk({"candidates": [{"finishReason": "MAX_TOKENS"}], "usageMetadata": usage})
    error = end_of(reply_of(last))
    assert isinstance(error, EmptyResponseError)
    assert f"Thinking used up maxOutputTokens ({count} thought tokens)" in str(error)
    assert "lower thinkingConfig" in str(error)


def test_empty__without_any_usage() -> None:
    error = end_of(reply_of(Chunk({"candidates": [{"finishReason": "MAX_TOKENS"}]})))
    assert "(an unknown number of thought tokens)" in str(error)


# -- the server's text


@pytest.mark.parametrize("last", [{"finishReason": "SAFETY"}, {"finishReason": "OTHER"}, {}], ids=str)
def test_message_of_the_server__is_redacted_and_bounded(last: dict[str, Any]) -> None:
    """The reply itself shows the message as it came, because it belongs to the caller."""
    said = f"why\n key={CANARY} " + "x" * 10_000
    item = chunk("a", finishMessage=said, **last) if last else feedback(blockReason="OTHER", blockReasonMessage=said)
    reply = reply_of(item)
    error = end_of(reply)
    assert isinstance(error, FinishReasonError)
    assert "): why key=[redacted] xxx" in str(error)
    assert CANARY not in f"{error!r}{error.finish_message}"
    assert len(str(error)) < 700
    assert len(error.finish_message or "") <= 500
    assert (reply.finish_message == said) == bool(last)


def test_message_of_the_server__that_is_no_text() -> None:
    """The error shows any JSON value."""
    error = end_of(reply_of(feedback(blockReason="OTHER", blockReasonMessage={"a": CANARY})))
    assert "The prompt was refused (OTHER): {'a': '[redacted]'}" in str(error)


# -- recordings


def test_reply__recorded_streams(corpus: Path) -> None:
    for expected in json.loads((corpus / "streams" / "expected.json").read_text("utf-8")):
        body = (corpus / "streams" / expected["file"]).read_bytes()
        if expected["error_body"]:
            continue
        reply = Reply(Chunk(json.loads(e.data)) for e in events([body], 2**20) if not isinstance(e, BareJsonEvent))
        error: Optional[GeminiSyncError] = None
        try:
            texts = "".join(reply)
        except (StreamInterrupted, FinishReasonError, EmptyResponseError) as exc:
            error, texts = exc, reply.text
        assert texts == expected["concatenated_text"], expected["file"]
        assert isinstance(error, StreamInterrupted) is not expected["ends_normally"], expected["file"]
        refused = expected["block_reason"] or expected["finish_reason"] in ("SAFETY", "RECITATION")
        assert isinstance(error, BlockedError) is bool(refused), expected["file"]
