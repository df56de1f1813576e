"""Calls end also if a test has stopped the time with freezegun."""

from __future__ import annotations

import threading

import freezegun
import pytest

from gemini_sync import DeadlineExceeded, Retry, StreamInterrupted, Timeouts
from tests.adapter_kit import Rig
from tests.wire.raw_server import SECONDS
from tests.wire.support import ask, drain, event, watchdog

QUICK = Retry(backoff_base=0.01)
DAY = "2026-11-25"


@pytest.fixture
def rig(emulator, tmp_path):
    with Rig(emulator, tmp_path) as running:
        yield running


def waiting(rig, **settings):
    """An adapter that really waits between tries."""
    return rig.adapter(sleep=None, retry=QUICK, **settings)


def answer_of(adapter):
    with watchdog(adapter.close):
        return adapter.generate("Why?")


def test_frozen__the_pause_between_tries_ends(rig):
    rig.emulator.oauth.fail(503, times=2)
    with freezegun.freeze_time(DAY):
        reply = answer_of(waiting(rig))
    assert [attempt.outcome for attempt in reply.attempts] == ["failed", "failed", "answered"]
    assert (reply.route, rig.flips) == ("oauth", [])


@pytest.mark.parametrize("made", ["before", "inside"])
def test_frozen__adapter_made_before_or_inside_serves_inside_and_after(rig, made):
    before = waiting(rig)
    with freezegun.freeze_time(DAY) as frozen:
        adapter = before if made == "before" else waiting(rig)
        for _ in range(2):
            rig.emulator.oauth.fail(503)
            assert answer_of(adapter).route == "oauth"
            frozen.tick(3600)
    rig.emulator.oauth.fail(503)
    assert answer_of(adapter).route == "oauth"


def test_frozen__in_the_middle_of_a_call(rig):
    adapter = waiting(rig)
    rig.emulator.oauth.answer(text="one two three")
    with watchdog(adapter.close), adapter.stream("Why?", timeouts=Timeouts(idle=SECONDS, total=SECONDS)) as reply:
        texts = [next(reply)]
        with freezegun.freeze_time("1999-01-01"):
            texts.append(next(reply))
        texts += reply
    assert "".join(texts) == "one two three"


@pytest.mark.parametrize(("fault", "arguments"), [("stall", {}), ("drip_headers", {"interval": 0.02})])
def test_frozen__first_token_holds(rig, fault, arguments):
    rig.emulator.oauth.fail(fault, times=None, **arguments)
    with freezegun.freeze_time(DAY):
        adapter = waiting(rig, timeouts=Timeouts(first_token=0.2))
        assert answer_of(adapter).route == "api_key"
    assert [flip.error.deadline for flip in rig.flips] == ["first_token"]


def test_frozen__total_ends_a_stream_that_goes_on(rig):
    rig.emulator.api_key.fail("drip", after=1, interval=0.01, data=event("and on "))
    with freezegun.freeze_time(DAY):
        adapter = waiting(rig, oauth_creds_path=None, timeouts=Timeouts(total=0.1))
        with watchdog(adapter.close):
            _, error = drain(adapter.stream("Why?"))
    cause = error.__cause__ if isinstance(error, StreamInterrupted) else error
    assert (type(cause), cause.deadline) == (DeadlineExceeded, "total")


def test_frozen__plain_functions(emulator):
    emulator.api_key.fail(503)
    with freezegun.freeze_time(DAY):
        reply = ask(emulator, retry=QUICK)
        with watchdog(reply.cancel):
            assert list(reply)


def test_frozen__the_wait_for_the_refresh_of_another_thread_ends(rig):
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
    stalled, replies = threading.Event(), []
    rig.emulator.token.fail("stall", before=stalled.set)
    with freezegun.freeze_time(DAY):
        adapter = waiting(rig)
        leading = adapter.stream("Why?")
        leader = threading.Thread(target=drain, args=(leading,), daemon=True)
        leader.start()
        assert stalled.wait(SECONDS)
        with watchdog(adapter.close):
            _, error = drain(adapter.stream("Why?", timeouts=Timeouts(total=0.1)))
            assert (type(error), error.deadline) == (DeadlineExceeded, "total")
            follower = threading.Thread(target=lambda: replies.append(adapter.generate("Why?").route), daemon=True)
            follower.start()
            leading.cancel()
            for thread in (leader, follower):
                thread.join(SECONDS)
    assert replies == ["oauth"]
