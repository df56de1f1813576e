"""The two plain functions, which use one route each and never fall back."""

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


class OneFunction:
    """One of the two functions, on an emulator."""

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
def ask(request: pytest.FixtureRequest, emulator: Emulator) -> OneFunction:
    return OneFunction(request.param, emulator)


def test_plain__streams(ask: OneFunction, emulator: Emulator) -> None:
    reply = ask(model="some-model", system_instruction="Be brief.", generation_config={"temperature": 0})
    assert emulator.requests == []
    pieces = list(reply)
    assert "".join(pieces) == default_text("Hi")
    assert len(pieces) > 2
    assert reply.route == ask.route.name
    (request,) = emulator.requests
    assert request.model == "some-model"
    body = request.json if ask.by_key else request.json["request"]
    assert body["generationConfig"] == {"temperature": 0}


def test_plain__shares_connections_between_calls(ask: OneFunction, emulator: Emulator) -> None:
    for _ in range(5):
        assert list(ask())
    assert emulator.connections_total == 1


def test_plain__retries(ask: OneFunction) -> None:
    ask.route.fail(503, times=2)
    assert "".join(ask(retry=AT_ONCE)) == default_text("Hi")
    ask.route.fail(503, times=None)
    with pytest.raises(ServerError) as caught:
        list(ask(retry=AT_ONCE))
    assert len(caught.value.attempts) == 3
    assert len(ask.route.requests) == 6


def test_plain__interrupted_stream_is_not_sent_again(ask: OneFunction) -> None:
    ask.route.answer(text="one two three", finish_reason=None)
    with pytest.raises(StreamInterrupted) as caught:
        list(ask())
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one two three"
    assert "".join(ask(require_finish=False)) == "one two three"
    assert len(ask.route.requests) == 2


def test_plain__401_reaches_the_caller(ask: OneFunction, emulator: Emulator) -> None:
    with pytest.raises(AuthError):
        list(ask(secret="another-secret"))
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
def test_plain__argument_that_cannot_be_used(ask: OneFunction, emulator: Emulator, bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ask(**bad)
    assert emulator.requests == []


def test_plain__accepts_the_same_types_as_the_adapter(ask: OneFunction) -> None:
    class Patient(Timeouts):
        """A subclass of a caller."""

    assert "".join(ask(timeouts=Patient())) == default_text("Hi")
    for function in (ask, lambda **bad: GeminiDualAdapter("a-key", **bad)):
        with pytest.raises(ConfigError, match="retry must be Retry, not int"):
            function(retry=3)


@pytest.mark.parametrize("project", ["", " ", None, 5])
def test_plain_oauth__needs_a_project(project: Any) -> None:
    with pytest.raises(ConfigError, match="load_code_assist"):
        stream_gemini_oauth("Hi", "a-token", project)


def test_plain_oauth__access_token_that_cannot_be_one() -> None:
    with pytest.raises(ConfigError, match="access_token holds white space"):
        stream_gemini_oauth("Hi", "kit given", "a-project")


def test_plain_oauth__white_space_around_the_project_is_removed(emulator: Emulator) -> None:
    ask = OneFunction("oauth", emulator)
    assert list(ask(project=" my-project\n"))
    assert emulator.oauth.requests[0].json["project"] == "my-project"


@pytest.mark.parametrize("function", [stream_gemini_api_key, stream_gemini_oauth])
def test_plain__unknown_argument(function: Callable[..., Reply]) -> None:
    with pytest.raises(TypeError):
        function("Hi", "secret", "x", temperature=1)


def test_plain__has_deadlines(ask: OneFunction) -> None:
    ask.route.fail("stall")
    with pytest.raises(Exception, match="first_token deadline") as caught:
        list(ask(timeouts=Timeouts(first_token=0.05)))
    assert [attempt.route for attempt in caught.value.attempts] == [ask.route.name]  # type: ignore[attr-defined]


def test_max_event_bytes__is_64_mebibytes_by_default() -> None:
    of_the_adapter = inspect.signature(GeminiDualAdapter).parameters["max_event_bytes"].default
    assert of_the_adapter == functions._DEFAULTS["max_event_bytes"] == 64 * 2**20


def test_plain__unknown_option(ask: OneFunction) -> None:
    with pytest.raises(TypeError, match=r"no option 'systemInstruction'.*system_instruction"):
        ask(systemInstruction="Be brief.")
