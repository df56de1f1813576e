"""Recorded answers over real sockets: both routes, each framing, plain and TLS."""

from __future__ import annotations

import ssl

import pytest

from gemini_sync import AuthError, BlockedError, InvalidRequestError, NotFoundError, StreamInterrupted
from gemini_sync.testing.emulator import Emulator
from tests.support import CORPUS_MISSING
from tests.wire.support import FRAMINGS, ask, drain, recordings

RECORDINGS = recordings()
STREAMS = [recording for recording in RECORDINGS if recording["error_body"] is None]
ERRORS = [recording for recording in RECORDINGS if recording["error_body"] is not None]
# How each framing is cut into writes: by events, in small pieces, all at once.
PIECES = {"chunked": None, "close": 61, "length": 10**6}
BY_CODE = {400: InvalidRequestError, 404: NotFoundError}

pytestmark = pytest.mark.skipif(not RECORDINGS, reason=CORPUS_MISSING)


def name(recording):
    return recording["file"].removesuffix(".txt").replace("streaming-", "")


@pytest.fixture(scope="module")
def servers(authority):
    """One plain emulator and one with TLS for all tests of this module."""
    with Emulator() as plain, Emulator(ssl_context=authority[0]) as encrypted:
        yield plain, encrypted


@pytest.fixture
def running(servers, context):
    server = servers[isinstance(context, ssl.SSLContext)]
    yield server
    server.clear()
    server.oauth.reset()
    server.api_key.reset()


def expected_verdict(recording):
    if not recording["ends_normally"]:
        return StreamInterrupted
    if recording["block_reason"] or recording["finish_reason"] in ("SAFETY", "RECITATION"):
        return BlockedError
    return None


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("recording", STREAMS, ids=name)
def test_recording__is_read_as_expected(running, route, framing, recording):
    script = getattr(running, route)
    script.answer(body=recording["body"], wrap=route == "oauth", framing=framing, pieces=PIECES[framing])
    reply = ask(running, route)
    texts, error = drain(reply)
    assert "".join(texts) == reply.text == recording["concatenated_text"]
    assert reply.thoughts == recording["thought_text"]
    assert [{"name": call.name, "args": call.args} for call in reply.function_calls] == recording["function_calls"]
    assert (reply.finish_reason, reply.finish_message) == (recording["finish_reason"], recording["finish_message"])
    assert (reply.usage and reply.usage.raw) == recording["last_usage"]
    assert reply.model_version == recording["model_version"]
    signed = [part for part in reply.content["parts"] if "thoughtSignature" in part]
    assert len(signed) == recording["thought_signatures"]
    verdict = expected_verdict(recording)
    assert type(error) is (verdict or type(None))
    if verdict is BlockedError:
        assert error.reason == (recording["block_reason"] or recording["finish_reason"])
        assert error.partial.text == recording["concatenated_text"]
    assert (reply.route, len(reply.attempts), len(script.requests)) == (route, 1, 1)


@pytest.mark.parametrize("recording", STREAMS, ids=name)
def test_recording__all_its_chunks_come_in_the_raw_view(emulator, recording):
    emulator.api_key.answer(body=recording["body"])
    chunks, error = drain(ask(emulator).chunks())
    assert len(chunks) == recording["n_events"]
    assert "".join(chunk.text for chunk in chunks) == recording["concatenated_text"]
    assert type(error) is (type(None) if recording["ends_normally"] else StreamInterrupted)


@pytest.mark.parametrize("served_as", ["its status", "200 text/event-stream", "200 application/json"])
@pytest.mark.parametrize("recording", ERRORS, ids=name)
def test_recorded_error__is_typed(running, route, served_as, recording):
    script, told = getattr(running, route), recording["error_body"]
    if served_as == "its status":
        script.fail(told["code"], body=recording["body"])
    else:
        script.answer(body=recording["body"], content_type=served_as.partition(" ")[2], wrap=route == "oauth")
    _, error = drain(ask(running, route))
    assert type(error) is (AuthError if b"API_KEY_INVALID" in recording["body"] else BY_CODE[told["code"]])
    assert (error.code, error.status, error.route) == (told["code"], told["status"], route)
    assert told["message"].rstrip(".") in str(error)
    assert (len(error.attempts), len(script.requests)) == (1, 1)
