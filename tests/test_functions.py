"""Holds the two plain functions: one route each, nothing set up, no fallback."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from gemini_sync import (
    AuthError,
    ConfigError,
    Endpoints,
    GeminiDualAdapter,
    Reply,
    Retry,
    ServerError,
    StreamInterrupted,
    Timeouts,
    functions,
    stream_gemini_api_key,
    stream_gemini_oauth,
)
from gemini_sync.testing.emulator import Emulator, Route, default_text
from tests.adapter_kit import TIMEOUTS

AT_ONCE = Retry(backoff_base=0)


class Way:
    """One of the functions, on an emulator."""

    def __init__(self, name: str, emulator: Emulator) -> None:
        self.route: Route = getattr(emulator, name)
        self.by_key = name == "api_key"
        self._emulator, self._token = emulator, emulator.issue_token()

    def __call__(self, prompt: Any = "Hi", **options: Any) -> Reply:
        given = {"endpoints": Endpoints(**self._emulator.urls), "timeouts": TIMEOUTS, **options}
        if self.by_key:
            return stream_gemini_api_key(prompt, given.pop("secret", self._emulator.key), **given)
        secret, project = given.pop("secret", self._token), given.pop("project", "my-project")
        return stream_gemini_oauth(prompt, secret, project, **given)


@pytest.fixture(params=["api_key", "oauth"])
def way(request: pytest.FixtureRequest, emulator: Emulator) -> Way:
    return Way(request.param, emulator)


def test_plain__streams(way: Way, emulator: Emulator) -> None:
    reply = way(model="some-model", system_instruction="Be brief.", generation_config={"temperature": 0})
    assert emulator.requests == []
    pieces = list(reply)
    assert "".join(pieces) == default_text("Hi")
    assert len(pieces) > 2
    assert reply.route == way.route.name
    (request,) = emulator.requests
    assert request.model == "some-model"
    body = request.json if way.by_key else request.json["request"]
    assert body["generationConfig"] == {"temperature": 0}


def test_plain__shares_connections_between_calls(way: Way, emulator: Emulator) -> None:
    for _ in range(5):
        assert list(way())
    assert emulator.connections_total == 1


def test_plain__retries(way: Way) -> None:
    way.route.fail(503, times=2)
    assert "".join(way(retry=AT_ONCE)) == default_text("Hi")
    way.route.fail(503, times=None)
    with pytest.raises(ServerError) as caught:
        list(way(retry=AT_ONCE))
    assert len(caught.value.attempts) == 3
    assert len(way.route.requests) == 6


def test_plain__interrupted_in_the_middle_sends_nothing_again(way: Way) -> None:
    way.route.answer(text="one two three", finish_reason=None)
    with pytest.raises(StreamInterrupted) as caught:
        list(way())
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one two three"
    assert "".join(way(require_finish=False)) == "one two three"
    assert len(way.route.requests) == 2


def test_plain__surfaces_a_401(way: Way, emulator: Emulator) -> None:
    with pytest.raises(AuthError):
        list(way(secret="another-secret"))
    assert len(emulator.requests) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"secret": ""},
        {"secret": None},
        {"secret": "two words"},
        {"prompt": ""},
        {"prompt": None},
        {"model": "models/../x"},
        {"endpoints": "https://example.com"},
        {"timeouts": 30},
        {"retry": 3},
        {"max_event_bytes": "1"},
        {"max_event_bytes": 0},
        {"max_event_bytes": True},
        {"require_finish": "no"},
        {"system_instruction": 5},
    ],
)
def test_plain__refuses_at_the_call_what_cannot_be_used(way: Way, emulator: Emulator, bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        way(**bad)
    assert emulator.requests == []


def test_plain__takes_the_same_types_as_the_adapter(way: Way) -> None:
    class Patient(Timeouts):
        """Of a caller's own."""

    assert "".join(way(timeouts=Patient())) == default_text("Hi")
    for function in (way, lambda **bad: GeminiDualAdapter("a-key", **bad)):
        with pytest.raises(ConfigError, match="retry must be Retry, not int"):
            function(retry=3)


@pytest.mark.parametrize("project", ["", " ", None, 5])
def test_plain_oauth__needs_a_project(project: Any) -> None:
    with pytest.raises(ConfigError, match="load_code_assist"):
        stream_gemini_oauth("Hi", "a-token", project)


def test_plain_oauth__sends_the_project_as_it_is_meant(emulator: Emulator) -> None:
    way = Way("oauth", emulator)
    assert list(way(project=" my-project\n"))
    assert emulator.oauth.requests[0].json["project"] == "my-project"


@pytest.mark.parametrize("function", [stream_gemini_api_key, stream_gemini_oauth])
def test_plain__knows_no_other_option(function: Callable[..., Reply]) -> None:
    with pytest.raises(TypeError):
        function("Hi", "secret", "x", temperature=1)


def test_plain__has_deadlines(way: Way) -> None:
    way.route.fail("stall")
    with pytest.raises(Exception, match="first_token deadline") as caught:
        list(way(timeouts=Timeouts(first_token=0.05)))
    assert [attempt.route for attempt in caught.value.attempts] == [way.route.name]  # type: ignore[attr-defined]


def test_max_event_bytes__is_64_mebibytes_by_default() -> None:
    of_the_adapter = inspect.signature(GeminiDualAdapter).parameters["max_event_bytes"].default
    assert of_the_adapter == functions._DEFAULTS["max_event_bytes"] == 64 * 2**20


def test_plain__unknown_option(way: Way) -> None:
    with pytest.raises(TypeError, match=r"no option 'systemInstruction'.*system_instruction"):
        way(systemInstruction="Be brief.")
