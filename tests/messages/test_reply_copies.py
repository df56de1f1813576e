"""Tests of the copies of a reply, which show what came, and of its repr, which tells its state."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gemini_sync.errors import Attempt, FinishReasonError, GeminiSyncError, ServerError, StreamInterrupted
from gemini_sync.messages.call_record import CallRecord
from gemini_sync.messages.chunks import Chunk
from tests.messages.reply_kit import STOP, chunk, reply_of

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def test_pickle__shows_what_came() -> None:
    record = CallRecord(
        "api_key", [Attempt("oauth", 1.0, 0.5, "failed", ServerError("503")), Attempt("api_key", 2.0, 0.1, "answered")]
    )
    reply = reply_of(
        chunk("a", {"text": "x", "thoughtSignature": "s"}, usage={"totalTokenCount": 1}), STOP, record=record
    )
    assert next(reply) == "ax"
    twin = pickle.loads(pickle.dumps(reply))
    assert (twin.text, twin.content, twin.usage, twin.route) == (reply.text, reply.content, reply.usage, "api_key")
    assert [attempt.outcome for attempt in twin.attempts] == ["failed", "answered"]
    assert "state='closed'" in repr(twin)
    for way in (next, lambda reply: next(reply.chunks())):
        with pytest.raises(StreamInterrupted, match="the reply was closed"):
            way(twin)
    twin.close()
    assert next(reply) == "b"  # the original goes on
    assert repr(pickle.loads(pickle.dumps(reply))) == repr(reply).replace("'open'", "'closed'")


@pytest.mark.parametrize(
    "duplicate",
    [
        *(partial(lambda protocol, one: pickle.loads(pickle.dumps(one, protocol)), protocol) for protocol in PROTOCOLS),
        copy.deepcopy,
    ],
)
@pytest.mark.parametrize(
    ("last", "error"), [(chunk("b", finishReason="OTHER"), FinishReasonError), (chunk("b"), StreamInterrupted)]
)
def test_copies__of_a_partial_reply(last: Chunk, error: type[GeminiSyncError], duplicate: Callable[[Any], Any]) -> None:
    record = CallRecord("oauth")
    reply = reply_of(chunk("a"), last, record=record)
    with pytest.raises(error) as caught:
        list(reply)
    record.attempts.append(Attempt("oauth", 1.0, 1.0, "interrupted", caught.value))  # an attempt names the error itself
    twin = duplicate(caught.value)
    assert (type(twin), str(twin), twin.partial.text) == (error, str(caught.value), "ab")
    assert repr(twin.partial) == repr(caught.value.partial)  # type: ignore[attr-defined]
    assert twin.partial.attempts[0].outcome == "interrupted"


def test_repr__tells_route_state_and_counts() -> None:
    reply = reply_of(chunk("abc"), STOP, record=CallRecord("oauth"))
    seen = [repr(reply)]
    for _ in reply:
        seen.append(repr(reply))
    assert [*seen, repr(reply)] == [
        "Reply(route='oauth', state='new', chunks=0, characters=0, finish_reason=None)",
        "Reply(route='oauth', state='open', chunks=1, characters=3, finish_reason=None)",
        "Reply(route='oauth', state='open', chunks=2, characters=4, finish_reason='STOP')",
        "Reply(route='oauth', state='complete', chunks=2, characters=4, finish_reason='STOP')",
    ]
