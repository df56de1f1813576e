"""Tests of histories that cross from one route to the other: thought signatures, files and cached contents."""

from __future__ import annotations

import logging
import threading
from typing import Any, Optional

import pytest

from gemini_sync import (
    ConfigError,
    Endpoints,
    GeminiDualAdapter,
    InvalidRequestError,
    Reply,
    stream_gemini_api_key,
    stream_gemini_oauth,
)
from gemini_sync.messages.signatures import PLACEHOLDER
from gemini_sync.testing.emulator.answers import SIGNATURES
from tests.adapter_kit import Rig, in_thread

BY_OAUTH, BY_KEY = SIGNATURES["oauth"], SIGNATURES["api_key"]
RESULT = {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"sky": "blue"}}}]}
UPLOADED = {
    "fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x", "mimeType": "image/png"}
}


@pytest.fixture(autouse=True)
def calls(rig: Rig) -> None:
    """Both routes answer with a signed function call."""
    for route in (rig.emulator.oauth, rig.emulator.api_key):
        route.answer(function_calls=[{"name": "look", "args": {}}])


class Conversation:
    """A history that grows by each answer of one adapter."""

    def __init__(self, adapter: GeminiDualAdapter, *signatures: str) -> None:
        self.adapter = adapter
        self.history: list[Any] = ["Why is the sky blue?"]
        for signature in signatures:
            call = {"functionCall": {"name": "look", "args": {}}, "thoughtSignature": signature}
            self.history += [{"role": "model", "parts": [call]}, RESULT]

    def ask(self, **options: Any) -> Optional[str]:
        """Take one turn, and return the route that answered."""
        reply = self.adapter.generate(self.history, **options)
        self.history += [reply.content, RESULT]
        return reply.route

    @property
    def signatures(self) -> list[str]:
        """Those of the history, as the caller has them."""
        return [turn["parts"][0]["thoughtSignature"] for turn in self.history if turn_of_model(turn)]


def turn_of_model(turn: Any) -> bool:
    return isinstance(turn, dict) and turn["role"] == "model"


def sent(request: Any) -> list[str]:
    """The signatures in one request."""
    body = request.json.get("request") or request.json.get("generateContentRequest") or request.json
    parts = [part for turn in body["contents"] for part in turn["parts"]]
    return [part["thoughtSignature"] for part in parts if "thoughtSignature" in part]


# -- signatures of known origin


def test_flip__with_signed_calls(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The turns after the flip work, and so do those after reset() with signatures that the API key made."""
    talk = Conversation(rig.adapter())
    assert [talk.ask(), talk.ask()] == ["oauth", "oauth"]
    rig.emulator.oauth.fail(403)
    assert [talk.ask(), talk.ask()] == ["api_key", "api_key"]
    talk.adapter.reset()
    assert [talk.ask(), talk.ask()] == ["oauth", "oauth"]
    assert talk.signatures == [BY_OAUTH, BY_OAUTH, BY_KEY, BY_KEY, BY_OAUTH, BY_OAUTH]
    by_oauth, by_key = rig.emulator.oauth.requests, rig.emulator.api_key.requests
    assert list(map(sent, by_key)) == [[PLACEHOLDER] * 2, [PLACEHOLDER, PLACEHOLDER, BY_KEY]]
    assert list(map(sent, by_oauth)) == [
        [],
        [BY_OAUTH],
        [BY_OAUTH, BY_OAUTH],
        [BY_OAUTH, BY_OAUTH, PLACEHOLDER, PLACEHOLDER],
        [BY_OAUTH, BY_OAUTH, PLACEHOLDER, PLACEHOLDER, BY_OAUTH],
    ]
    assert len(rig.flips) == 1
    assert [record for record in caplog.records if "signature" in record.getMessage()] == []


def test_flip__in_the_middle_of_a_signed_answer(rig: Rig) -> None:
    """The signature in the partial answer is known as well."""
    rig.emulator.oauth.fail("cut", after=1)
    talk = Conversation(rig.adapter())
    with pytest.raises(Exception, match="interrupted") as caught:
        talk.ask()
    talk.history += [caught.value.partial.content, RESULT]
    rig.emulator.oauth.fail(403)
    assert talk.ask() == "api_key"
    assert sent(rig.emulator.api_key.requests[0]) == [PLACEHOLDER]


def test_flip__with_chunks_read_one_by_one(rig: Rig) -> None:
    talk = Conversation(rig.adapter())
    reply = talk.adapter.stream(talk.history)
    parts = [part for chunk in reply.chunks() for part in chunk.parts]
    talk.history += [{"role": "model", "parts": parts}, RESULT]
    rig.emulator.oauth.fail(403)
    assert talk.ask() == "api_key"
    assert sent(rig.emulator.api_key.requests[0]) == [PLACEHOLDER]


def test_flip__with_a_signature_in_a_later_chunk(rig: Rig) -> None:
    rig.emulator.oauth.answer(thoughts="Let me see.", text="I look.", function_calls=[{"name": "look", "args": {}}])
    talk = Conversation(rig.adapter())
    talk.ask()
    assert [list(part) for part in talk.history[1]["parts"]][-1] == ["functionCall", "thoughtSignature"]
    rig.emulator.oauth.fail(403)
    assert talk.ask() == "api_key"
    assert sent(rig.emulator.api_key.requests[0]) == [PLACEHOLDER]


def test_count_tokens__of_a_signed_history_on_the_other_route(rig: Rig) -> None:
    talk = Conversation(rig.adapter())
    talk.ask()
    rig.emulator.oauth.fail(403)
    assert talk.adapter.count_tokens(talk.history) > 0
    assert sent(rig.emulator.api_key.requests[0]) == [PLACEHOLDER]


def test_signatures__learned_by_one_thread_are_known_to_another(rig: Rig) -> None:
    """Two conversations on one adapter: one flips while the other waits for its answer."""
    adapter, asked = rig.adapter(), threading.Event()
    first, second = Conversation(adapter), Conversation(adapter)
    assert [first.ask(), second.ask()] == ["oauth", "oauth"]
    flipped = threading.Event()
    rig.emulator.oauth.answer(
        times=1,
        before=lambda: (asked.set(), flipped.wait(20)),
        function_calls=[{"name": "look", "args": {}}],
    )
    slow = in_thread(second.ask)
    assert asked.wait(20)
    rig.emulator.oauth.fail(403)
    assert first.ask() == "api_key"
    flipped.set()
    assert slow() == "oauth"
    assert in_thread(second.ask)() == "api_key"
    assert sent(rig.emulator.api_key.requests[-1]) == [PLACEHOLDER, PLACEHOLDER]


# -- signatures of unknown origin


@pytest.mark.parametrize("route", ["oauth", "api_key"])
def test_history__of_a_former_process(rig: Rig, caplog: pytest.LogCaptureFixture, route: str) -> None:
    """The service refuses it once, and not in the next turns. A signature that it makes itself is sent again."""
    adapter = rig.adapter(**{"api_key" if route == "oauth" else "oauth_creds_path": None})
    talk = Conversation(adapter, BY_OAUTH, BY_KEY)
    assert [talk.ask(), talk.ask()] == [route, route]
    requests = rig.emulator.oauth.requests if route == "oauth" else rig.emulator.api_key.requests
    own = [made if made == SIGNATURES[route] else PLACEHOLDER for made in (BY_OAUTH, BY_KEY, SIGNATURES[route])]
    assert list(map(sent, requests)) == [[BY_OAUTH, BY_KEY], [PLACEHOLDER] * 2, own]
    (line,) = [record for record in caplog.records if "signature" in record.getMessage()]
    assert line.levelno == logging.WARNING
    assert rig.flips == []


def test_history__of_a_former_process__that_the_service_made(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    talk = Conversation(rig.adapter(), BY_OAUTH)
    assert talk.ask() == "oauth"
    assert list(map(sent, rig.emulator.oauth.requests)) == [[BY_OAUTH]]
    assert [record for record in caplog.records if "signature" in record.getMessage()] == []


def test_history__of_a_former_process__is_counted(rig: Rig) -> None:
    adapter = rig.adapter()
    assert adapter.count_tokens(Conversation(adapter, BY_KEY).history) > 0
    assert list(map(sent, rig.emulator.oauth.requests)) == [[BY_KEY], [PLACEHOLDER]]
    by_key = rig.adapter(oauth_creds_path=None)
    assert by_key.count_tokens(Conversation(by_key, BY_OAUTH).history) > 0
    assert list(map(sent, rig.emulator.api_key.requests)) == [[BY_OAUTH], [PLACEHOLDER]]


def test_history__of_a_former_process__in_two_threads(rig: Rig) -> None:
    """Both requests are on their way before one is refused. Both are mended."""
    adapter, barrier = rig.adapter(), threading.Barrier(2)
    rig.emulator.oauth.fail(400, times=2, message="Corrupted thought signature.", before=lambda: barrier.wait(20))
    asked = [in_thread(Conversation(adapter, "b2xk").ask) for _ in range(2)]
    assert [result() for result in asked] == ["oauth", "oauth"]
    assert sorted(map(sent, rig.emulator.oauth.requests)) == [["b2xk"], ["b2xk"], [PLACEHOLDER], [PLACEHOLDER]]


@pytest.mark.parametrize(
    "message", ["Corrupted thought signature.", "Invalid thought signature", "Thought signature is not valid"]
)
@pytest.mark.parametrize("route", ["oauth", "api_key"])
def test_refusal__is_mended_once(rig: Rig, route: str, message: str) -> None:
    """If the placeholder is refused as well, the error surfaces. No route flips and nothing is sent again."""
    script = rig.emulator.oauth if route == "oauth" else rig.emulator.api_key
    script.fail(400, times=None, message=message)
    adapter = rig.adapter(**{} if route == "oauth" else {"oauth_creds_path": None})
    with pytest.raises(InvalidRequestError, match=message):
        Conversation(adapter, "b2xk").ask()
    assert list(map(sent, script.requests)) == [["b2xk"], [PLACEHOLDER]]
    assert rig.flips == []
    assert rig.slept == []


def test_refusal__inside_the_stream_is_mended(rig: Rig) -> None:
    body = (
        b'data: {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "Corrupted thought signature."}}\n\n'
    )
    rig.emulator.oauth.answer(times=1, body=body)
    assert Conversation(rig.adapter(), "b2xk").ask() == "oauth"
    assert list(map(sent, rig.emulator.oauth.requests)) == [["b2xk"], [PLACEHOLDER]]


def test_refusal__of_something_else_surfaces(rig: Rig) -> None:
    rig.emulator.oauth.fail(400, message="Function call `look` is missing a `thought_signature`.")
    with pytest.raises(InvalidRequestError):
        Conversation(rig.adapter(), "b2xk").ask()
    assert rig.counts == (1, 0)


@pytest.mark.parametrize("route", ["oauth", "api_key"])
def test_plain_function__mends_a_history_of_unknown_origin(rig: Rig, route: str) -> None:
    def ask(history: list[Any]) -> Reply:
        if route == "api_key":
            return stream_gemini_api_key(history, rig.emulator.key, endpoints=Endpoints(**rig.emulator.urls))
        token = rig.emulator.issue_token()
        return stream_gemini_oauth(history, token, "a-project", endpoints=Endpoints(**rig.emulator.urls))

    reply = ask(Conversation(rig.adapter(), BY_OAUTH, BY_KEY).history)
    assert list(reply.chunks())
    assert reply.route == route
    requests = rig.emulator.oauth.requests if route == "oauth" else rig.emulator.api_key.requests
    assert list(map(sent, requests)) == [[BY_OAUTH, BY_KEY], [PLACEHOLDER] * 2]


# -- files and cached contents


@pytest.mark.parametrize(
    ("contents", "options", "path"),
    [
        (["What is it?", UPLOADED], {}, "contents[0].parts[1].fileData.fileUri"),
        ("Hi", {"cached_content": "cachedContents/x"}, "cachedContent"),
    ],
)
def test_bound__to_the_gemini_api(rig: Rig, contents: Any, options: Any, path: str) -> None:
    """OAuth refuses it by name and does not flip. The way out in the message works, and so does a call after a flip."""
    adapter = rig.adapter()
    with pytest.raises(ConfigError) as caught:
        adapter.generate(contents, **options)
    assert str(caught.value).startswith(path)
    assert caught.value.route == "oauth"
    assert rig.counts == (0, 0)
    assert (rig.flips, adapter.fallback_active) == ([], False)
    assert adapter.generate("Hi").route == "oauth"
    assert rig.adapter(oauth_creds_path=None).generate(contents, **options).route == "api_key"
    rig.emulator.oauth.fail(403)
    adapter.generate("Hi")
    assert adapter.generate(contents, **options).route == "api_key"
