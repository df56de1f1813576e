"""Tests of how error answers become typed errors: the class, the attributes and the message."""

from __future__ import annotations

import json
from typing import Any, Optional

import pytest

from gemini_sync.errors import (
    ApiError,
    AuthError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    ServerError,
)
from gemini_sync.messages.api_errors import api_error, quota_ids
from tests.messages.errors_kit import TYPES, info, status


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
def test_api_error__inside_a_stream__has_the_code_of_its_body(rpc: int, name: str, http: int) -> None:
    by_number, by_name = api_error(None, status(rpc)), api_error(None, status(status=name))
    as_text, by_http = api_error(None, status(str(rpc))), api_error(None, status(http, status="SOMETHING_NEW"))
    assert {error.code for error in (by_number, by_name, as_text, by_http)} == {http}
    assert {type(error) for error in (by_number, by_name, as_text, by_http)} == {type(api_error(http, None))}
    assert (by_name.status, by_number.status) == (name, None)


@pytest.mark.parametrize("code", [0, -1, 17, 200, 302, 600, "²", "9" * 5000, "x", None, 503.5, [], {}])
def test_api_error__inside_a_stream__an_unknown_code_counts_as_500(code: Any) -> None:
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
        (400, "Change the request."), (401, "Check the API key; for OAuth, get another access token or log in again."),
        (403, "Check what this account or key may use."),
        (404, "Check the model name, the other names in the request, and the endpoint."),
        (429, "Wait, raise the quota, or use another model."), (503, "Try again later."),
    ],
)  # fmt: skip
def test_api_error__tells_the_next_step(code: int, step: str) -> None:
    assert str(api_error(code, status(message="It failed."))).endswith(f": It failed. {step}")


def test_api_error__keeps_ten_thousand_characters_of_the_message() -> None:
    assert ": " + "x" * 10_000 + ". Change" in str(api_error(400, status(message="x" * 10_000)))
    assert ": " + "x" * 9_999 + "…. Change" in str(api_error(400, status(message="x" * 10_001)))


def test_api_error__does_not_change_with_the_body() -> None:
    body = status(429, details=[info("RATE_LIMIT_EXCEEDED")])
    error = api_error(None, body)
    body["error"]["details"][0]["reason"] = "changed"
    assert error.details[0]["reason"] == "RATE_LIMIT_EXCEEDED"
