"""Tests of an answer that is interrupted: the error says why, and carries what came."""

from __future__ import annotations

import pytest

from gemini_sync.errors import Attempt, AuthError, DeadlineExceeded, EmptyResponseError, ServerError, StreamInterrupted
from gemini_sync.messages.call_record import CallRecord
from gemini_sync.messages.chunks import Chunk
from tests.messages.reply_kit import STOP, chunk, end_of, reply_of


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


def test_interrupted__chunks_raise_it_too() -> None:
    raw = reply_of(chunk("a")).chunks()
    assert next(raw).text == "a"
    with pytest.raises(StreamInterrupted, match="without a finish reason"):
        next(raw)


def test_require_finish__false__a_clean_end_is_complete() -> None:
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


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no error of ours"), MemoryError()])
def test_error_that_is_not_ours__after_a_chunk__comes_unchanged_and_the_text_stays(error: BaseException) -> None:
    reply = reply_of(chunk("a"), error)
    with pytest.raises(type(error)) as caught:
        list(reply)
    assert caught.value is error
    assert (reply.text, "state='interrupted'" in repr(reply)) == ("a", True)


@pytest.mark.parametrize("before", [[], [chunk("a")]])
def test_cancelled__the_error_carries_what_came(before: list[Chunk]) -> None:
    cancelled = StreamInterrupted("The call was cancelled.", cancelled=True)
    record = CallRecord("oauth", [Attempt("oauth", 1.0, 0.5, "cancelled")])
    error = end_of(reply_of(*before, cancelled, record=record))
    assert error is cancelled
    assert (cancelled.cancelled, cancelled.route, len(cancelled.attempts)) == (True, "oauth", 1)
    assert cancelled.partial is not None
    assert cancelled.partial.text == "".join(one.text for one in before)
