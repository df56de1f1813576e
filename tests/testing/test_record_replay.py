"""What a recording replays: everything that the code saw while it was recorded."""

from __future__ import annotations

import re
import threading

import hypothesis
import pytest
import requests
from hypothesis import strategies as st

from gemini_sync import Endpoints, GeminiDualAdapter, OAuthClient, Retry, Timeouts
from gemini_sync.testing import Emulator, record, replay
from gemini_sync.testing.cassette.storing import load
from tests.support import CORPUS_MISSING
from tests.testing.cassette_kit import ask, both, outcome
from tests.wire.support import FRAMINGS, recordings

RECORDINGS = recordings()
CALLS = [{"name": "add", "args": {"a": 1.5, "b": ["x", None]}}, {"name": "now", "args": {}}]
ANSWERS = {
    "text": {"text": "Schöne Grüße 😀 \u2028 <b> \\ \" ' \n\n end"},
    "thoughts": {"text": "Yes.", "thoughts": "Let me think about this for a while."},
    "calls": {"text": "I call.", "function_calls": CALLS},
    "data": {"text": "A picture.", "inline_data": ("image/png", bytes(range(256)) * 20)},
    "blocked prompt": {"chunks": [{"promptFeedback": {"blockReason": "SAFETY"}}]},
    "blocked answer": {"text": "Half of", "finish_reason": "RECITATION"},
    "cut off by its limit": {"text": "Half of", "finish_reason": "MAX_TOKENS"},
    "to be continued": {"text": "Half of", "finish_reason": "CONTINUATION"},
    "no finish": {"text": "Half of", "finish_reason": None},
    "no answer": {"chunks": []},
    "array": {"json": [{"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]}]},
    "lines of LF": {
        "body": b'data: {"candidates": [{"content": {"parts": [{"text": "x"}]}}]}\n\n: ping\n\ndata: [1\n\n'
    },
    "invalid UTF-8": {"body": b'data: {"candidates": [{"content": {"parts": [{"text": "\xff\xc3"}]}}]}\r\n\r\n'},
    "in small pieces": {"text": "one two three four five six", "pieces": 7},
    "with headers": {"text": "x", "headers": {"X-Goog-Request-Id": "abc", "Set-Cookie": "a=b"}},
}
FAULTS = {
    "400": (400, {}),
    "429": (429, {"retry_after": "0.01"}),
    "503 in an array": (503, {"as_array": True}),
    "404 in HTML": (404, {"body": b"<html>no</html>", "content_type": "text/html"}),
    "redirect": (302, {"headers": {"Location": "https://elsewhere.example/"}}),
    **{kind: (kind, {}) for kind in ("truncate", "half_headers", "pings", "empty", "error_json", "html", "gzip")},
    **{kind: (kind, {}) for kind in ("cut", "garbage_event", "error_event", "endless_error")},
    "cut in an event": ("cut", {"at": 300}),
    "reset": ("reset", {}),
    "reset after an event": ("reset", {"after": 1}),
    "error_event after text": ("error_event", {"after": 2}),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cassette.yaml"


@pytest.mark.parametrize("route", ["api_key", "oauth"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_answer__replays_equal(emulator, path, route, answer):
    getattr(emulator, route).answer(**answer)
    live, again = both(path, emulator, route)
    assert live == again


@pytest.mark.parametrize("framing", FRAMINGS)
def test_framing__is_no_part_of_the_recording(emulator, path, framing):
    emulator.api_key.answer(text="one two three", framing=framing)
    live, again = both(path, emulator)
    assert live == again
    assert "ransfer-" not in path.read_text()
    assert "ontent-Length" not in path.read_text()
    assert "url: http://127.0.0.1/v1beta/" in path.read_text()  # the port would differ each time


def fault_arguments(fault):
    kind, arguments = fault
    arguments = dict(arguments)
    if arguments.pop("retry_after", None):
        arguments["headers"] = {"Retry-After": "1"}
    return kind, arguments


@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_fault__replays_equal_with_its_retries(emulator, path, fault, times):
    kind, arguments = fault_arguments(fault)
    emulator.oauth.fail(kind, times=times, **arguments)
    settings = {"retry": Retry(max_attempts=2, backoff_base=0, wait_limit=0 if kind == 429 else 10)}
    live, again = both(path, emulator, "oauth", **settings)
    assert live == again


@pytest.mark.parametrize("after", [None, 1])
def test_stall__replays_as_the_same_deadline(emulator, path, after):
    emulator.api_key.fail("stall", after=after, times=None)
    settings = {"timeouts": Timeouts(first_token=0.2, idle=0.2), "retry": Retry(max_attempts=1)}
    live, again = both(path, emulator, **settings)
    assert live == again
    assert "deadline passed" in str(live["error"])


def test_no_connection__replays_equal(emulator, path):
    emulator.stop()
    live, again = both(path, emulator, retry=Retry(max_attempts=2, backoff_base=0))
    assert live == again
    assert "ConnectionRefusedError" in str(live["error"])


@pytest.mark.skipif(not RECORDINGS, reason=CORPUS_MISSING)
@pytest.mark.parametrize("route", ["api_key", "oauth"])
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording["file"])
def test_recordings_of_the_services__replay_equal(emulator, path, route, recording):
    script = getattr(emulator, route)
    if recording["error_body"] is None:
        script.answer(body=recording["body"], wrap=route == "oauth")
    else:
        script.fail(recording["error_body"]["code"], body=recording["body"])
    live, again = both(path, emulator, route)
    assert repr(live) == re.sub(r"API-KEY-\d", "[redacted]", repr(again))  # one of the errors quotes a key
    if route == "api_key" and b"AIz" not in recording["body"]:
        (exchange,) = load(path).exchanges
        assert exchange.response.body.data == recording["body"]


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from([b"\r\n\r\n", b"data: {"]))))
def test_any_body__replays_byte_for_byte_with_its_borders(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("any") / "cassette.yaml"
    with Emulator() as emulator:
        emulator.api_key.answer(body=b"".join(pieces), pieces=pieces)
        with record(path):
            live = plain_stream(emulator)
    with replay(path):
        again = plain_stream(emulator)
    assert live == again == pieces


def test_pace__is_that_of_the_server_if_it_is_asked_for(emulator, path):
    """The server sends each piece once the piece before has been read, at a time of its own."""
    times, now, read = [1, 3.5, 6.25], [0.0], threading.Semaphore(1)

    def pace(position):
        assert read.acquire(timeout=20)
        now[0] = times[position]

    emulator.api_key.answer(body=b"abc", pieces=[b"a", b"b", b"c"], pace=pace)
    with record(path, clock=lambda: now[0]):
        assert plain_stream(emulator, read.release) == [b"a", b"b", b"c"]
    for speed, waited in ((1, [1, 2.5, 2.75]), (0.5, [0.5, 1.25, 1.375]), (0, [])):
        slept = []
        with replay(path, pace=speed, sleep=slept.append):
            assert plain_stream(emulator) == [b"a", b"b", b"c"]
        assert slept == waited


def plain_stream(emulator, after_each=lambda: None):
    """The pieces that requests gives a user of its own."""
    url, pieces = emulator.url + "/v1beta/models/m:streamGenerateContent?alt=sse", []
    body = b'{"contents": [{"parts": [{"text": "Hi"}]}]}'
    with requests.post(url, body, headers={"x-goog-api-key": emulator.key}, stream=True) as response:
        for piece in response.iter_content(None):
            pieces.append(piece)
            after_each()
    return pieces


# -- whole adapters


def test_everything__is_in_one_file(emulator, path, tmp_path):
    """The token endpoint, project discovery with onboarding, retries with pauses, a fallback, and counting."""
    credentials = emulator.write_credentials(tmp_path / "creds.json", expires_in=-60)
    emulator.tier, emulator.onboarding_polls = None, 1
    emulator.oauth.fail(503, times=1)
    emulator.oauth.answer(text="By OAuth.", times=1)
    emulator.oauth.fail(403, times=None)

    def work(key, pause):
        with GeminiDualAdapter(
            key,
            credentials,
            oauth_client=OAuthClient(emulator.client_id, emulator.client_secret),
            endpoints=Endpoints(**emulator.urls),
            on_fallback=lambda event: None,
            sleep=pause,
        ) as both_routes:
            outcomes = [outcome(both_routes.stream(prompt)) for prompt in ("one", "two", "three")]
            return [*outcomes, both_routes.count_tokens("four"), both_routes.fallback_active]

    kept = credentials.read_bytes()
    with record(path):
        live = work(emulator.key, lambda seconds: None)
    emulator.stop()
    credentials.write_bytes(kept)
    with replay(path) as tape:
        again = work("a-fake-key", None)  # its pauses, of 5 s for onboarding alone, end at once
    assert live == again
    assert live[-1] is True
    assert tape.unused == []
    said = path.read_text()
    parts = ("/token", ":loadCodeAssist", ":onboardUser", "status: 503", "status: 403", ":countTokens")
    assert [part for part in parts if part not in said] == []


def test_sessions_of_the_caller__are_recorded_as_well(emulator, path):
    settings = {"session_factory": requests.Session, "endpoints": Endpoints(**emulator.urls)}
    with record(path), GeminiDualAdapter(emulator.key, **settings) as live:
        text = live.generate("Why?").text
    with replay(path), GeminiDualAdapter("a-fake-key", **settings) as again:
        assert again.generate("Why?").text == text


def test_existing_connections__are_recorded_as_well(emulator, path):
    with GeminiDualAdapter(emulator.key, endpoints=Endpoints(**emulator.urls)) as before:
        before.generate("Why?")
        with record(path):
            before.generate("How?")
        before.generate("Who?")
        with replay(path):
            assert before.generate("How?").text.startswith("You asked: How?")
    assert len(load(path).exchanges) == 1
    assert len(emulator.api_key.requests) == 3


def test_threads__are_all_in_the_file(emulator, path):
    prompts = [f"prompt {number}" for number in range(12)]

    def work(key):
        barrier, texts = threading.Barrier(len(prompts)), {}

        def one(prompt):
            barrier.wait(20)
            texts[prompt] = "".join(ask(emulator.urls, "api_key", key, prompt))

        threads = [threading.Thread(target=one, args=(prompt,)) for prompt in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return texts

    with record(path):
        live = work(emulator.key)
    emulator.stop()
    with replay(path) as tape:
        again = work("a-fake-key")
    assert live == again
    assert len(live) == len(prompts)
    assert tape.unused == []
