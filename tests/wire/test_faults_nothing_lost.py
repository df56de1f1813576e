"""Nothing of an answer is lost: unfinished last events, odd shapes, huge events and all cases of the standard."""

from __future__ import annotations

import base64
import json

import pytest

from gemini_sync import (
    BlockedError,
    EmptyResponseError,
    ProtocolError,
)
from gemini_sync.messages.sse import events
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import Emulator
from tests.support import CORPUS_MISSING, find_corpus
from tests.wire.faults_kit import KEY, SECRET, TEXT, guarded_rig, run
from tests.wire.support import chunk, event


@pytest.fixture
def emulator():
    with Emulator(key=KEY, client_secret=SECRET) as running:
        yield running


@pytest.fixture
def rig(emulator, tmp_path, caplog):
    with guarded_rig(emulator, tmp_path, caplog) as rig:
        yield rig


def body_of(*values):
    return b"".join(b"data: " + (v if isinstance(v, bytes) else json.dumps(v).encode()) + b"\r\n\r\n" for v in values)


def run_body(rig, body, **settings):
    rig.emulator.api_key.answer(body=body)
    return run(rig, oauth_creds_path=None, **settings)


def test_close_delimited_live(rig, emulator):
    emulator.oauth.answer(text=TEXT, framing="close")
    assert "".join(run(rig)[2]) == TEXT


@pytest.mark.skipif(find_corpus() is None, reason=CORPUS_MISSING)
@pytest.mark.parametrize("pieces", [10**6, 1, 2])
def test_sse_132_cases(emulator, corpus, pieces):
    cases = json.loads((corpus / "sse_cases.json").read_text(encoding="utf-8"))
    url = f"{emulator.url}/v1beta/models/m:streamGenerateContent?alt=sse"
    request, transport = json.dumps({"contents": [{"parts": [{"text": "Why?"}]}]}).encode(), Transport()
    for case in cases:
        emulator.api_key.answer(body=base64.b64decode(case["input_b64"]), pieces=pieces)
        with transport.send(Call().start(), "POST", url, {"x-goog-api-key": KEY}, request) as exchange:
            came = [(found.event, found.data) for found in events(exchange.chunks(), 2**20)]
        assert came == [(expected["event"], expected["data"]) for expected in case["expected"]], case["name"]
    transport.close()
    assert len(cases) >= 99


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"])
def test_final_event_unterminated(rig, end):
    _, _, texts, error = run_body(rig, event("one") + event(" two", "STOP").rstrip(b"\r\n") + end)
    assert (texts, error) == (["one", " two"], None)


def test_invalid_utf8(rig):
    _, _, texts, error = run_body(rig, event("one") + event("t?o", "STOP").replace(b"?", b"\xff"))
    assert (texts, error) == (["one", "t\ufffdo"], None)


ODD = [None, [], {}, 3, "x", True, [None], [[]], [3], {"parts": None}, {"parts": 3}, {"parts": [None, 3, "x", []]}]


@pytest.mark.parametrize("odd", ODD, ids=json.dumps)
def test_wrong_shape__inside_an_object(rig, odd):
    shapes = [{name: odd} for name in ("candidates", "usageMetadata", "modelVersion", "promptFeedback", "responseId")]
    shapes += [{"candidates": [{name: odd}]} for name in ("content", "finishReason", "finishMessage", "index")]
    shapes += [{"candidates": [{"content": {"parts": [{name: odd}]}}]} for name in ("text", "functionCall", "thought")]
    _, reply, texts, error = run_body(rig, body_of(*shapes, chunk("end", "STOP")))
    assert (texts[-1:], error, reply.finish_reason) == (["end"], None, "STOP")


def test_finish_reason_every_event(rig):
    _, reply, texts, error = run_body(rig, event("one", "STOP") + event(" two", "STOP") + event(" three", "STOP"))
    assert (texts, error, reply.finish_reason) == (["one", " two", " three"], None, "STOP")


def test_unknown_enum(rig):
    _, reply, texts, error = run_body(rig, event("one", "FAKE_ENUM"))
    assert (texts, error, reply.finish_reason) == (["one"], None, "FAKE_ENUM")


@pytest.mark.parametrize("reason", ["SAFETY", "OTHER", "FAKE_ENUM"])
def test_prompt_blocked(rig, emulator, reason):
    emulator.oauth.answer(chunks=[{"promptFeedback": {"blockReason": reason}}])
    adapter, _, texts, error = run(rig)
    assert (texts, type(error), error.reason) == ([], BlockedError, reason)
    assert (rig.counts, rig.flips, adapter.fallback_active) == ((1, 0), [], False)


def test_empty_answer(rig, emulator):
    emulator.oauth.answer(chunks=[{"candidates": [{"finishReason": "STOP"}]}])
    adapter, _, texts, error = run(rig)
    assert (texts, type(error), rig.counts, adapter.fallback_active) == ([], EmptyResponseError, (1, 0), False)


def test_huge_event(rig, emulator):
    data = bytes(range(256)) * 2**12 * 15  # in base64 20 MiB
    emulator.oauth.answer(inline_data=("image/png", data), pieces=16 * 1024)
    _, reply, _, error = run(rig)
    assert error is None
    (blob,) = reply.inline_data
    assert (blob.mime_type, blob.data == data) == ("image/png", True)
    _, reply, _, error = run(rig, api_key=None, max_event_bytes=2**20)
    assert type(error) is ProtocolError
    assert "max_event_bytes" in str(error)
