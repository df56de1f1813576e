"""Many threads share one adapter: they cause one refresh, one fallback and one message."""

from __future__ import annotations

import itertools
import logging
import threading

import pytest

from gemini_sync import AuthError
from gemini_sync.network.cancelling import Call
from gemini_sync.routing.events import notify_stderr
from tests.adapter_kit import Asker, Gate, Rig, in_thread
from tests.auth.credentials_kit import await_all, together

MANY = 50
SECONDS = 20.0


def asked(rig: Rig) -> list[str]:
    """The questions that came by API key."""
    return [request.json["contents"][0]["parts"][0]["text"] for request in rig.emulator.api_key.requests]


# -- one refresh, one flip, one message


def test_401__in_many_threads_causes_one_refresh_and_one_fallback(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    barrier = threading.Barrier(MANY)
    rig.emulator.oauth.fail(401, times=MANY, before=lambda: barrier.wait(SECONDS))
    rig.emulator.oauth.fail(401, times=None)
    adapter = rig.adapter(on_fallback=notify_stderr)
    assert together(MANY, Asker(adapter)) == ["api_key"] * MANY
    assert len(rig.emulator.token.requests) == 1
    assert rig.counts == (2 * MANY, MANY)
    assert len(set(asked(rig))) == MANY
    assert capfd.readouterr().err.count("\n") == 1
    assert Asker(adapter)() == "api_key"
    assert rig.counts == (2 * MANY, MANY + 1)


def test_401__in_many_threads_is_cured_by_one_refresh(rig: Rig) -> None:
    barrier = threading.Barrier(MANY)
    rig.emulator.oauth.fail(401, times=MANY, before=lambda: barrier.wait(SECONDS))
    assert together(MANY, Asker(rig.adapter())) == ["oauth"] * MANY
    assert len(rig.emulator.token.requests) == 1
    assert (rig.counts, rig.flips) == ((2 * MANY, 0), [])


def test_401__that_comes_late_causes_no_second_refresh(rig: Rig) -> None:
    """The late thread tries the token that the other thread got, and asks for no other, even if it is refused."""
    gate = Gate()
    rig.emulator.oauth.fail(401, before=gate)
    rig.emulator.oauth.fail(401, times=None)
    ask = Asker(rig.adapter())
    late = in_thread(ask)
    gate.await_arrivals()
    assert ask() == "api_key"
    gate.open()
    assert late() == "api_key"
    assert (rig.counts, len(rig.flips)) == ((4, 2), 1)
    assert len(rig.emulator.token.requests) == 1


@pytest.mark.parametrize("outcome", ["refreshed", "refused"])
def test_refresh__many_threads_wait_for_one(rig: Rig, monkeypatch: pytest.MonkeyPatch, outcome: str) -> None:
    """The token endpoint answers as soon as all other threads wait."""
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
    waiting = threading.Semaphore(0)
    wait_for = Call.wait_for
    monkeypatch.setattr(Call, "wait_for", lambda call, future: (waiting.release(), wait_for(call, future)))
    rig.emulator.token.before = lambda: await_all(waiting, MANY - 1)
    if outcome == "refused":
        rig.emulator.token.fail(400, error="invalid_grant", times=None)
    route = "oauth" if outcome == "refreshed" else "api_key"
    assert together(MANY, Asker(rig.adapter())) == [route] * MANY
    assert len(rig.emulator.token.requests) == 1
    assert len(rig.emulator.load_code_assist.requests) == (outcome == "refreshed")
    assert len(rig.flips) == (outcome == "refused")


def test_503__in_many_threads_causes_one_fallback(rig: Rig) -> None:
    """Each thread makes its own tries; together they fall back once, with one message."""
    rig.emulator.oauth.fail(503, times=None)
    barrier = threading.Barrier(MANY)
    passed = itertools.count()
    rig.emulator.oauth.before = lambda: next(passed) < MANY and barrier.wait(SECONDS)
    assert together(MANY, Asker(rig.adapter())) == ["api_key"] * MANY
    assert rig.counts == (3 * MANY, MANY)
    assert len(rig.flips) == 1


def test_403__in_many_threads_whose_key_is_worth_nothing_flips_nothing(rig: Rig) -> None:
    rig.emulator.oauth.fail(403, times=None)
    rig.emulator.api_key.fail(400, times=None, reason="API_KEY_INVALID")
    adapter = rig.adapter()

    def ask() -> str:
        with pytest.raises(AuthError) as caught:
            adapter.generate("Hi")
        return type(caught.value.__cause__).__name__

    assert together(MANY, ask) == ["PermissionDeniedError"] * MANY
    assert (rig.counts, rig.flips, adapter.fallback_active) == ((MANY, MANY), [], False)
    rig.emulator.oauth.reset()
    assert Asker(adapter)() == "oauth"


def test_on_fallback__that_blocks_delays_no_other_thread(rig: Rig) -> None:
    gate = Gate()
    adapter = rig.adapter(on_fallback=gate)
    rig.emulator.oauth.fail(403)
    flips = in_thread(Asker(adapter))
    gate.await_arrivals()
    assert together(4, Asker(adapter)) == ["api_key"] * 4
    assert adapter.fallback_active
    gate.open()
    assert flips() == "api_key"
    assert rig.counts == (1, 5)


# -- threads that come late


def test_late_failure__does_not_undo_a_reset(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    rig.emulator.oauth.fail(403, before=gate)
    adapter = rig.adapter()
    slow = in_thread(Asker(adapter))
    gate.await_arrivals()
    rig.emulator.oauth.fail(403)
    assert Asker(adapter)() == "api_key"
    adapter.reset()
    assert Asker(adapter)() == "oauth"
    with caplog.at_level(logging.WARNING):
        gate.open()
        assert slow() == "api_key"
    assert "the API key serves one call, OAuth stays preferred" in caplog.text
    assert not adapter.fallback_active
    assert Asker(adapter)() == "oauth"
    assert len(rig.flips) == 1


def test_late_failure__after_a_fallback_gives_no_second_message(rig: Rig) -> None:
    gate = Gate()
    rig.emulator.oauth.fail(403, before=gate)
    adapter = rig.adapter()
    slow = in_thread(Asker(adapter))
    gate.await_arrivals()
    rig.emulator.oauth.fail(403)
    assert Asker(adapter)() == "api_key"
    gate.open()
    assert slow() == "api_key"
    assert len(rig.flips) == 1
    assert adapter.fallback_active


def test_late_success__does_not_undo_a_fallback(rig: Rig) -> None:
    """Streams that run over OAuth go on to their end and change nothing."""
    gate = Gate()
    rig.emulator.oauth.answer(times=4, pace=lambda index: gate() if index == 1 else None)
    adapter = rig.adapter()
    slow = [in_thread(Asker(adapter)) for _ in range(4)]
    gate.await_arrivals(4)
    rig.emulator.oauth.fail(403)
    assert Asker(adapter)() == "api_key"
    gate.open()
    assert [result() for result in slow] == ["oauth"] * 4
    assert Asker(adapter)() == "api_key"
    assert (rig.counts, len(rig.flips)) == ((5, 2), 1)


# -- many streams


def test_many_streams__each_answer_is_exact_on_shared_connections(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    ask = Asker(rig.adapter())
    with caplog.at_level(logging.DEBUG):
        assert together(32, lambda: {ask() for _ in range(20)}) == [{"oauth"}] * 32
    assert rig.counts == (640, 0)
    assert len({request.json["user_prompt_id"] for request in rig.emulator.oauth.requests}) == 640
    assert rig.emulator.connections_total <= 32
    assert not [record for record in caplog.records if "pool is full" in record.getMessage()]


def test_status__is_consistent_in_any_thread(rig: Rig) -> None:
    adapter = rig.adapter()
    rig.emulator.oauth.fail(403, times=None)
    ask, stop, seen = Asker(adapter), threading.Event(), []

    def watch() -> None:
        while not stop.is_set():
            status = adapter.route_status()
            assert status.fallback_active == (status.preferred == "api_key")
            assert (status.reason in (None, "reset()")) == (not status.fallback_active)
            seen.append(status)

    watcher = in_thread(watch)

    def play() -> None:
        for _ in range(10):
            assert ask() == "api_key"
            adapter.reset()

    assert together(8, play) == [None] * 8
    stop.set()
    watcher()
    assert seen
    assert 1 <= len(rig.flips) <= 80  # after a reset, the failures of earlier calls no longer count


def test_choosing__takes_no_lock(rig: Rig) -> None:
    """Calls go on while another thread holds the lock of the fallback state."""
    adapter = rig.adapter()
    with adapter._router._state._lock:
        assert in_thread(Asker(adapter))() == "oauth"
    rig.emulator.oauth.fail(403)
    assert Asker(adapter)() == "api_key"
    with adapter._router._state._lock:
        assert in_thread(Asker(adapter))() == "api_key"
        assert adapter.fallback_active
