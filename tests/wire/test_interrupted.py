"""After the first chunk, on real sockets: no request is sent again, and the table decides where the next call goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemini_sync import errors
from gemini_sync.testing.emulator import Emulator, default_text
from gemini_sync.testing.emulator.answers import split_text
from tests.adapter_kit import Rig, gist, kept

PIECES = split_text(default_text("Hi"))
# What breaks the stream, how, the cause's type, and where the next call goes ("model": the API key, this model alone).
Row = tuple[str, dict[str, Any], type[errors.GeminiSyncError], str]
ROWS: dict[str, Row] = {
    "cut": ("cut", {}, errors.TransportError, "oauth"),
    "reset": ("reset", {}, errors.TransportError, "oauth"),
    "clean end without a finish reason": ("truncate", {}, type(None), "oauth"),
    "no JSON": ("garbage_event", {}, errors.ProtocolError, "oauth"),
    "no object": ("garbage_event", {"data": b"3"}, errors.ProtocolError, "oauth"),
    "400": ("error_event", {"code": 400}, errors.InvalidRequestError, "oauth"),
    "400 as bare JSON": ("error_json", {"code": 400}, errors.InvalidRequestError, "oauth"),
    "401": ("error_event", {"code": 401}, errors.AuthError, "oauth"),
    "403": ("error_event", {"code": 403}, errors.PermissionDeniedError, "api_key"),
    "403 perimeter": (
        "error_event", {"code": 403, "reason": "SECURITY_POLICY_VIOLATED"}, errors.PermissionDeniedError, "oauth",
    ),
    "404": ("error_json", {"code": 404}, errors.NotFoundError, "model"),
    "429": ("error_event", {"code": 429}, errors.QuotaError, "oauth"),
    "429 short": ("error_event", {"code": 429, "retry_delay": "2s"}, errors.QuotaError, "oauth"),
    "429 long": ("error_event", {"code": 429, "retry_delay": "60s"}, errors.QuotaError, "api_key"),
    "429 exhausted": ("error_event", {"code": 429, "reason": "QUOTA_EXHAUSTED"}, errors.QuotaError, "api_key"),
    "499 as bare JSON": ("error_json", {"code": 499}, errors.ServerError, "oauth"),
    "503": ("error_event", {"code": 503}, errors.ServerError, "oauth"),
    "503 as an array": ("error_json", {"code": 503, "as_array": True}, errors.ServerError, "oauth"),
}  # fmt: skip


@pytest.fixture
def rig(emulator: Emulator, tmp_path: Path) -> Iterator[Rig]:
    with Rig(emulator, tmp_path) as rig:
        yield rig


@pytest.mark.parametrize(("kind", "arguments", "cause", "next_route"), ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("after", [1, 3])
def test_fault__after_some_chunks(
    rig: Rig, after: int, kind: str, arguments: dict[str, Any], cause: type[Any], next_route: str
) -> None:
    rig.emulator.oauth.fail(kind, after=after, **arguments)
    adapter = rig.adapter()
    reply, came = adapter.stream("Hi"), []
    with pytest.raises(errors.StreamInterrupted) as caught:
        came.extend(reply)
    error = caught.value
    assert came == PIECES[:after]
    assert error.partial is not None
    assert error.partial.text == reply.text == "".join(came)
    assert error.partial.content["parts"] == [{"text": "".join(came)}]
    assert isinstance(error.__cause__, cause)
    assert (error.route, error.cancelled, error.code) == ("oauth", False, arguments.get("code"))
    assert [attempt.outcome for attempt in error.attempts] == ["interrupted"]
    assert kept(error.attempts) == [gist(error.__cause__)]
    assert (rig.counts, rig.slept, rig.flips, adapter.fallback_active) == ((1, 0), [], [], False)
    routes = [adapter.generate("Hi", model=model).route for model in (None, "another-model")]
    assert routes == [
        "oauth" if next_route == "oauth" else "api_key",
        "api_key" if next_route == "api_key" else "oauth",
    ]
    assert len(rig.flips) == (next_route != "oauth")
    assert adapter.fallback_active == (next_route == "api_key")
    assert rig.emulator.token.requests == []  # a 401 here leaves the token to the next call


def test_fault__after_some_chunks_and_then_of_the_key(rig: Rig) -> None:
    rig.emulator.oauth.fail("error_event", after=1, code=403)
    rig.emulator.api_key.fail(403)
    adapter = rig.adapter()
    with pytest.raises(errors.StreamInterrupted):
        adapter.generate("Hi")
    with pytest.raises(errors.PermissionDeniedError):
        adapter.generate("Hi")
    assert (rig.counts, rig.flips, adapter.fallback_active) == ((1, 1), [], False)
    assert adapter.generate("Hi").route == "oauth"


def test_fault__on_the_api_key_after_some_chunks(rig: Rig) -> None:
    """No other route is left after the API key: a call never goes back to OAuth."""
    rig.emulator.oauth.fail(403)
    rig.emulator.api_key.fail("error_event", after=2, code=403)
    adapter = rig.adapter()
    with pytest.raises(errors.StreamInterrupted) as caught:
        adapter.generate("Hi")
    assert [(attempt.route, attempt.outcome) for attempt in caught.value.attempts] == [
        ("oauth", "failed"),
        ("api_key", "interrupted"),
    ]
    assert rig.counts == (1, 1)
    assert adapter.generate("Hi").route == "api_key"
    assert len(rig.flips) == 1


def test_gzip__cut_off(rig: Rig) -> None:
    rig.emulator.oauth.fail("gzip")
    rig.emulator.oauth.fail("gzip", truncate=True)
    adapter = rig.adapter()
    assert adapter.generate("Hi").text == default_text("Hi")
    with pytest.raises(errors.StreamInterrupted) as caught:
        adapter.generate("Hi")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "".join(PIECES[: len(PIECES) // 2])
    assert rig.counts == (2, 0)


# -- verdicts on whole answers


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        ({"text": "Some of it", "finish_reason": "SAFETY"}, errors.BlockedError, "Some of it"),
        ({"text": "Some of it", "finish_reason": "MALFORMED_FUNCTION_CALL"}, errors.FinishReasonError, "Some of it"),
        ({"chunks": [{"promptFeedback": {"blockReason": "OTHER"}}]}, errors.BlockedError, ""),
        ({"text": "", "finish_reason": "STOP"}, errors.EmptyResponseError, ""),
        ({"thoughts": "Only thoughts", "text": ""}, errors.EmptyResponseError, ""),
    ],
)
def test_verdict__is_neither_retried_nor_a_reason_to_flip(
    rig: Rig, answer: dict[str, Any], error: type[errors.GeminiSyncError], text: str
) -> None:
    rig.emulator.oauth.answer(**answer)
    adapter = rig.adapter()
    for _ in range(2):
        with pytest.raises(error) as caught:
            adapter.generate("Hi")
        assert type(caught.value) is error
        assert caught.value.partial.text == text  # type: ignore[attr-defined]
        assert (caught.value.route, len(caught.value.attempts)) == ("oauth", 1)
        assert len(list(adapter.stream("Hi").chunks())) > 0
    assert (rig.counts, rig.flips, rig.slept) == ((4, 0), [], [])


# -- one model


def test_unknown_model__goes_to_the_key_and_is_said_once_when_its_answer_begins(rig: Rig) -> None:
    rig.emulator.oauth.models = ["old-model"]
    adapter = rig.adapter(model="models/old-model")
    replies = [adapter.stream("Hi", model="new-model") for _ in range(3)]
    assert rig.flips == []
    for reply in replies:
        assert next(reply) == PIECES[0]
        assert len(rig.flips) == 1
        assert "".join(reply) == "".join(PIECES[1:])
    (event,) = rig.flips
    assert event.model == "new-model"
    assert isinstance(event.error, errors.NotFoundError)
    assert adapter.generate("Hi").route == "oauth"
    assert adapter.route_status().models == {"new-model": "api_key"}
    assert not adapter.fallback_active
    assert rig.counts == (2, 3)


def test_unknown_model__of_both_routes_changes_nothing(rig: Rig) -> None:
    rig.emulator.models = ["old-model"]
    adapter = rig.adapter(model="old-model")
    for count in (1, 2):
        with pytest.raises(errors.NotFoundError) as caught:
            adapter.generate("Hi", model="no-model")
        assert isinstance(caught.value.__cause__, errors.NotFoundError)
        assert rig.counts == (count, count)
    assert adapter.generate("Hi").route == "oauth"
    assert (rig.flips, adapter.fallback_active, adapter.route_status().models) == ([], False, {})


# -- recorded bodies


@pytest.mark.parametrize("status", ["as its status", "as a 200"])
def test_recorded_error__counts_as_the_status_it_carries(rig: Rig, corpus: Path, status: str) -> None:
    expected = json.loads((corpus / "streams" / "expected.json").read_text())
    bodies = {item["file"]: item["error_body"] for item in expected if item["error_body"] and not item["n_events"]}
    assert {error["code"] for error in bodies.values()} >= {400, 404}
    adapter = rig.adapter(oauth_creds_path=None)
    for name, error in bodies.items():
        body = (corpus / "streams" / name).read_bytes()
        if status == "as a 200":
            rig.emulator.api_key.answer(times=1, body=body, content_type="text/event-stream")
        else:
            rig.emulator.api_key.fail(error["code"], body=body)
        with pytest.raises(errors.ApiError) as caught:
            adapter.generate("Hi")
        assert (caught.value.code, caught.value.status) == (error["code"], error["status"])
        assert " ".join(error["message"].split()).rstrip(".") in str(caught.value)
    assert rig.counts == (0, len(bodies))
