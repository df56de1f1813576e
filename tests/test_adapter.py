"""What callers do with an adapter: stream, generate, count tokens, reset and close."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from typing import Any

import pytest

from gemini_sync import GeminiDualAdapter, Retry, Timeouts
from gemini_sync.errors import (
    BlockedError,
    ConfigError,
    DeadlineExceeded,
    PermissionDeniedError,
    ProtocolError,
    StreamInterrupted,
)
from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Gate, Rig, in_thread

# -- stream and generate


def test_stream__sends_nothing_before_the_first_next(rig: Rig) -> None:
    reply = rig.adapter().stream("Hi")
    assert rig.emulator.requests == []
    pieces = [next(reply)]
    assert rig.counts == (1, 0)
    pieces += reply
    assert "".join(pieces) == default_text("Hi") == reply.text
    assert len(pieces) > 2
    assert (reply.route, reply.finish_reason) == ("oauth", "STOP")
    assert [(attempt.route, attempt.outcome) for attempt in reply.attempts] == [("oauth", "answered")]
    assert reply.attempts[0].trace_id is not None


@pytest.mark.parametrize("alone", ["oauth_creds_path", "api_key"])
def test_generate__returns_the_whole_answer(rig: Rig, alone: str) -> None:
    other = {"oauth_creds_path": "api_key", "api_key": "oauth_creds_path"}[alone]
    reply = rig.adapter(**{other: None}).generate("Hi", system_instruction="Be brief.")
    assert (reply.text, reply.finish_reason) == (default_text("Hi"), "STOP")
    assert reply.usage is not None
    assert reply.usage.total_token_count > 0
    with pytest.raises(StopIteration):
        next(reply)


def test_generate__raises_the_errors_of_iterating(rig: Rig) -> None:
    adapter = rig.adapter()
    rig.emulator.oauth.answer(times=1, text="I must not", finish_reason="SAFETY")
    with pytest.raises(BlockedError) as blocked:
        adapter.generate("Hi")
    assert (blocked.value.partial.text, blocked.value.reason) == ("I must not", "SAFETY")
    rig.emulator.oauth.fail("cut", after=2)
    with pytest.raises(StreamInterrupted) as caught:
        adapter.generate("Hi")
    assert caught.value.partial is not None
    assert default_text("Hi").startswith(caught.value.partial.text)
    assert caught.value.partial.text
    assert rig.counts == (2, 0)


def test_stream__model_and_timeouts_of_one_call(rig: Rig) -> None:
    adapter = rig.adapter(model="models/usual")
    adapter.generate("Hi")
    adapter.generate("Hi", model="tunedModels/special")
    assert [request.model for request in rig.emulator.oauth.requests] == ["usual", "special"]
    rig.emulator.oauth.fail("stall")
    with pytest.raises(DeadlineExceeded) as caught:
        adapter.generate("Hi", timeouts=Timeouts(total=0.05))
    assert (caught.value.deadline, caught.value.seconds) == ("total", 0.05)
    assert rig.counts == (3, 0)
    assert not adapter.fallback_active


def test_require_finish__false_accepts_a_stream_without_a_finish_reason(rig: Rig) -> None:
    rig.emulator.oauth.answer(text="no end", finish_reason=None)
    with pytest.raises(StreamInterrupted) as caught:
        rig.adapter().generate("Hi")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "no end"
    assert rig.adapter(require_finish=False).generate("Hi").text == "no end"
    assert rig.flips == []


def test_max_event_bytes__limits_the_size_of_an_event(rig: Rig) -> None:
    adapter = rig.adapter(max_event_bytes=100_000)
    assert adapter.generate("Hi").route == "oauth"
    for route in (rig.emulator.oauth, rig.emulator.api_key):
        route.answer(inline_data=("image/png", bytes(100_000)))
    with pytest.raises(ProtocolError):
        adapter.generate("Hi")
    assert rig.counts == (4, 3)


# -- count_tokens


def test_count_tokens__on_both_routes(rig: Rig) -> None:
    assert rig.adapter().count_tokens("12345678") == 2
    assert rig.adapter(api_key=None).count_tokens(["1234", {"text": "5678"}]) == 2
    assert rig.counts == (2, 0)
    by_key = rig.adapter(oauth_creds_path=None)
    assert by_key.count_tokens("12345678", model="x", system_instruction="Be brief.", tools=[{"googleSearch": {}}]) == 2
    assert rig.counts == (2, 1)
    assert rig.emulator.api_key.requests[0].model == "x"


@pytest.mark.parametrize("fault", [403, 503, "html", "half_headers", "empty"])
def test_count_tokens__asks_the_other_route_and_flips_nothing(rig: Rig, fault: Any) -> None:
    adapter = rig.adapter()
    rig.emulator.oauth.fail(fault, times=1 if fault == 403 else 3)
    assert adapter.count_tokens("12345678") == 2
    assert rig.counts == (1 if fault == 403 else 3, 1)
    assert adapter.generate("Hi").route == "oauth"
    assert (rig.flips, adapter.fallback_active) == ([], False)


@pytest.mark.parametrize("answer", [{}, {"totalTokens": "many"}, [], 5, None])
def test_count_tokens__answer_without_a_number(rig: Rig, answer: Any) -> None:
    rig.emulator.oauth.answer(body=b"null") if answer is None else rig.emulator.oauth.answer(json=answer)
    with pytest.raises(ProtocolError, match="countTokens"):
        rig.adapter(api_key=None).count_tokens("Hi")
    # An object without the number would come the same way again. Anything else may be the answer of a proxy.
    assert rig.counts == (1 if isinstance(answer, dict) else 3, 0)


def test_count_tokens__error_in_a_200(rig: Rig) -> None:
    rig.emulator.oauth.answer(json={"error": {"code": 403, "message": "No.", "status": "PERMISSION_DENIED"}})
    with pytest.raises(PermissionDeniedError):
        rig.adapter(api_key=None).count_tokens("Hi")
    assert rig.counts == (1, 0)


# -- closing


def test_close__cancels_the_running_streams(rig: Rig) -> None:
    gate = Gate()
    rig.emulator.oauth.answer(text="one two three", pace=lambda index: gate() if index == 1 else None)
    adapter = rig.adapter()
    replies = [adapter.stream("Hi") for _ in range(3)]
    results = [in_thread(lambda reply=reply: list(reply)) for reply in replies]
    gate.await_arrivals(3)
    adapter.close()
    for result in results:
        with pytest.raises(StreamInterrupted) as caught:
            result()
        assert caught.value.cancelled
        assert caught.value.partial is not None
        assert caught.value.partial.text == "one"
    gate.open()
    adapter.close()
    assert rig.emulator.wait_closed()
    for call in (adapter.stream, adapter.generate, adapter.count_tokens):
        with pytest.raises(ConfigError, match="closed"):
            call("Hi")
    assert rig.counts == (3, 0)
    assert (rig.flips, adapter.fallback_active) == ([], False)


def test_close__cancels_count_tokens(rig: Rig) -> None:
    gate = Gate()
    rig.emulator.oauth.fail("stall", before=gate)
    adapter = rig.adapter()
    result = in_thread(lambda: adapter.count_tokens("Hi"))
    gate.await_arrivals()
    gate.open()
    adapter.close()
    with pytest.raises(StreamInterrupted) as caught:
        result()
    assert caught.value.cancelled
    assert (rig.counts, rig.flips) == ((1, 0), [])


def test_close__ends_the_pause_between_tries(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    waiting = threading.Event()

    class SetsWaiting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waiting.set()

    rig.emulator.oauth.fail(503, times=None)
    adapter = rig.adapter(sleep=None, retry=Retry(backoff_base=1000, backoff_cap=1000))
    logger = logging.getLogger("gemini_sync.retrying")
    caplog.set_level(logging.INFO, logger=logger.name)
    logger.addHandler(handler := SetsWaiting())
    try:
        result = in_thread(lambda: adapter.generate("Hi"))
        assert waiting.wait(20)
    finally:
        logger.removeHandler(handler)
    adapter.close()
    with pytest.raises(StreamInterrupted) as caught:
        result()
    assert caught.value.cancelled
    assert rig.counts == (1, 0)


@pytest.mark.parametrize("ending", ["close", "cancel"])
@pytest.mark.parametrize("credentials", ["there", "missing"])
def test_close__before_the_first_next(rig: Rig, ending: str, credentials: str) -> None:
    if credentials == "missing":
        rig.path.unlink()
    adapter = rig.adapter()
    reply = adapter.stream("Hi")
    (adapter.close if ending == "close" else reply.cancel)()
    with pytest.raises(StreamInterrupted) as caught:
        next(reply)
    assert caught.value.cancelled
    assert (rig.emulator.requests, rig.flips, adapter.fallback_active) == ([], [], False)


def test_reset__allows_a_refresh_right_after_a_failed_one(rig: Rig) -> None:
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
    rig.emulator.token.fail(400, error="invalid_client")
    adapter = rig.adapter()
    assert adapter.generate("Hi").route == "api_key"
    adapter.reset()
    assert adapter.generate("Hi").route == "oauth"
    assert len(rig.emulator.token.requests) == 2


def test_with_block__closes_the_adapter_at_its_end(rig: Rig) -> None:
    with rig.adapter() as adapter:
        reply = adapter.stream("Hi")
        next(reply)
    with pytest.raises(StreamInterrupted):
        list(reply)
    assert rig.emulator.wait_closed()


def test_reply__outlives_its_adapter(rig: Rig) -> None:
    gate = Gate()
    rig.emulator.oauth.answer(text="one two three four", pace=lambda index: gate() if index == 1 else None)
    adapter = GeminiDualAdapter(**rig.settings())
    dropped = weakref.ref(adapter)
    reply = adapter.stream("Hi")
    pieces = [next(reply)]
    gate.await_arrivals()
    del adapter
    gc.collect()
    assert dropped() is None
    gate.open()
    pieces += reply
    assert "".join(pieces) == "one two three four"
    del reply
    gc.collect()
    assert rig.emulator.wait_closed()


def test_adapter__dropped_without_close_leaves_no_connection(rig: Rig) -> None:
    for text in ("one", "two"):
        assert GeminiDualAdapter(**rig.settings()).stream(text).__next__()
        gc.collect()
    assert rig.emulator.wait_closed()
