"""Error answers in other spellings, of odd shapes, with secrets in them, and the step that each of them advises."""

from __future__ import annotations

import json
import pickle
import traceback
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gemini_sync.errors import (
    ApiError,
    QuotaError,
    ServerError,
)
from gemini_sync.messages.api_errors import api_error, find_error, quota_ids
from tests.messages.errors_kit import TYPES, info, status
from tests.messages.odd_json import ODD, arrays, objects
from tests.test_redaction import CANARIES

_DETAIL = st.sampled_from(TYPES).flatmap(
    lambda kind: objects(
        reason=st.text(max_size=3),
        metadata=objects(quotaResetDelay=st.just("12.5s"), validation_link=ODD),
        retryDelay=st.just("12.5s") | objects(seconds=ODD, nanos=ODD),
        violations=arrays(objects(quotaId=ODD)),
        links=arrays(objects(url=ODD)),
    ).map(lambda fields: {"@type": kind, **fields})
)


# Nearly a google.rpc.Status, with any value in any place.
NEARLY_A_STATUS = ODD | objects(
    error=objects(code=ODD, message=ODD, status=ODD, details=arrays(_DETAIL)), error_description=ODD
)


# -- other spellings


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        ({"status": 503}, 503, None), ({"status": "503"}, 503, None), ({"status": 14}, 503, None),
        ({"code": 429.0}, 429, None), ({"code": "RESOURCE_EXHAUSTED"}, 429, "RESOURCE_EXHAUSTED"),
        ({"code": "unavailable"}, 503, "UNAVAILABLE"), ({"status": "not_found"}, 404, "NOT_FOUND"),
        ({"code": "PERMISSION_DENIED", "status": 403}, 403, "PERMISSION_DENIED"),
        ({"code": 0, "status": "UNAVAILABLE"}, 503, "UNAVAILABLE"),
        ({"code": "new_kind"}, 500, "new_kind"), ({"status": "OK"}, 500, "OK"),
    ],
)  # fmt: skip
def test_api_error__code_and_status_as_numbers_and_names(error: Any, code: int, name: Optional[str]) -> None:
    found = api_error(None, {"error": {**error, "message": "busy"}})
    assert (found.code, found.status, type(found)) == (code, name, type(api_error(code, None)))


@pytest.mark.parametrize(
    "body",
    [
        {"response": {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}},
        {"code": 503, "message": "busy", "status": "UNAVAILABLE"},
        {"message": "busy", "status": "UNAVAILABLE"},
        [{"code": 503, "message": "busy", "status": "UNAVAILABLE"}],
    ],
)
def test_api_error__in_an_envelope_or_bare(body: Any) -> None:
    for code in (None, 503):
        error = api_error(code, body)
        assert (error.code, error.status) == (503, "UNAVAILABLE")
        assert str(error) == "503 UNAVAILABLE: busy. Try again later."


def test_api_error__packed_in_the_message_of_another() -> None:
    """The innermost error is what the service said. The others are from gateways around it."""
    details = [{"@type": TYPES[1], "retryDelay": "3s"}, info("RATE_LIMIT_EXCEEDED", quote='"?key=canary"')]
    body = status(429, message='Slow down, see "https://x.example/?key=canary".', details=details)
    for depth, prefix in enumerate(["", "got status: 500. ", "\n", ""]):
        body = status(500 + depth, message=prefix + json.dumps([body] if depth % 2 else body), status="INTERNAL")
        for code in (None, 500, 503):
            error = api_error(code, body)
            assert (type(error), error.code, error.status) == (QuotaError, 429, None)
            assert (error.reason, error.retry_after) == ("RATE_LIMIT_EXCEEDED", 3.0)
            assert 'Slow down, see "https://x.example/?key=[redacted]".' in str(error)
            assert "canary" not in f"{error}{vars(error)}"


def test_api_error__packed_without_a_code__keeps_that_of_the_outer_one() -> None:
    error = api_error(403, status(403, message=json.dumps(status(message="inner")), status="PERMISSION_DENIED"))
    assert (error.code, error.status) == (403, "PERMISSION_DENIED")
    assert ": inner. " in str(error)


@pytest.mark.parametrize(
    "message", ["use {a: 1}", 'sent {"a": 1}', "{", '{"error": {}', '{"error": ""}', "{" * 100_000]
)
def test_api_error__braces_in_a_message_are_text(message: str) -> None:
    error = api_error(400, status(400, message=message, status="INVALID_ARGUMENT"))
    assert (error.code, error.status) == (400, "INVALID_ARGUMENT")
    assert message[:50] in str(error)


def test_api_error__that_packs_itself_many_times_ends() -> None:
    body = status(429, message="deep")
    for _ in range(14):
        body = status(500, message=json.dumps(body))
    assert api_error(500, body).code == 500


def test_api_error__words_of_a_proxy_are_no_status() -> None:
    words = "upstream connect error or disconnect/reset before headers"
    for body in (words, {"error": words}, {"error": {"message": words}}):
        error = api_error(503, body)
        assert (error.code, error.status) == (503, None)
        assert str(error) == f"503 ServerError: {words}. Try again later."


def test_api_error__body_that_is_no_json__is_quoted_in_part() -> None:
    error = api_error(502, "<html>\n  <h1>Bad   Gateway</h1>" + "x" * 2000)
    assert (type(error), error.status, error.details) == (ServerError, None, ())
    assert str(error).startswith("502 ServerError: <html> <h1>Bad Gateway</h1>xxx")
    assert len(str(error)) < 600


@pytest.mark.parametrize("body", [None, 5, "", "null", {}, [], [[]], "[" * 100_000, '{"error":' * 100_000, '"text"'])
def test_api_error__body_without_an_error(body: Any) -> None:
    error = api_error(503, body)
    assert (type(error), error.code, error.reason, error.details) == (ServerError, 503, None, ())


def test_api_error__deeply_nested_body() -> None:
    body: Any = []
    for _ in range(100_000):
        body = [body]
    try:
        assert type(api_error(None, {"error": body})) is ServerError
    finally:
        while body:  # taken apart in a loop, because older interpreters overflow the stack when they free it
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


def test_find_error__in_the_form_of_the_token_endpoint() -> None:
    assert find_error({"error": "invalid_grant"}) == {"status": "invalid_grant", "message": "invalid_grant"}
    described = {"error": "invalid_grant", "error_description": "Token has been revoked."}
    assert find_error(described) == {"status": "invalid_grant", "message": "Token has been revoked."}


@pytest.mark.parametrize(
    "body",
    [
        None, [], [5], {}, {"error": None}, {"error": 5}, {"error": ""}, {"error": False}, {"candidates": []}, "error",
        {"candidates": [], "error": {}}, {"candidates": [], "error": ""}, {"response": {"error": {}}},
        {"message": "text"}, {"message": "text", "code": 200}, {"message": "text", "status": "OK"}, {"code": 503},
        {"candidates": [], "code": 503, "message": "text"},
    ],
)  # fmt: skip
def test_find_error__body_without_an_error__is_none(body: Any) -> None:
    assert find_error(body) is None


def test_api_error__recorded_errors(corpus: Path) -> None:
    streams = json.loads((corpus / "streams" / "expected.json").read_text("utf-8"))
    recorded = [stream for stream in streams if stream["error_body"]]
    assert len(recorded) >= 4
    for stream in recorded:
        body, expected = (corpus / "streams" / stream["file"]).read_text("utf-8"), stream["error_body"]
        error = api_error(stream["status_hint"], body)
        assert (error.code, error.status) == (expected["code"], expected["status"])
        assert expected["message"].rstrip(".") in str(error)
        assert api_error(None, json.loads(body)).code == expected["code"]


@pytest.mark.parametrize("secret", [*CANARIES.values(), "opaque-canary-1", 'quoted"canary\\2'])
@pytest.mark.parametrize(
    "echo",
    [
        lambda secret: {"error": {"code": 400, "message": f"API key not valid: {secret}", "status": secret}},
        lambda secret: {"error": {"code": 400, "message": f"line\n{secret}\nline"}},
        lambda secret: {"error": {"code": 400, "message": f'"https://x.example/?key={secret}" was refused'}},
        lambda secret: {"error": {"details": [{"@type": TYPES[0], "reason": secret, secret: [secret]}]}},
        lambda secret: {"error": {"details": [{"@type": TYPES[3], "links": [{"url": f"https://x?key={secret}"}]}]}},
        lambda secret: [{"error": secret, "error_description": f"Bearer {secret}"}],
        lambda secret: {"unknown": f"\n{secret}"},
    ],
)  # fmt: skip
def test_api_error__shows_no_secret(secret: str, echo: Any) -> None:
    for body in (echo(secret), json.dumps(echo(secret)), json.dumps(echo(secret), ensure_ascii=False), f"<p>{secret}"):
        error = api_error(400, body, secrets=(secret,))
        shown = f"{error}{error!r}{vars(error)}{pickle.dumps(error)!r}"
        shown += "".join(traceback.format_exception(type(error), error, error.__traceback__))
        assert "canary" not in shown


def test_api_error__a_quoted_url_with_a_key__keeps_the_rest_readable() -> None:
    body = {
        "error": {
            "code": 403,
            "message": 'Requested "https://x.example/v1?key=canary" and was refused.',
            "status": "PERMISSION_DENIED",
        }
    }
    for given_body in (body, json.dumps(body)):
        error = api_error(403, given_body)
        assert error.status == "PERMISSION_DENIED"
        assert 'Requested "https://x.example/v1?key=[redacted]" and was refused.' in str(error)


@pytest.mark.parametrize(
    ("code", "reason", "step"),
    [
        (400, "API_KEY_INVALID", "Check the API key."),
        (400, "INSUFFICIENT_G1_CREDITS_BALANCE", "Buy credit, or use another account or key."),
        (402, None, "Buy credit, or use another account or key."),
        (405, None, "Check the endpoint."),
        (407, None, "Check the user and password of the proxy."),
    ],
)
def test_api_error__next_step_of_the_reason_or_code(code: int, reason: Optional[str], step: str) -> None:
    body = status(message="It failed.", details=[info(reason)] if reason else [])
    assert str(api_error(code, body)).endswith(f": It failed. {step}")


def test_api_error__next_step_of_a_failed_precondition() -> None:
    error = api_error(400, status(message="Your location is not supported.", status="FAILED_PRECONDITION"))
    assert str(error).endswith("supported. Change the request, or check what this account or key may use.")
