"""Each way to test without a network and without credentials."""

from __future__ import annotations

from pathlib import Path

import pytest
import responses
from answers import answer

from gemini_sync import GeminiDualAdapter, QuotaError
from gemini_sync.testing import add_error, add_stream, broken, faults, replay

RECORDING = Path(__file__).with_name("test_answers.test_recorded_answer.yaml")
QUESTION = "What is the capital of Wyoming?"


@pytest.fixture
def adapter():
    with GeminiDualAdapter("any-key", model="gemini-2.0-flash") as made:
        yield made


# -- recorded once, with --gemini-record=once and a real key, and replayed since then


def test_recorded_answer(gemini_cassette, adapter):
    assert answer(adapter, QUESTION) == "The capital of Wyoming is **Cheyenne**.\n"


def test_recorded_answer_that_breaks_off(adapter):
    with replay(broken(RECORDING, faults.cut(after=2))):
        assert answer(adapter, QUESTION) == "The capital of Wyoming […]"


# -- made up, beside mocks of responses


@responses.activate
def test_stream(adapter):
    add_stream(responses, ["Hel", "lo"], thoughts="A greeting.", usage={"totalTokenCount": 7})
    reply = adapter.generate("Say hello.")
    assert (reply.text, reply.thoughts, reply.usage.total_token_count) == ("Hello", "A greeting.", 7)


@responses.activate
def test_stream_that_breaks_off(adapter):
    add_stream(responses, ["Hel", "lo"], faults=[faults.refused(503), faults.cut(after=1)])
    assert answer(adapter, "Say hello.") == "Hel […]"


@responses.activate
def test_quota(adapter):
    add_error(responses, 429, reason="QUOTA_EXHAUSTED", retry_after=3600)
    with pytest.raises(QuotaError) as caught:
        answer(adapter, "Say hello.")
    assert caught.value.retry_after == 3600


# -- over real sockets, with both routes


def test_fallback(gemini_adapter, gemini_emulator):
    gemini_emulator.oauth.fail(429, reason="QUOTA_EXHAUSTED")
    gemini_emulator.api_key.answer(text="Hello.")
    assert answer(gemini_adapter, "Say hello.") == "Hello."
    assert gemini_adapter.fallback_active
