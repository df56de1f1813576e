"""Holds the end of a reply to its verdict: complete, partial, blocked, failed, empty or interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from gemini_sync.errors import (
    Attempt,
    AuthError,
    BlockedError,
    DeadlineExceeded,
    EmptyResponseError,
    FinishReasonError,
    GeminiSyncError,
    ServerError,
    StreamInterrupted,
)
from gemini_sync.messages.call_record import CallRecord
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.response import Chunk
from gemini_sync.messages.sse import BareJsonEvent, events

_COMPLETE = "STOP MAX_TOKENS FINISH_REASON_UNSPECIFIED SOMETHING_NEW stop".split()
_REFUSED = (
    "SAFETY RECITATION LANGUAGE BLOCKLIST PROHIBITED_CONTENT SPII ESCALATION MODEL_ARMOR IMAGE_SAFETY "
    "IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION"
).split()
_FAILED = (
    "OTHER IMAGE_OTHER NO_IMAGE MALFORMED_FUNCTION_CALL MALFORMED_RESPONSE UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS "
    "MISSING_THOUGHT_SIGNATURE"
).split()


CANARY = "AIzaSyEXAMPLE-canary_00"  # nobody's


def chunk(text: str = "", **candidate: Any) -> Chunk:
    return Chunk({"candidates": [{"content": {"parts": [{"text": text}]}, **candidate}]})


def feedback(**fields: Any) -> Chunk:
    return Chunk({"promptFeedback": fields})


STOP = chunk("b", finishReason="STOP")


def reply_of(*items: Any, **options: Any) -> Reply:
    def run() -> Iterator[Chunk]:
        for item in items:
            if isinstance(item, BaseException):
                raise item
            yield item

    return Reply(run(), **options)


def end_of(reply: Reply) -> Optional[GeminiSyncError]:
    """The error that iterating the text ends with."""
    try:
        for _ in reply:
            continue
    except GeminiSyncError as exc:
        return exc
    return None


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


def test_finish_reason__without_a_message() -> None:
    assert "the server gave no explanation" in str(end_of(reply_of(chunk("a", finishReason="OTHER"))))


def test_finish_reason__text_that_follows_it_still_counts() -> None:
    reply = reply_of(chunk("a", finishReason="STOP"), chunk("b", finishReason="STOP"), chunk("c"))
    assert (end_of(reply), reply.text) == (None, "abc")


def test_chunks__raise_no_verdict() -> None:
    for last in (chunk("b", finishReason="SAFETY"), chunk("", finishReason="STOP"), feedback(blockReason="SAFETY")):
        reply = reply_of(chunk("", thought=True), last)
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


def test_block_reason__only_a_message() -> None:
    error = end_of(reply_of(feedback(blockReasonMessage="Not that.")))
    assert isinstance(error, BlockedError)
    assert (error.reason, str(error)) == ("BLOCKED", "The prompt was refused (BLOCKED): Not that.")


def test_block_reason__after_text__keeps_the_text() -> None:
    error = end_of(reply_of(chunk("a"), feedback(blockReason="SAFETY")))
    assert isinstance(error, BlockedError)
    assert error.partial.text == "a"


def test_prompt_feedback__that_blocks_nothing() -> None:
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
def test_empty__not_with_anything_else_in_it(part: Any) -> None:
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


def test_empty__no_usage_at_all() -> None:
    error = end_of(reply_of(Chunk({"candidates": [{"finishReason": "MAX_TOKENS"}]})))
    assert "(an unknown number of thought tokens)" in str(error)


# -- interrupted


def test_interrupted__no_finish_reason() -> None:
    record = CallRecord("oauth", [Attempt("oauth", 1.0, 0.5, "answered")])
    reply = reply_of(chunk("a"), chunk("b"), record=record)
    error = end_of(reply)
    assert isinstance(error, StreamInterrupted)
    assert (error.cancelled, error.__cause__, error.route, len(error.attempts)) == (False, None, "oauth", 1)
    assert str(error) == (
        "The answer was interrupted after 2 chunks: the connection ended without a finish reason. "
        "What came is in .partial; nothing was sent again."
    )
    assert error.partial is not None
    assert (error.partial.text, error.partial.route) == ("ab", "oauth")
    assert "state='interrupted'" in repr(reply)


def test_interrupted__chunks_say_it_too() -> None:
    raw = reply_of(chunk("a")).chunks()
    assert next(raw).text == "a"
    with pytest.raises(StreamInterrupted, match="without a finish reason"):
        next(raw)


def test_require_finish__false_takes_a_clean_end_for_complete() -> None:
    reply = reply_of(chunk("a"), require_finish=False)
    assert (end_of(reply), reply.text, reply.finish_reason) == (None, "a", None)
    assert "state='complete'" in repr(reply)
    empty = end_of(reply_of(require_finish=False))
    assert isinstance(empty, EmptyResponseError)
    assert "it ended with no finish reason and no text" in str(empty)


@pytest.mark.parametrize("after", [[chunk("a")], [chunk("a"), STOP], [Chunk({})]])
def test_interrupted__an_error_after_the_first_chunk(after: list[Chunk]) -> None:
    cause = ServerError(
        "503 UNAVAILABLE: Overloaded.",
        code=503, status="UNAVAILABLE", reason="X", details=[{"a": 1}], retry_after=5.0, link="l", trace_id="t",
    )  # fmt: skip
    record = CallRecord("oauth", [Attempt("oauth", 1.0, 0.5, "interrupted", cause)])
    error = end_of(reply_of(*after, cause, record=record))
    assert isinstance(error, StreamInterrupted)
    assert error.__cause__ is cause
    assert f"after {len(after)} chunks: 503 UNAVAILABLE: Overloaded. What came" in str(error)
    assert error.partial is not None
    assert error.partial.text == "".join(one.text for one in after)
    assert (error.code, error.status, error.reason, error.details) == (503, "UNAVAILABLE", "X", ({"a": 1},))
    assert (error.retry_after, error.link, error.trace_id) == (5.0, "l", "t")
    assert (error.route, error.attempts, error.cancelled) == ("oauth", tuple(record.attempts), False)


@pytest.mark.parametrize(
    "error",
    [
        ServerError("503"),
        AuthError("401"),
        DeadlineExceeded("late", deadline="total", seconds=1),
        KeyboardInterrupt(),
        OSError(),
    ],
)
def test_error_before_the_first_chunk__comes_unchanged(error: BaseException) -> None:
    for way in (list, lambda reply: list(reply.chunks())):
        reply = reply_of(error, record=CallRecord("oauth"))
        with pytest.raises(type(error)) as caught:
            way(reply)
        assert caught.value is error
        assert "state='interrupted'" in repr(reply)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("foreign"), MemoryError()])
def test_foreign_error_later__comes_unchanged_and_the_text_stays(error: BaseException) -> None:
    reply = reply_of(chunk("a"), error)
    with pytest.raises(type(error)) as caught:
        list(reply)
    assert caught.value is error
    assert (reply.text, "state='interrupted'" in repr(reply)) == ("a", True)


@pytest.mark.parametrize("before", [[], [chunk("a")]])
def test_cancelled__carries_what_came(before: list[Chunk]) -> None:
    cancelled = StreamInterrupted("The call was cancelled.", cancelled=True)
    record = CallRecord("oauth", [Attempt("oauth", 1.0, 0.5, "cancelled")])
    error = end_of(reply_of(*before, cancelled, record=record))
    assert error is cancelled
    assert (cancelled.cancelled, cancelled.route, len(cancelled.attempts)) == (True, "oauth", 1)
    assert cancelled.partial is not None
    assert cancelled.partial.text == "".join(one.text for one in before)


@pytest.mark.parametrize("last", [{"finishReason": "SAFETY"}, {"finishReason": "OTHER"}, {}], ids=str)
def test_message_of_the_server__is_scrubbed_and_bounded(last: dict[str, Any]) -> None:
    """The answer itself stays as it came: it is the caller's."""
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


def test_message_of_the_server__of_another_kind() -> None:
    """Whatever is there is shown, and nothing breaks."""
    error = end_of(reply_of(feedback(blockReason="OTHER", blockReasonMessage={"a": CANARY})))
    assert "The prompt was refused (OTHER): {'a': '[redacted]'}" in str(error)


def test_cancel__tells_the_call() -> None:
    told: list[bool] = []
    reply = reply_of(STOP, cancel=lambda: told.append(True))
    reply.cancel()
    reply.cancel()
    assert told == [True, True]


# -- recordings


def test_recorded_streams(corpus: Path) -> None:
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
