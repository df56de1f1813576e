"""Holds the errors to their contract: the right class for each answer, data as attributes, copies that are equal."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
from gemini_sync.messages.api_errors import api_error, find_error, quota_ids
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.response import Chunk
from tests.messages.odd_json import ODD, arrays, objects

TYPES = [f"type.googleapis.com/google.rpc.{name}" for name in ("ErrorInfo", "RetryInfo", "QuotaFailure", "Help")]
_DETAIL = st.sampled_from(TYPES).flatmap(
    lambda kind: objects(
        reason=st.text(max_size=3),
        metadata=objects(quotaResetDelay=st.just("12.5s"), validation_link=ODD),
        retryDelay=st.just("12.5s") | objects(seconds=ODD, nanos=ODD),
        violations=arrays(objects(quotaId=ODD)),
        links=arrays(objects(url=ODD)),
    ).map(lambda fields: {"@type": kind, **fields})
)
# JSON that comes close to a google.rpc.Status, with anything in any place.
NEARLY_A_STATUS = ODD | objects(
    error=objects(code=ODD, message=ODD, status=ODD, details=arrays(_DETAIL)), error_description=ODD
)


def status(code: Any = None, **fields: Any) -> dict[str, Any]:
    return {"error": {**({} if code is None else {"code": code}), **fields}}


def info(reason: str, **metadata: str) -> dict[str, Any]:
    return {"@type": TYPES[0], "reason": reason, "domain": "googleapis.com", "metadata": metadata}


def some_reply() -> Reply:
    reply = Reply(iter([Chunk({"candidates": [{"content": {"parts": [{"text": "so far"}]}}]})]), require_finish=False)
    assert list(reply) == ["so far"]
    return reply


def every_error() -> list[GeminiSyncError]:
    common: dict[str, Any] = {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "reason": "QUOTA_EXHAUSTED",
        "details": [info("QUOTA_EXHAUSTED")],
        "retry_after": 12.5,
        "link": "https://example.com/mend",
        "trace_id": "trace-1",
        "route": "oauth",
    }
    plain = [
        GeminiSyncError, ConfigError, CredentialsError, RefreshError, ApiError, InvalidRequestError, AuthError,
        PermissionDeniedError, NotFoundError, QuotaError, ServerError, TransportError, ProtocolError,
    ]  # fmt: skip
    return [
        *(cls("what happened", **common) for cls in plain),
        DeadlineExceeded("too late", deadline="idle", seconds=60.0),
        StreamInterrupted("cut", partial=some_reply(), cancelled=True),
        FinishReasonError("failed", reason="OTHER", partial=some_reply(), finish_message="no idea"),
        BlockedError("refused", reason="SAFETY", partial=some_reply()),
        EmptyResponseError("nothing", reason="STOP", partial=some_reply()),
    ]


def comparable(error: BaseException) -> Any:
    """What an error says, with replies (which compare by identity) by what they show."""
    return {name: repr(value) if isinstance(value, Reply) else value for name, value in vars(error).items()}


# -- the classes


def test_every_error__is_covered_by_these_tests() -> None:
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


def test_copy__has_no_traceback_and_neither_have_its_causes() -> None:
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


def test_pickle__leaves_a_foreign_cause_behind() -> None:
    error = TransportError("broken")
    error.__cause__ = OSError("holds a socket")
    assert pickle.loads(pickle.dumps(error)).__cause__ is None


def test_pickle__keeps_what_a_subclass_added() -> None:
    error = _Custom("mine", hint=5)
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), twin.hint, str(twin)) == (_Custom, 5, "mine")


class _Custom(QuotaError):
    def __init__(self, message: str, *, hint: int) -> None:
        super().__init__(message)
        self.hint = hint


def test_partial__survives_a_pickle() -> None:
    twin = pickle.loads(pickle.dumps(StreamInterrupted("cut", partial=some_reply())))
    assert twin.partial.text == "so far"


def test_config_error__is_a_value_error() -> None:
    with pytest.raises(ValueError, match="what to change"):
        raise ConfigError("what to change")


def test_message__may_be_left_out() -> None:
    error = GeminiSyncError()
    assert str(error) == ""
    assert (error.code, error.details, error.attempts) == (None, (), ())


# -- from an answer to its error


@pytest.mark.parametrize(
    ("code", "reason", "cls"),
    [
        (400, None, InvalidRequestError), (400, "API_KEY_INVALID", AuthError), (405, None, InvalidRequestError),
        (401, None, AuthError), (401, "ACCESS_TOKEN_TYPE_UNSUPPORTED", AuthError), (402, None, QuotaError),
        (403, None, PermissionDeniedError), (403, "SERVICE_DISABLED", PermissionDeniedError),
        (404, None, NotFoundError), (408, None, ServerError), (409, None, InvalidRequestError),
        (413, None, InvalidRequestError), (422, None, InvalidRequestError), (429, None, QuotaError),
        (429, "RATE_LIMIT_EXCEEDED", QuotaError), (499, None, ServerError), (500, None, ServerError),
        (502, None, ServerError), (503, "MODEL_CAPACITY_EXHAUSTED", ServerError), (504, None, ServerError),
        (302, None, ApiError),
    ],
)  # fmt: skip
def test_api_error__class_by_reason_and_code(code: int, reason: Optional[str], cls: type[ApiError]) -> None:
    error = api_error(code, status(details=[info(reason)] if reason else [], message="Sorry."))
    assert type(error) is cls
    assert (error.code, error.reason) == (code, reason)
    assert str(error).startswith(f"{code} {cls.__name__}" + (f" ({reason}): Sorry." if reason else ": Sorry."))


@pytest.mark.parametrize(
    ("rpc", "name", "http"),
    [
        (1, "CANCELLED", 499), (2, "UNKNOWN", 500), (3, "INVALID_ARGUMENT", 400), (4, "DEADLINE_EXCEEDED", 504),
        (5, "NOT_FOUND", 404), (6, "ALREADY_EXISTS", 409), (7, "PERMISSION_DENIED", 403),
        (8, "RESOURCE_EXHAUSTED", 429), (9, "FAILED_PRECONDITION", 400), (10, "ABORTED", 409),
        (11, "OUT_OF_RANGE", 400), (12, "UNIMPLEMENTED", 501), (13, "INTERNAL", 500), (14, "UNAVAILABLE", 503),
        (15, "DATA_LOSS", 500), (16, "UNAUTHENTICATED", 401),
    ],
)  # fmt: skip
def test_api_error__inside_a_stream(rpc: int, name: str, http: int) -> None:
    by_number, by_name = api_error(None, status(rpc)), api_error(None, status(status=name))
    as_text, by_http = api_error(None, status(str(rpc))), api_error(None, status(http, status="SOMETHING_NEW"))
    assert {error.code for error in (by_number, by_name, as_text, by_http)} == {http}
    assert {type(error) for error in (by_number, by_name, as_text, by_http)} == {type(api_error(http, None))}
    assert (by_name.status, by_number.status) == (name, None)


@pytest.mark.parametrize("code", [0, -1, 17, 200, 302, 600, "²", "9" * 5000, "x", None, 503.5, [], {}])
def test_api_error__a_code_that_is_none__counts_as_500(code: Any) -> None:
    assert (api_error(None, status(code)).code, api_error(None, status(code, status="NEW")).code) == (500, 500)


@pytest.mark.parametrize("wrap", [lambda body: body, lambda body: [body], lambda body: [body, status(400)]])
@pytest.mark.parametrize("encode", [lambda body: body, json.dumps, lambda body: json.dumps(body, indent=2)])
def test_api_error__reads_objects_arrays_and_text(wrap: Any, encode: Any) -> None:
    body = status(
        429,
        message="Quota\n exceeded.",
        status="RESOURCE_EXHAUSTED",
        details=[
            info("RATE_LIMIT_EXCEEDED"),
            {"@type": TYPES[1], "retryDelay": "34.5s"},
            {"@type": TYPES[2], "violations": [{"quotaId": "PerDay-A"}, {"subject": "x"}, 5, {"quotaId": 5}]},
            {"@type": TYPES[3], "links": [5, {"url": ""}, {"url": "https://example.com/quota"}]},
            "no detail",
        ],
    )
    error = api_error(None, encode(wrap(body)))
    assert (type(error), error.code, error.status) == (QuotaError, 429, "RESOURCE_EXHAUSTED")
    assert (error.reason, error.retry_after, len(error.details)) == ("RATE_LIMIT_EXCEEDED", 34.5, 4)
    assert (error.link, quota_ids(error)) == ("https://example.com/quota", ["PerDay-A"])
    assert str(error) == ("429 RESOURCE_EXHAUSTED (RATE_LIMIT_EXCEEDED): Quota exceeded. See https://example.com/quota")


@pytest.mark.parametrize("name", ["validation_link", "appeal_url"])
def test_api_error__link_in_the_metadata(name: str) -> None:
    error = api_error(403, status(details=[info("VALIDATION_REQUIRED", **{name: "https://example.com/go"})]))
    assert error.link == "https://example.com/go"
    assert str(error).endswith("See https://example.com/go")


@pytest.mark.parametrize(
    ("code", "step"),
    [
        (400, "Change the request."),
        (401, "Check the API key; for OAuth, get another access token or log in again."),
        (403, "Check what this account or key may use."),
        (404, "Check the model name, the other names in the request, and the endpoint."),
        (429, "Wait, raise the quota, or use another model."), (503, "Try again later."),
        (402, "Buy credit, or use another account or key."), (405, "Check the endpoint."),
        (407, "Check the user and password of the proxy."),
    ],
)  # fmt: skip
def test_api_error__says_the_next_step(code: int, step: str) -> None:
    assert str(api_error(code, status(message="It failed."))).endswith(f": It failed. {step}")


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("API_KEY_INVALID", "Check the API key."),
        ("INSUFFICIENT_G1_CREDITS_BALANCE", "Buy credit, or use another account or key."),
    ],
)
def test_api_error__next_step_of_the_reason(reason: str, step: str) -> None:
    assert str(api_error(400, status(message="It failed.", details=[info(reason)]))).endswith(f": It failed. {step}")


def test_api_error__next_step_of_a_failed_precondition() -> None:
    error = api_error(400, status(message="Your location is not supported.", status="FAILED_PRECONDITION"))
    assert str(error).endswith("supported. Change the request, or check what this account or key may use.")


def test_api_error__ten_thousand_characters_of_the_message() -> None:
    assert ": " + "x" * 10_000 + ". Change" in str(api_error(400, status(message="x" * 10_000)))
    assert ": " + "x" * 9_999 + "…. Change" in str(api_error(400, status(message="x" * 10_001)))


def test_api_error__snapshot_of_the_body() -> None:
    body = status(429, details=[info("RATE_LIMIT_EXCEEDED")])
    error = api_error(None, body)
    body["error"]["details"][0]["reason"] = "changed"
    assert error.details[0]["reason"] == "RATE_LIMIT_EXCEEDED"


def test_api_error__no_json__is_quoted_in_part() -> None:
    error = api_error(502, "<html>\n  <h1>Bad   Gateway</h1>" + "x" * 2000)
    assert (type(error), error.status, error.details) == (ServerError, None, ())
    assert str(error).startswith("502 ServerError: <html> <h1>Bad Gateway</h1>xxx")
    assert len(str(error)) < 600


@pytest.mark.parametrize("body", [None, 5, "", "null", {}, [], [[]], "[" * 100_000, '{"error":' * 100_000, '"text"'])
def test_api_error__nothing_in_it(body: Any) -> None:
    error = api_error(503, body)
    assert (type(error), error.code, error.reason, error.details) == (ServerError, 503, None, ())


def test_api_error__deeply_nested_body_that_was_decoded() -> None:
    body: Any = []
    for _ in range(100_000):
        body = [body]
    try:
        assert type(api_error(None, {"error": body})) is ServerError
    finally:
        while body:  # taken apart by hand: older interpreters overflow the stack when they free it
            body = body.pop()


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"x-cloudaicompanion-trace-id": "a", "x-goog-request-id": "b"}, "a"),
        ({"x-goog-request-id": "b"}, "b"),
        ({}, None),
        (None, None),
    ],
)
def test_api_error__trace_id(headers: Optional[dict[str, str]], trace: Optional[str]) -> None:
    assert api_error(500, "", headers=headers).trace_id == trace


@given(st.none() | st.integers(100, 599), NEARLY_A_STATUS)
@example(None, status(code="²"))
@example(None, status(details=[{"@type": TYPES[1], "retryDelay": {"seconds": 10**400}}]))
@example(403, status(message='See "https://x.example/?key=abc"'))
@settings(max_examples=150, deadline=None)
def test_api_error__any_json__never_raises(code: Optional[int], body: Any) -> None:
    for given_body in (body, [body], json.dumps(body)):
        error = api_error(code, given_body)
        assert isinstance(error, ApiError)
        assert isinstance(error.code, int)
        assert error.retry_after is None or error.retry_after >= 0
        assert quota_ids(error) == [quota for quota in quota_ids(error) if isinstance(quota, str)]
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


@given(NEARLY_A_STATUS)
@settings(max_examples=100, deadline=None)
def test_find_error__any_json__is_a_dict_or_none(body: Any) -> None:
    assert find_error(body) is None or isinstance(find_error(body), dict)


def test_find_error__oauth_shape() -> None:
    assert find_error({"error": "invalid_grant"}) == {"status": "invalid_grant", "message": "invalid_grant"}
    described = {"error": "invalid_grant", "error_description": "Token has been revoked."}
    assert find_error(described) == {"status": "invalid_grant", "message": "Token has been revoked."}


@pytest.mark.parametrize("body", [None, [], [5], {}, {"error": None}, {"error": 5}, {"candidates": []}, "error"])
def test_find_error__none_there(body: Any) -> None:
    assert find_error(body) is None


def test_recorded_errors(corpus: Path) -> None:
    streams = json.loads((corpus / "streams" / "expected.json").read_text("utf-8"))
    recorded = [stream for stream in streams if stream["error_body"]]
    assert len(recorded) >= 4
    for stream in recorded:
        body, expected = (corpus / "streams" / stream["file"]).read_text("utf-8"), stream["error_body"]
        error = api_error(stream["status_hint"], body)
        assert (error.code, error.status) == (expected["code"], expected["status"])
        assert expected["message"].rstrip(".") in str(error)
        assert api_error(None, json.loads(body)).code == expected["code"]
