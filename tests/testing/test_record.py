"""When a recording is written, and what becomes of the file that was there."""

from __future__ import annotations

import threading

import pytest
import requests
from requests.adapters import HTTPAdapter

from gemini_sync import GeminiDualAdapter, OAuthClient
from gemini_sync.testing import record, replay
from gemini_sync.testing.cassette.storing import load
from gemini_sync.testing.cassette.values import Body
from tests.testing.cassette_kit import ANSWER, ask, exchange, tape_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cassette.yaml"


@pytest.fixture
def once(emulator):
    """Ask the emulator."""
    return lambda prompt="Why?": "".join(ask(emulator.urls, "api_key", emulator.key, prompt))


def prompts_in(path):
    return [exchange.request.body.decode().split('"text":"')[1].split('"')[0] for exchange in load(path).exchanges]


def test_new_recording__replaces_the_old_one(once, path):
    for prompt in ("first", "second"):
        with record(path):
            once(prompt)
    assert prompts_in(path) == ["second"]


def test_keep__adds_to_the_old_one(once, path):
    for prompt in ("first", "second"):
        with record(path, keep=True):
            once(prompt)
    assert prompts_in(path) == ["first", "second"]


def test_file_written_in_the_meantime__is_kept_as_well(once, path):
    with record(path):
        once("outer")
        with record(path):
            once("inner")
    assert prompts_in(path) == ["inner", "outer", "inner"]  # both have heard of the inner request


def test_error_that_leaves_the_block__leaves_the_file(once, path, caplog):
    with record(path):
        once("first")
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), record(path):
        once(1 / 0 if once("second") else "third")
    assert path.read_bytes() == before
    assert f"{path} was not recorded, because ZeroDivisionError left the block" in caplog.text


def test_nothing_sent__writes_no_new_file(path, once):
    with record(path):
        pass
    assert not path.exists()
    with record(path):
        once()
    with record(path):
        pass
    assert load(path).exchanges == ()


def test_decorator__records_each_call(once, path):
    @record(path)
    def work(prompt):
        return once(prompt)

    assert "first" in work("first")
    work("second")
    assert prompts_in(path) == ["second"]


def test_same_recorder_twice__begins_with_nothing(once, path):
    recorder = record(path)
    for prompt in ("first", "second"):
        with recorder:
            once(prompt)
    assert prompts_in(path) == ["second"]


def test_after_the_block__nothing_is_recorded(once, path):
    before = HTTPAdapter.send
    with record(path):
        once("inside")
    once("outside")
    assert prompts_in(path) == ["inside"]
    assert HTTPAdapter.send is before


def test_answer_that_is_still_coming__is_recorded_so_far(emulator, path):
    go_on = threading.Semaphore(1)
    emulator.api_key.answer(text="one two three four five", pace=lambda position: go_on.acquire(timeout=20))
    with ask(emulator.urls, "api_key", emulator.key) as reply:
        with record(path):
            first = next(reply)
        for _ in range(9):
            go_on.release()
        assert first + "".join(reply) == "one two three four five"
    (recorded,) = load(path).exchanges
    assert recorded.response.body.end == "unread"
    assert first in recorded.response.body.data.decode()
    assert "five" not in recorded.response.body.data.decode()


def test_request_that_is_still_waiting__is_left_out(emulator, path):
    arrived, answer = threading.Event(), threading.Event()
    emulator.api_key.before = lambda: (arrived.set(), answer.wait(20))
    thread = threading.Thread(target=lambda: "".join(ask(emulator.urls, "api_key", emulator.key)))
    with record(path):
        thread.start()
        assert arrived.wait(20)
    answer.set()
    thread.join(20)
    assert not path.exists()


def test_kept_headers__are_in_the_file(emulator, path):
    emulator.api_key.answer(text="Hi", headers={"X-Mine": "1", "X-Other": "2"})
    with record(path, keep_headers=["x-mine"]):
        "".join(ask(emulator.urls, "api_key", emulator.key))
    (recorded,) = load(path).exchanges
    assert recorded.response.headers == {"Content-Type": "text/event-stream", "X-Mine": "1"}
    assert recorded.request.headers == {"x-goog-api-key": "API-KEY-1", "Content-Type": "application/json"}


def test_body_of_a_request__that_can_be_read_only_once(emulator, path):
    with record(path):
        requests.post(emulator.url + "/x", iter([b"a", b"b"]), timeout=5)
        requests.post(emulator.url + "/x", "ü".encode(), timeout=5)
        requests.post(emulator.url + "/x", {"a": "b"}, timeout=5)
    assert [recorded.request.body for recorded in load(path).exchanges] == [None, "ü".encode(), b"a=b"]


def test_adapter_of_the_caller__that_makes_its_answers_up(path):
    """It calls no send of requests, so it is not recorded; one that does is recorded whatever the body is."""
    with record(path), requests.Session() as session:
        session.mount("https://", MadeUp())
        assert session.get("https://host/", timeout=5).content == b"made up"
    assert not path.exists()


class MadeUp(HTTPAdapter):
    def send(self, request, *_, **__):
        made = requests.Response()
        made.status_code, made._content = 200, b"made up"
        return made


@pytest.mark.parametrize("manager", [record, replay])
def test_decorator__refuses_what_runs_later(manager, tmp_path):
    async def later():
        pass

    def generate():
        yield 1

    for function in (later, generate):
        with pytest.raises(TypeError, match="use a with block inside it"):
            manager(tmp_path / "a.yaml")(function)


# -- what a replay needs


def test_expired_credentials__are_refreshed_though_no_refresh_was_recorded(emulator, tmp_path):
    """The token was valid when this was recorded."""
    credentials = emulator.write_credentials(tmp_path / "creds.json", expires_in=-60)
    wrapped = [b'data: {"response": %s}\r\n\r\n' % piece[6:-4] for piece in ANSWER]
    url = "https://cloudcode-pa.googleapis.com/v1internal:streamGenerateContent?alt=sse"
    asked = b'{"model":"m","project":"PROJECT-1","request":{"contents":[{"role":"user","parts":[{"text":"Why?"}]}]}}'
    adapter = GeminiDualAdapter(
        None, credentials, project="a-project", model="m", oauth_client=OAuthClient("a", "b"), persist_credentials=False
    )
    with adapter, replay(tape_of(exchange(wrapped, url=url, body=asked))) as player:
        assert adapter.generate("Why?").text == "one two three"
        assert player.unused == []


def test_expired_credentials__with_a_recorded_refresh_that_fails(emulator, tmp_path):
    credentials = emulator.write_credentials(tmp_path / "creds.json", expires_in=-60)
    refused = exchange(
        [b'{"error": "invalid_grant"}'],
        url="https://oauth2.googleapis.com/token",
        status=400,
        body=b"grant_type=refresh_token&refresh_token=REFRESH-TOKEN-1",
    )
    adapter = GeminiDualAdapter(None, credentials, project="a-project", oauth_client=OAuthClient("a", "b"))
    with adapter, replay(tape_of(refused)), pytest.raises(Exception, match="invalid_grant"):
        adapter.generate("Why?")


def test_body__checks_itself():
    for arguments in (((b"a", b""),), ((b"a",), (1.0, 2.0)), ((b"a",), (), "over")):
        with pytest.raises(ValueError, match="body"):
            Body(*arguments)
