"""The routes of the emulator: what they record, in which order a script is used, and its hooks."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading

import pytest

from tests.testing.support import MODEL, STREAM, TIMEOUT, ask, connect, start, text_of


def test_recorded__what_came(emulator):
    with contextlib.closing(connect(emulator)) as client:
        for mark in ("first", "second"):
            start(client, STREAM + "&x=", **{"X-Mark": mark})
            client.getresponse().read()
    first, second = emulator.api_key.requests
    assert emulator.requests == [first, second]
    assert (first.method, first.path, first.query) == ("POST", STREAM.partition("?")[0], {"alt": "sse", "x": ""})
    assert (first.headers["x-mark"], second.headers["X-MARK"]) == ("first", "second")
    assert first.json == json.loads(first.body)
    assert (first.route, first.model, first.connection, second.connection) == ("api_key", "gemini-3.5-flash", 1, 1)
    assert first.at <= second.at
    assert emulator.wait_closed()
    assert (emulator.connections_open, emulator.connections_total) == (0, 1)
    emulator.clear()
    assert emulator.requests == emulator.api_key.requests == []


def test_script__in_order_then_the_standing_answer(emulator):
    route = emulator.api_key
    route.answer(text="standing")
    route.answer(text="twice", times=2)
    route.fail(503)
    route.answer(text="for n", model="n", times=1)
    assert [text_of(ask(emulator).content) for _ in range(2)] == ["twice", "twice"]
    assert ask(emulator).status == 503
    assert text_of(ask(emulator).content) == "standing"
    assert text_of(ask(emulator, "/v1beta/models/n:streamGenerateContent?alt=sse").content) == "for n"
    route.fail(500, times=None)
    assert [ask(emulator).status for _ in range(2)] == [500, 500]
    route.answer(text="mended")
    assert text_of(ask(emulator).content) == "mended"
    route.reset()
    assert text_of(ask(emulator).content).startswith("You asked")


def test_script__answer_waits_for_a_request_that_it_suits(emulator):
    emulator.api_key.answer(text="kept", times=1)
    count = MODEL + ":countTokens"
    emulator.key = "changed"
    assert ask(emulator).status == 400
    emulator.key = "emulator-api-key"
    assert ask(emulator, count).content == {"totalTokens": 1}
    assert text_of(ask(emulator).content) == "kept"
    emulator.api_key.answer(json={"totalTokens": 7}, times=1)
    assert ask(emulator, count).content == {"totalTokens": 7}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"text": "a", "body": b"b"}, ValueError),
        ({"framing": "none"}, ValueError),
        ({"times": 0}, ValueError),
        ({"colour": "red"}, TypeError),
    ],
)
def test_answer__wrong_arguments(emulator, arguments, error):
    with pytest.raises(error):
        emulator.api_key.answer(**arguments)
    assert text_of(ask(emulator).content).startswith("You asked")


def test_answer__text_on_a_route_without_models(emulator):
    with pytest.raises(ValueError, match="quota answers with body"):
        emulator.quota.answer(text="x")


def test_hooks__run_before_the_answer(emulator):
    gate, order = threading.Event(), []
    emulator.api_key.before = lambda: order.append(len(emulator.api_key.requests))
    emulator.api_key.answer(text="x", times=1, before=lambda: order.append(gate.wait(TIMEOUT)))
    with contextlib.closing(connect(emulator)) as client:
        start(client)
        assert emulator.api_key.wait_for(1)
        gate.set()
        assert client.getresponse().read()
    assert order == [1, True]
    assert not emulator.api_key.wait_for(2, timeout=0)


def test_hook__its_error_is_reported(emulator, monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", lambda found: reported.append(found.exc_value))

    def hook():
        raise TimeoutError("mine")

    emulator.api_key.before = hook
    with contextlib.closing(connect(emulator)) as client:
        start(client)
        with pytest.raises(http.client.RemoteDisconnected):
            client.getresponse()
    emulator.stop()
    assert [str(error.__cause__) for error in reported] == ["mine"]


def test_pace__gates_each_event(emulator):
    turns, indexes = threading.Semaphore(0), []

    def pace(index):
        indexes.append(index)
        assert turns.acquire(timeout=TIMEOUT)

    emulator.api_key.answer(body=b"data: 1\r\n\r\ndata: 2\r\n\r\ndata: 3\n\n: end", pace=pace)
    with contextlib.closing(connect(emulator)) as client:
        start(client)
        answer = client.getresponse()
        for index, event in enumerate([b"data: 1\r\n\r\n", b"data: 2\r\n\r\n", b"data: 3\n\n", b": end"]):
            turns.release()
            assert answer.read1(65536) == event
            assert len(indexes) in (index + 1, index + 2)  # the server waits for a turn before the next event
        assert answer.read() == b""
    assert indexes == [0, 1, 2, 3]


def test_pace__seconds(emulator):
    emulator.api_key.answer(text="one two three", pace=0.001)
    assert text_of(ask(emulator).content) == "one two three"
