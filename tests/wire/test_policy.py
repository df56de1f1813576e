"""The decision table for faults before the first chunk, with the requests counted on real sockets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
import trustme

import gemini_sync
from gemini_sync import Endpoints, errors
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import Rig, gist, kept

TEXT = default_text("Hi")
LINK = "https://example.com/mend"
# What fails, how, how many requests OAuth gets, who serves this call and the next (None: it surfaces), as what error.
Row = tuple[Any, dict[str, Any], int, Optional[str], type[errors.GeminiSyncError]]
ROWS: dict[str, Row] = {
    "400": (400, {}, 1, None, errors.InvalidRequestError),
    "409": (409, {}, 1, None, errors.InvalidRequestError),
    "401 always": (401, {}, 2, "api_key", errors.AuthError),
    "402": (402, {}, 1, "api_key", errors.QuotaError),
    "403": (403, {}, 1, "api_key", errors.PermissionDeniedError),
    "403 service off": (403, {"reason": "SERVICE_DISABLED"}, 1, "api_key", errors.PermissionDeniedError),
    "403 licence": (403, {"reason": "SUBSCRIPTION_REQUIRED"}, 1, "api_key", errors.PermissionDeniedError),
    "403 perimeter": (403, {"reason": "SECURITY_POLICY_VIOLATED"}, 1, None, errors.PermissionDeniedError),
    "404": (404, {}, 1, "model", errors.NotFoundError),
    "429": (429, {}, 3, "api_key", errors.QuotaError),
    "429 short": (429, {"retry_delay": "2s"}, 3, "api_key", errors.QuotaError),
    "429 long": (429, {"retry_delay": "60s"}, 1, "api_key", errors.QuotaError),
    "429 exhausted": (429, {"reason": "QUOTA_EXHAUSTED", "retry_delay": "1s"}, 1, "api_key", errors.QuotaError),
    "429 credits": (429, {"reason": "INSUFFICIENT_G1_CREDITS_BALANCE"}, 1, "api_key", errors.QuotaError),
    "429 per day": (429, {"quota_id": "RequestsPerDayPerProject"}, 1, "api_key", errors.QuotaError),
    "429 per minute": (429, {"quota_id": "RequestsPerMinute"}, 3, "api_key", errors.QuotaError),
    "429 limit 0": (429, {"message": "Quota exceeded, limit: 0"}, 1, "api_key", errors.QuotaError),
    "429 capacity": (429, {"reason": "MODEL_CAPACITY_EXHAUSTED"}, 3, "model", errors.QuotaError),
    "499 capacity": (499, {"reason": "MODEL_CAPACITY_EXCEEDED"}, 3, "model", errors.ServerError),
    "503 capacity": (503, {"reason": "MODEL_CAPACITY_EXHAUSTED"}, 3, "model", errors.ServerError),
    "429 rate": (429, {"reason": "RATE_LIMIT_EXCEEDED"}, 1, "api_key", errors.QuotaError),
    "429 rate short": (429, {"reason": "RATE_LIMIT_EXCEEDED", "retry_delay": "2s"}, 3, "api_key", errors.QuotaError),
    "503 rate": (503, {"reason": "RATE_LIMIT_EXCEEDED"}, 1, "api_key", errors.ServerError),
    "503 exhausted": (503, {"reason": "QUOTA_EXHAUSTED"}, 1, "api_key", errors.ServerError),
    "429 as array": (429, {"as_array": True, "reason": "QUOTA_EXHAUSTED"}, 1, "api_key", errors.QuotaError),
    **{str(code): (code, {}, 3, "api_key", errors.ServerError) for code in (408, 499, 500, 502, 503, 504)},
    "html as 200": ("html", {}, 3, "api_key", errors.ProtocolError),
    "html as 502": ("html", {"code": 502}, 3, "api_key", errors.ServerError),
    "endless error": ("endless_error", {}, 3, "api_key", errors.ServerError),
    "half the headers": ("half_headers", {}, 3, "api_key", errors.ProtocolError),
    "cut before any event": ("cut", {"after": 0}, 3, "api_key", errors.TransportError),
    "cut in the first event": ("cut", {"at": 30}, 3, "api_key", errors.TransportError),
    "clean end before any event": ("truncate", {"after": 0}, 3, "api_key", errors.ProtocolError),
    "empty": ("empty", {}, 3, "api_key", errors.ProtocolError),
    "only pings": ("pings", {}, 3, "api_key", errors.ProtocolError),
    "no JSON": ("garbage_event", {}, 3, "api_key", errors.ProtocolError),
    "no object": ("garbage_event", {"data": b"[]"}, 1, "api_key", errors.ProtocolError),
    "400 in a 200": ("error_json", {"code": 400}, 1, None, errors.InvalidRequestError),
    "401 in a 200": ("error_json", {"code": 401}, 2, "api_key", errors.AuthError),
    "403 in a 200": ("error_json", {"code": 403, "as_array": True}, 1, "api_key", errors.PermissionDeniedError),
    "404 in a 200": ("error_event", {"code": 404}, 1, "model", errors.NotFoundError),
    "429 in a 200": ("error_event", {"code": 429, "retry_delay": "60s"}, 1, "api_key", errors.QuotaError),
    "499 in a 200": ("error_json", {"code": 499}, 3, "api_key", errors.ServerError),
    "503 in a 200": ("error_event", {"code": 503}, 3, "api_key", errors.ServerError),
    **{f"{code}": (code, {"headers": {"Location": "https://evil.example/x"}}, 1, None, errors.ProtocolError)
       for code in (301, 302, 303, 307, 308)},
}  # fmt: skip
every_row = pytest.mark.parametrize(("kind", "arguments", "tries", "serves", "error"), ROWS.values(), ids=ROWS)


@pytest.fixture
def rig(emulator: Emulator, tmp_path: Path) -> Iterator[Rig]:
    with Rig(emulator, tmp_path) as rig:
        yield rig


@every_row
def test_fault__before_the_first_chunk(
    rig: Rig, kind: Any, arguments: Any, tries: int, serves: Any, error: type[errors.GeminiSyncError]
) -> None:
    rig.emulator.oauth.fail(kind, times=tries, **arguments)
    adapter = rig.adapter()
    if serves is None:
        with pytest.raises(error) as caught:
            adapter.generate("Hi")
        assert caught.value.__cause__ is None
        failed = caught.value.attempts
    else:
        reply = adapter.generate("Hi")
        assert reply.text == TEXT
        assert reply.route == "api_key"
        failed = reply.attempts[:-1]
    assert rig.counts == (tries, serves is not None)
    assert {type(attempt.error) for attempt in failed} == {error}
    assert all(attempt.route == "oauth" for attempt in failed)
    again = adapter.generate("Hi"), adapter.generate("Hi", model="another-model")
    assert again[0].route == ("api_key" if serves else "oauth")
    assert again[1].route == ("api_key" if serves == "api_key" else "oauth")
    assert len(rig.flips) == (serves is not None)
    assert adapter.fallback_active == (serves == "api_key")


@every_row
def test_fault__with_oauth_alone(
    rig: Rig, kind: Any, arguments: Any, tries: int, serves: Any, error: type[errors.GeminiSyncError]
) -> None:
    rig.emulator.oauth.fail(kind, times=None, **arguments)
    with pytest.raises(error) as caught:
        rig.adapter(api_key=None).generate("Hi")
    assert type(caught.value) is error
    assert len(str(caught.value)) < 1000
    assert rig.counts == (tries, 0)
    assert rig.flips == []


@every_row
def test_fault__on_both_routes(
    rig: Rig, kind: Any, arguments: Any, tries: int, serves: Any, error: type[errors.GeminiSyncError]
) -> None:
    for route in (rig.emulator.oauth, rig.emulator.api_key):
        route.fail(kind, times=None, **arguments)
    adapter = rig.adapter()
    with pytest.raises(error) as caught:
        adapter.generate("Hi")
    assert isinstance(caught.value.__cause__, error) == (serves is not None)
    # On the API-key route a 401 has no other token to try.
    assert rig.counts == (tries, 0 if serves is None else 1 if error is errors.AuthError else tries)
    assert (rig.flips, adapter.fallback_active, adapter.route_status().models) == ([], False, {})
    for route in (rig.emulator.oauth, rig.emulator.api_key):
        route.reset()
    assert adapter.generate("Hi").route == "oauth"


def test_reset__before_the_headers(rig: Rig) -> None:
    """On a reused connection it may only mean that it was idle for too long, so the request is sent again."""
    rig.emulator.api_key.fail("reset", times=None)
    with pytest.raises(errors.TransportError):
        rig.adapter(oauth_creds_path=None).generate("Hi")
    assert rig.counts == (0, 3)
    rig.emulator.api_key.reset()
    rig.emulator.oauth.fail("reset", times=None)
    adapter = rig.adapter()
    reply = adapter.generate("Hi")
    assert [attempt.route for attempt in reply.attempts] == ["oauth"] * 3 + ["api_key"]
    assert rig.counts == (4, 4)
    assert adapter.fallback_active


@pytest.mark.parametrize("times", [1, 2])
def test_503__then_the_answer(rig: Rig, times: int) -> None:
    rig.emulator.oauth.fail(503, times=times)
    reply = rig.adapter().generate("Hi")
    assert (reply.text, reply.route, len(reply.attempts)) == (TEXT, "oauth", times + 1)
    assert len(rig.slept) == times


@pytest.mark.parametrize("route", ["oauth", "api_key"])
def test_503__always_takes_one_connection(rig: Rig, route: str) -> None:
    """Error bodies are drained, so the connection serves the next try; the attempts keep copies of the errors."""
    getattr(rig.emulator, route).fail(503, times=None)
    with pytest.raises(errors.ServerError, match="503 UNAVAILABLE") as caught:
        rig.adapter(**{"oauth_creds_path" if route == "api_key" else "api_key": None}).generate("Hi")
    assert sum(rig.counts) == 3
    assert rig.emulator.connections_total == 1
    assert kept(caught.value.attempts) == [gist(caught.value)] * 3


def test_401__once_costs_one_refresh_and_one_replay(rig: Rig) -> None:
    rig.emulator.oauth.fail(401)
    adapter = rig.adapter()
    reply = adapter.generate("Hi")
    assert (reply.text, reply.route, len(reply.attempts)) == (TEXT, "oauth", 1)
    assert (rig.counts, len(rig.emulator.token.requests)) == ((2, 0), 1)
    first, second = (request.headers["Authorization"] for request in rig.emulator.oauth.requests)
    assert first != second
    adapter.generate("Hi")
    assert (rig.counts, len(rig.emulator.token.requests)) == ((3, 0), 1)
    assert rig.flips == []
    assert sum(rig.slept) < 0.1  # of saving the token; a pause between two tries is longer


def test_401__always_costs_one_refresh_and_one_replay_then_flips(rig: Rig) -> None:
    rig.emulator.oauth.fail(401, times=None)
    adapter = rig.adapter()
    for _ in range(3):
        assert adapter.generate("Hi").route == "api_key"
    assert (rig.counts, len(rig.emulator.token.requests)) == ((2, 3), 1)
    assert len(rig.flips) == 1


def test_401__of_the_project_question_is_refreshed_as_well(rig: Rig) -> None:
    rig.emulator.load_code_assist.fail(401)
    assert rig.adapter().generate("Hi").route == "oauth"
    assert len(rig.emulator.token.requests) == 1
    assert len(rig.emulator.load_code_assist.requests) == 2


@pytest.mark.parametrize(
    ("fault", "arguments", "tries"),
    [
        (400, {"error": "invalid_grant"}, 1),
        (400, {"error": "invalid_grant", "error_subtype": "invalid_rapt"}, 1),
        (401, {"error": "invalid_client"}, 1),
        (307, {"headers": {"Location": "https://evil.example/x"}}, 1),
        (503, {}, 3),
        (429, {}, 3),
        (408, {}, 3),
        ("reset", {}, 3),
        ("html", {}, 3),
    ],
)
def test_token_endpoint__fails(rig: Rig, fault: Any, arguments: dict[str, Any], tries: int) -> None:
    """A refused refresh falls back at once. One that fails on the way is repeated by itself, and not by the router."""
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
    rig.emulator.token.fail(fault, times=None, **arguments)
    adapter = rig.adapter()
    assert adapter.generate("Hi").route == "api_key"
    assert (len(rig.emulator.token.requests), rig.counts) == (tries, (0, 1))
    (event,) = rig.flips
    assert isinstance(event.error, errors.RefreshError)
    assert len(event.error.attempts) == 1


@pytest.mark.parametrize(
    ("setting", "value", "error"),
    [
        ("ineligible_tiers", [{"reasonCode": "UNSUPPORTED_CLIENT", "tierId": "free-tier"}], "UNSUPPORTED_CLIENT"),
        (
            "ineligible_tiers",
            [{"reasonCode": "VALIDATION_REQUIRED", "validationUrl": LINK, "tierId": "x"}],
            "VALIDATION_REQUIRED",
        ),
        ("project", None, "PROJECT_REQUIRED"),
    ],
)
def test_account__that_may_not_use_code_assist(rig: Rig, setting: str, value: Any, error: str) -> None:
    """The service is asked once about such an account, but again if only a project is missing."""
    rig.emulator.tier = None
    setattr(rig.emulator, setting, value)
    adapter = rig.adapter()
    assert adapter.generate("Hi").route == "api_key"
    assert rig.flips[0].error is not None
    assert rig.flips[0].error.reason == error  # type: ignore[attr-defined]
    assert rig.flips[0].link == (LINK if error == "VALIDATION_REQUIRED" else None)
    adapter.reset()
    assert adapter.generate("Hi").route == "api_key"
    assert len(rig.emulator.load_code_assist.requests) == (2 if error == "PROJECT_REQUIRED" else 1)
    assert rig.counts == (0, 2)
    adapter.reset(force=True)
    rig.emulator.tier, rig.emulator.project = "standard-tier", "mended"
    assert adapter.generate("Hi").route == "oauth"


def test_terms_of_service__link_stands_on_the_error_and_in_the_event(rig: Rig) -> None:
    rig.emulator.oauth.fail(403, reason="TOS_VIOLATION", link=LINK)
    rig.emulator.api_key.fail(400, times=1)
    with pytest.raises(errors.InvalidRequestError) as caught:
        rig.adapter().generate("Hi")
    cause = caught.value.__cause__
    assert isinstance(cause, errors.PermissionDeniedError)
    assert (cause.link, cause.reason, cause.route) == (LINK, "TOS_VIOLATION", "oauth")
    assert rig.flips == []
    assert rig.adapter().generate("Hi").route == "oauth"
    rig.emulator.oauth.fail(403, reason="TOS_VIOLATION", link=LINK)
    assert rig.adapter().generate("Hi").route == "api_key"
    assert rig.flips[0].link == LINK
    assert str(rig.flips[0]).count(LINK) == 1


def test_connection_refused(rig: Rig) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # no server listens, and no other process gets the port
        urls = {**rig.emulator.urls, "code_assist": f"http://127.0.0.1:{closed.getsockname()[1]}"}
        adapter = rig.adapter(endpoints=Endpoints(**urls))
        reply = adapter.generate("Hi")
        assert (reply.route, len(reply.attempts), len(rig.slept)) == ("api_key", 4, 2)
        assert adapter.fallback_active
        with pytest.raises(errors.TransportError):
            rig.adapter(endpoints=Endpoints(**urls), api_key=None).generate("Hi")


def test_certificate__that_cannot_be_verified_surfaces(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with Emulator(ssl_context=context) as emulator, Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter()
        with pytest.raises(errors.TransportError, match=r"127\.0\.0\.1") as caught:
            adapter.generate("Hi")
        assert caught.value.reason == "CERTIFICATE_VERIFY_FAILED"
        assert gemini_sync.explain(caught.value).rule == "certificate"
        assert (emulator.connections_total, emulator.requests) == (1, [])
        assert (rig.flips, rig.slept, adapter.fallback_active) == ([], [], False)
