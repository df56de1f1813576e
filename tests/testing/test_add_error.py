"""``add_error``: the errors of each service, and what this package makes of them."""

from __future__ import annotations

import json
from typing import Any, Optional

import pytest
import responses

from gemini_sync import ApiError, AuthError, GeminiDualAdapter, NotFoundError, QuotaError, Retry, ServerError
from gemini_sync.testing import add_error, add_stream
from tests.testing.cassette_kit import QUICK
from tests.testing.mocks_kit import ask, ask_vertex, dual


@pytest.fixture
def rsps():
    with responses.RequestsMock() as mock:
        yield mock


def details(error: ApiError, kind: str) -> Optional[dict[str, Any]]:
    return next((dict(found) for found in error.details if str(found.get("@type")).endswith(kind)), None)


def refused(rsps: Any, code: int, kind: type[Exception], route: str = "api_key", **arguments: Any) -> Any:
    add_error(rsps, code, route=route, **arguments)
    with pytest.raises(kind) as caught:
        ask(route, retry=Retry(max_attempts=1))
    return caught.value


def test_error__429_of_the_gemini_api(rsps):
    error = refused(rsps, 429, QuotaError, retry_after=34.5)
    assert (error.code, error.status, error.reason, error.retry_after) == (429, "RESOURCE_EXHAUSTED", None, 34.5)
    violation = details(error, "QuotaFailure")["violations"][0]
    assert violation["quotaId"] == "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
    assert details(error, "RetryInfo")["retryDelay"] == "34.5s"
    assert details(error, "Help")["links"]
    assert "Please retry in 34.5s" in str(error)


def test_error__daily_quota_of_the_gemini_api(rsps):
    error = refused(rsps, 429, QuotaError, reason="QUOTA_EXHAUSTED")
    assert "PerDay" in details(error, "QuotaFailure")["violations"][0]["quotaId"]
    assert details(error, "ErrorInfo")["domain"] == "googleapis.com"
    assert error.retry_after is None


def test_error__429_of_code_assist(rsps):
    error = refused(rsps, 429, QuotaError, "oauth", reason="QUOTA_EXHAUSTED", retry_after=3600)
    info = details(error, "ErrorInfo")
    assert (info["domain"], error.reason, error.retry_after) == ("cloudcode-pa.googleapis.com", "QUOTA_EXHAUSTED", 3600)
    assert info["metadata"] == {"uiMessage": "true", "quotaResetDelay": "3600s", "model": "gemini-3.8-flash"}
    assert "Your quota will reset after 3600s" in str(error)
    assert details(error, "QuotaFailure") is None


def test_error__rate_without_a_hint_has_none(rsps):
    error = refused(rsps, 429, QuotaError, "oauth", reason="RATE_LIMIT_EXCEEDED")
    assert error.retry_after is None


def test_error__capacity_of_code_assist(rsps):
    error = refused(rsps, 503, ServerError, "oauth", reason="MODEL_CAPACITY_EXHAUSTED", model="gemini-3.8-flash")
    assert "No capacity available for model gemini-3.8-flash on the server" in str(error)
    assert error.retry_after is None


def test_error__validation_of_code_assist(rsps):
    arguments = {"reason": "VALIDATION_REQUIRED", "link": "https://example.com/go"}
    error = refused(rsps, 403, ApiError, "oauth", **arguments)
    assert (error.link, details(error, "ErrorInfo")["metadata"]) == ("https://example.com/go", {})


@pytest.mark.parametrize("route", ["api_key", "oauth"])
def test_error__of_the_gateway_has_its_domain(rsps, route):
    error = refused(rsps, 403, ApiError, route, reason="SERVICE_DISABLED")
    info = details(error, "ErrorInfo")
    host = {"api_key": "generativelanguage.googleapis.com", "oauth": "cloudcode-pa.googleapis.com"}[route]
    assert (info["domain"], info["metadata"]) == ("googleapis.com", {"service": host})


def test_error__bad_key_is_that_of_a_recording(rsps, corpus):
    recorded = json.loads((corpus / "streams/vertexai/streaming-failure-api-key.txt").read_text())["error"]
    error = refused(rsps, 400, AuthError, reason="API_KEY_INVALID")
    assert recorded["message"] in str(error)
    assert details(error, "ErrorInfo") == recorded["details"][0]


def test_error__model_not_found(rsps):
    assert refused(rsps, 404, NotFoundError, message="models/m is not found").status == "NOT_FOUND"


@pytest.mark.parametrize("reason", [None, "SERVICE_DISABLED"])
def test_error__of_vertex_ai_is_in_an_array(rsps, reason):
    add_error(rsps, 429, route="vertex_ai", reason=reason)
    (body,) = ask_vertex().json()
    assert body["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert body["error"]["message"].startswith("Resource exhausted. Please try again later.")
    assert ("details" in body["error"]) == (reason is not None)


def test_error__of_the_token_endpoint_that_passes(rsps, tmp_path):
    add_error(rsps, 503, route="token", retry_after=1, times=1)
    add_stream(rsps, "Hi", route="oauth")
    slept: list[float] = []
    assert dual(tmp_path, sleep=slept.append).generate("Why?").route == "oauth"
    assert [int(seconds) for seconds in slept if seconds >= 1] == [1]  # with a little jitter; a save waits for moments


def test_error__before_a_stream(rsps):
    add_error(rsps, 503)
    add_stream(rsps, "Hi")
    assert [attempt.outcome for attempt in ask().attempts] == ["failed", "answered"]


def test_error__counts_tokens_as_well(rsps):
    add_error(rsps, 500)
    adapter = GeminiDualAdapter("a-key-of-mine", **{**QUICK, "retry": Retry(max_attempts=1)})
    with adapter, pytest.raises(ServerError):
        adapter.count_tokens("Why?")
