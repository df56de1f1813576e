"""The answers of the emulator: what is in them, and how they are written."""

from __future__ import annotations

import json

import pytest

from gemini_sync.testing.emulator import default_text
from tests.testing.support import EVENTS, MODEL, ask, ask_oauth, chunked, events, receive, text_of


def test_stream__default(emulator):
    answer = ask(emulator)
    chunks = events(answer.content)
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert text_of(chunks) == default_text("Why?")
    assert len(chunks) > 3
    assert [chunk["candidates"][0].get("finishReason") for chunk in chunks] == [None] * (len(chunks) - 1) + ["STOP"]
    totals = [chunk["usageMetadata"]["totalTokenCount"] for chunk in chunks]
    assert totals == sorted(set(totals))
    assert chunks[0]["modelVersion"] == "gemini-3.5-flash"
    assert {chunk["responseId"] for chunk in chunks} == {"emulator-000001"}


def test_stream__oauth_wraps(emulator):
    answers = [events(ask_oauth(emulator).content) for _ in range(2)]
    assert text_of([event["response"] for event in answers[0]]) == default_text("Why?")
    assert answers[0][0]["traceId"] != answers[1][0]["traceId"]


def test_stream__without_sse_is_an_array(emulator):
    answer = ask(emulator, MODEL + ":streamGenerateContent")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert text_of(answer.content) == default_text("Why?")
    emulator.api_key.answer(chunks=[])
    assert ask(emulator, MODEL + ":streamGenerateContent").content == []


def test_generate__one_merged_answer(emulator):
    call = {"name": "now", "args": {}}
    emulator.oauth.answer(text="One two three. ", thoughts="Let me think.", function_calls=[call, call])
    answer = ask_oauth(emulator, "/v1internal:generateContent").content["response"]
    parts = answer["candidates"][0]["content"]["parts"]
    assert [part.get("text") for part in parts] == ["Let me think.", "One two three. ", None, None]
    assert parts[0]["thought"]
    assert [part.get("functionCall") for part in parts[2:]] == [call, call]
    assert "thoughtSignature" in parts[2]
    assert "thoughtSignature" not in parts[3]
    assert answer["candidates"][0]["finishReason"] == "STOP"
    assert answer["usageMetadata"]["thoughtsTokenCount"] == 4


def test_generate__chunks_without_parts(emulator):
    emulator.api_key.answer(chunks=[{"promptFeedback": {"blockReason": "SAFETY"}}], times=1)
    emulator.api_key.answer(chunks=[])
    answers = [ask(emulator, MODEL + ":generateContent").content for _ in range(2)]
    assert answers == [{"promptFeedback": {"blockReason": "SAFETY"}}, {}]


def test_parts__scripted(emulator):
    emulator.api_key.answer(inline_data=("image/png", b"\x89PNG"), finish_reason=None, framing="length", times=1)
    emulator.api_key.answer(text="", finish_reason="MAX_TOKENS", framing="length", times=1)
    image, nothing = (json.loads(receive(emulator)[1].removeprefix(b"data: ")) for _ in range(2))
    inline = {"inlineData": {"mimeType": "image/png", "data": "iVBORw=="}}
    assert image["candidates"] == [{"content": {"parts": [inline], "role": "model"}, "index": 0}]
    assert nothing["candidates"][0]["content"]["parts"] == [{"text": ""}]
    assert nothing["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_body__wrapped_as_the_oauth_route_would(emulator):
    emulator.api_key.answer(body=b': hi\ndata:{"n": 1}\n\ndata: {bad\r\n\r\ndata: 3', wrap=True, framing="length")
    trace = f'"traceId": "{1:016x}"'.encode()
    expected = b': hi\ndata: {"response": {"n": 1},%b}\n\ndata: {bad\r\n\r\ndata: {"response": 3,%b}'
    assert receive(emulator)[1] == expected % (trace, trace)


# --- how an answer is written


def test_pieces__a_size_or_the_writes(emulator):
    whole = b"".join(EVENTS)
    emulator.api_key.answer(body=whole, pieces=7, times=1)
    emulator.api_key.answer(pieces=[b"da", b"", b"ta: 1\n\n"], times=1)
    assert receive(emulator)[1] == chunked(*[whole[at : at + 7] for at in range(0, len(whole), 7)])
    assert receive(emulator)[1] == chunked(b"da", b"ta: 1\n\n")


@pytest.mark.parametrize(("framing", "field"), [("length", "Content-Length: 54"), ("close", "Connection: close")])
def test_framing(emulator, framing, field):
    emulator.api_key.answer(body=b"".join(EVENTS), framing=framing, content_type="a/b", headers={"X-Mine": "1"})
    head, body = receive(emulator)
    assert {field, "Content-Type: a/b", "X-Mine: 1"} <= set(head.split("\r\n"))
    assert body == b"".join(EVENTS)
