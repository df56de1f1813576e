"""What answers a request while a cassette is replayed: exchanges in order, the mocks of ``responses``, or nothing."""

from __future__ import annotations

import socket
import threading

import pytest
import requests
from requests.adapters import HTTPAdapter

from gemini_sync import GeminiDualAdapter, OAuthClient, QuotaError, Retry, stream_gemini_oauth
from gemini_sync.testing import CassetteError, UnmatchedRequest, record, replay
from gemini_sync.testing.cassette.storing import save
from gemini_sync.testing.cassette.values import Failure, Response
from gemini_sync.testing.matching import target_of
from tests.testing.cassette_kit import (
    ANSWER,
    STREAM_URL,
    ask,
    ask_plain,
    event,
    exchange,
    tape_of,
)

TEXT = "one two three"
OTHER = "https://api.example.com/v1/things"


def prompt_body(text):
    return b'{"contents":[{"role":"user","parts":[{"text":"%s"}]}]}' % text.encode()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Each connection is an error that no test expects."""

    def refuse(*_):
        raise AssertionError("the network was reached")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def text(*arguments, **named):
    return "".join(ask_plain(*arguments, **named))


# -- which exchange


def test_exchanges__are_found_by_what_was_asked():
    tape = tape_of(
        exchange([event("A", "STOP")], body=prompt_body("a")), exchange([event("B", "STOP")], body=prompt_body("b"))
    )
    with replay(tape) as player:
        assert (text("b"), text("a")) == ("B", "A")
        assert player.unused == []


def test_same_request_twice__is_answered_in_order():
    with replay(tape_of(exchange([event("first", "STOP")]), exchange([event("second", "STOP")]))) as player:
        assert text() == "first"
        assert player.unused == [player.cassette.exchanges[1]]
        assert text() == "second"
        with pytest.raises(UnmatchedRequest, match="exchange 1, 2 of it has been replayed already"):
            text()


def test_allow_repeats__answers_with_the_last_again():
    tape = tape_of(exchange([event("first", "STOP")]), exchange([event("second", "STOP")]))
    with replay(tape, allow_repeats=True):
        assert [text() for _ in range(4)] == ["first", "second", "second", "second"]


def test_credentials_hosts_and_ids__do_not_matter():
    inner = b'{"contents":[{"role":"user","parts":[{"text":"Why?"}]}],"session_id":"2"}'
    body = b'{"model":"m","project":"PROJECT-1","user_prompt_id":"1","request":%s}' % inner
    wrapped = b'data: {"response": %s}\r\n\r\n' % event("Hi", "STOP")[6:-4]
    url = "http://127.0.0.1/v1internal:streamGenerateContent?alt=sse"
    with replay(tape_of(exchange([wrapped], url=url, body=body))):
        assert "".join(stream_gemini_oauth("Why?", "any-token", "any-project", "m")) == "Hi"


VERTEX = "https://us-central1-aiplatform.googleapis.com/v1beta1/projects/{}/locations/{}/publishers/google/models/{}"


def test_target__is_told_by_the_path():
    method = ":streamGenerateContent?alt=sse"
    assert target_of(VERTEX.format("p-1", "global", "m") + method) == ("vertex_ai streamGenerateContent", "m")
    assert target_of(VERTEX.format("p-2", "europe", "m") + method) == ("vertex_ai streamGenerateContent", "m")
    assert target_of("http://127.0.0.1:9/v1/models/m:countTokens") == ("gemini_api countTokens", "m")
    assert target_of("https://host/v1beta/tunedModels/x:generateContent") == (
        "gemini_api generateContent",
        "tunedModels/x",
    )
    assert target_of("https://host/v1internal:loadCodeAssist") == ("code_assist loadCodeAssist", "")
    assert target_of("https://host/v1internal/operations/a-1") == ("code_assist operations/a-1", "")
    assert target_of("https://oauth2.googleapis.com/token") == ("token endpoint", "")
    assert target_of("https://host/things?a=b") == ("host/things", "")


@pytest.mark.parametrize(
    ("match", "found"),
    [
        (("method", "service"), True),
        (("method", "service", "body"), False),
        ((), True),
        (("path",), True),
        (("host",), True),
        (("url",), True),
        (("query",), True),
        (("raw_body",), False),
        (("headers",), False),
        ((lambda recorded, sent: b"Why" in recorded.body and b"How" in sent.body,), True),
        (("method", lambda recorded, sent: False), False),
    ],
)
def test_match__chooses_what_is_compared(match, found):
    with replay(tape_of(exchange()), match=match) as player:
        if found:
            assert text("How?") == TEXT
        else:
            with pytest.raises(UnmatchedRequest):
                text("How?")
        assert len(player.misses) == (0 if found else 1)


def test_match__knows_its_names():
    with pytest.raises(ValueError, match="came 'boddy'"):
        replay("a.yaml", match=("boddy",))


@pytest.mark.parametrize(
    ("recorded", "sent", "found"),
    [
        ("Mail EMAIL-1 now", "Mail someone now", True),
        ("Mail EMAIL-1 now", "Mail x@y.example.com now", True),
        ("PROJECT-1 and API-KEY-12.", "my-project and (key) *.", True),
        ("Mail EMAIL-1 now", "Mail someone later", False),
        ("Mail EMAIL-1 now", "Mail  now", False),
    ],
)
def test_placeholder__stands_for_any_text(recorded, sent, found):
    """What was a secret of the machine that recorded need not be one of the machine that replays."""
    with replay(tape_of(exchange(body=prompt_body(recorded)))):
        if found:
            assert text(sent) == TEXT
        else:
            with pytest.raises(UnmatchedRequest, match="differs in"):
                text(sent)


def test_body_of_a_file_that_tells_none__may_be_any():
    with replay(tape_of(exchange(body=None))):
        assert text("Whatever?") == TEXT


def test_threads__get_each_exchange_once():
    tape = tape_of(*(exchange([event(str(number), "STOP")]) for number in range(40)))
    barrier, texts = threading.Barrier(8), []

    def work():
        barrier.wait(20)
        for _ in range(5):
            texts.append(text())

    with replay(tape) as player:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(texts, key=int) == [str(number) for number in range(40)]
        assert player.unused == []


# -- nothing matches


def test_unmatched__names_the_nearest_and_each_difference():
    far = exchange(body=prompt_body("far"), url=STREAM_URL.replace("/m:", "/other:"))
    near = exchange(body=prompt_body("x" * 300 + "Why?"))
    with replay(tape_of(far, near)), pytest.raises(UnmatchedRequest) as caught:
        text("x" * 300 + "How?", generation_config={"temperature": 1})
    said = str(caught.value)
    assert "tape.yaml answers no request POST https://generativelanguage.googleapis.com/v1beta/models/m:" in said
    assert "The nearest is exchange 2, which differs in:" in said
    assert 'body.contents[0].parts[0].text: recorded …"' in said
    assert said.count("x") < 130  # the long part that is equal is left out
    assert 'xxWhy?", sent "' in said.replace("…", "")
    assert "body.generationConfig.temperature: recorded nothing, sent 1" in said
    assert "a-key-of-mine" not in said


def test_unmatched__is_not_retried_and_flips_nothing(emulator, tmp_path, monkeypatch):
    monkeypatch.undo()
    credentials = emulator.write_credentials(tmp_path / "creds.json")
    slept = []
    adapter = GeminiDualAdapter(
        "a-fake-key", credentials, project="a-project", oauth_client=OAuthClient("a", "b"), sleep=slept.append
    )
    with adapter, replay(tape_of(exchange(body=prompt_body("other")))) as player:
        with pytest.raises(UnmatchedRequest):
            adapter.generate("Why?")
        assert (len(player.misses), slept, adapter.fallback_active) == (1, [], False)


def test_unmatched__empty_cassette():
    with replay(tape_of()), pytest.raises(UnmatchedRequest, match="it is empty"):
        text()


def test_unmatched__of_a_user_is_refused_as_well():
    with replay(tape_of(exchange())), pytest.raises(UnmatchedRequest, match=OTHER):
        requests.get(OTHER, timeout=5)


def test_missing_file__is_told_at_the_start(tmp_path):
    with pytest.raises(CassetteError, match="there is no such file"), replay(tmp_path / "none.yaml"):
        pass
    assert HTTPAdapter.send.__module__ == "requests.adapters"


# -- errors, pauses, use


def test_pauses__end_at_once():
    """Without a clock of the test: a real pause of this length would never end."""
    busy = exchange([b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}'], status=429)
    told = Response(429, {"Retry-After": "9"}, busy.response.body)
    retry = Retry(max_attempts=3, backoff_base=10**6, backoff_cap=10**6)
    with replay(tape_of(type(busy)(busy.request, told), exchange())):
        assert text(retry=retry) == TEXT
    with replay(tape_of(*[busy] * 3)), pytest.raises(QuotaError) as caught:
        text(retry=retry)
    assert len(caught.value.attempts) == 3


@pytest.mark.parametrize(
    "failure",
    [
        Failure("ConnectionError", "Connection refused", ("ConnectionRefusedError", 111)),
        Failure("SSLError", "certificate has expired", ("SSLCertVerificationError", 1)),
        Failure("ReadTimeout", "timed out", ("TimeoutError", 0)),
        Failure("ConnectionError", "Name or service not known", ("gaierror", -2)),
        Failure("ConnectionError", "Remote end closed connection", ("RemoteDisconnected", 0)),
        Failure("ProxyError", "Tunnel connection failed: 407 Proxy Authentication Required", ("OSError", 0)),
    ],
    ids=lambda failure: failure.kind,
)
def test_failure__is_raised_again(failure):
    asked = exchange()
    with replay(tape_of(type(asked)(asked.request, failure))) as player:
        with pytest.raises(Exception, match=failure.message if failure.kind != "ReadTimeout" else "deadline") as caught:
            text(retry=Retry(max_attempts=1))
        assert type(caught.value).__module__ == "gemini_sync.errors"
        assert player.misses == []


def test_reading_on_where_the_recording_ends__is_an_error():
    with replay(tape_of(exchange(ANSWER[:1], end="unread"))), pytest.raises(AssertionError, match="reader went on"):
        text()


def test_leaving_early__needs_no_more_of_the_recording(emulator, tmp_path, monkeypatch):
    monkeypatch.undo()
    emulator.api_key.answer(text="one two three four", pace=0.01)

    def first(key):
        with ask(emulator.urls, "api_key", key) as reply:
            return next(reply)

    with record(tmp_path / "a.yaml"):
        live = first(emulator.key)
    emulator.stop()
    with replay(tmp_path / "a.yaml") as player:
        assert first("a-fake-key") == live
        assert player.unused == []


def test_decorator__replays_from_the_start_each_time(tmp_path):
    save(tape_of(exchange()), tmp_path / "a.yaml")

    @replay(tmp_path / "a.yaml")
    def work():
        return text()

    assert [work(), work()] == [TEXT, TEXT]
