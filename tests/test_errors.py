"""Tests of the error classes: their data are attributes, and copies and pickles keep them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from gemini_sync import errors
from gemini_sync.errors import (
    ApiError,
    Attempt,
    AuthError,
    BlockedError,
    ConfigError,
    CredentialsError,
    DeadlineExceeded,
    EmptyResponseError,
    FinishReasonError,
    GeminiSyncError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaError,
    RefreshError,
    ServerError,
    StreamInterrupted,
    TransportError,
)
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.reply import Reply


def some_reply() -> Reply:
    reply = Reply(iter([Chunk({"candidates": [{"content": {"parts": [{"text": "so far"}]}}]})]), require_finish=False)
    assert list(reply) == ["so far"]
    return reply


def every_error() -> list[GeminiSyncError]:
    common: dict[str, Any] = {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "reason": "QUOTA_EXHAUSTED",
        "details": [{"reason": "QUOTA_EXHAUSTED"}],
        "retry_after": 12.5,
        "link": "https://example.com/fix",
        "trace_id": "trace-1",
        "route": "oauth",
    }
    classes = [
        GeminiSyncError, ConfigError, CredentialsError, RefreshError, ApiError, InvalidRequestError, AuthError,
        PermissionDeniedError, NotFoundError, QuotaError, ServerError, TransportError, ProtocolError,
    ]  # fmt: skip
    return [
        *(cls("what happened", **common) for cls in classes),
        DeadlineExceeded("too late", deadline="idle", seconds=60.0),
        StreamInterrupted("cut", partial=some_reply(), cancelled=True),
        FinishReasonError("failed", reason="OTHER", partial=some_reply(), finish_message="no idea"),
        BlockedError("refused", reason="SAFETY", partial=some_reply()),
        EmptyResponseError("nothing", reason="STOP", partial=some_reply()),
    ]


def comparable(error: BaseException) -> Any:
    """The attributes of an error. Replies compare by identity, so their repr stands for them."""
    return {name: repr(value) if isinstance(value, Reply) else value for name, value in vars(error).items()}


def test_every_error__is_in_these_tests() -> None:
    public = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert {type(error) for error in every_error()} == public


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_copies__are_the_same_error(error: GeminiSyncError, duplicate: Any) -> None:
    attempt = Attempt("oauth", 1.0, 0.5, "failed", ServerError("503"))
    error.attempts = (attempt,)
    twin = duplicate(error)
    assert type(twin) is type(error)
    assert (str(twin), twin.args) == (str(error), error.args)
    seen, expected = comparable(twin), comparable(error)
    assert [repr(one) for one in seen.pop("attempts")] == [repr(one) for one in expected.pop("attempts")]
    assert seen == expected


def test_copy__has_no_traceback__nor_have_its_causes() -> None:
    error: BaseException = TransportError("first")
    for next_one in (ProtocolError("second"), ServerError("third")):
        with pytest.raises(GeminiSyncError):
            raise next_one from error
        error = next_one
    twin: Any = copy.copy(error)
    chain = [twin, twin.__cause__, twin.__cause__.__cause__]
    assert [str(one) for one in chain] == ["third", "second", "first"]
    assert [one.__traceback__ for one in chain] == [None, None, None]


def test_pickle__keeps_a_cause_of_ours() -> None:
    error = StreamInterrupted("cut")
    error.__cause__ = DeadlineExceeded("late", deadline="total", seconds=3)
    twin = pickle.loads(pickle.dumps(error))
    assert isinstance(twin.__cause__, DeadlineExceeded)
    assert (twin.__cause__.deadline, twin.__cause__.seconds) == ("total", 3)
    assert twin.__suppress_context__


def test_pickle__drops_a_cause_that_is_not_ours() -> None:
    error = TransportError("broken")
    error.__cause__ = OSError("holds a socket")
    assert pickle.loads(pickle.dumps(error)).__cause__ is None


def test_pickle__keeps_the_attributes_of_a_subclass() -> None:
    error = _Custom("mine", hint=5)
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), twin.hint, str(twin)) == (_Custom, 5, "mine")


class _Custom(QuotaError):
    def __init__(self, message: str, *, hint: int) -> None:
        super().__init__(message)
        self.hint = hint


def test_pickle__keeps_the_partial_reply() -> None:
    twin = pickle.loads(pickle.dumps(StreamInterrupted("cut", partial=some_reply())))
    assert twin.partial.text == "so far"


def test_config_error__is_a_value_error() -> None:
    with pytest.raises(ValueError, match="what to change"):
        raise ConfigError("what to change")


def test_message__may_be_left_out() -> None:
    error = GeminiSyncError()
    assert str(error) == ""
    assert (error.code, error.details, error.attempts) == (None, (), ())
