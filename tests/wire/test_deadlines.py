"""Each deadline holds on a real socket, against silence and against a server that drips, and is named in the error."""

from __future__ import annotations

import itertools
import threading

import pytest

from gemini_sync import DeadlineExceeded, Endpoints, GeminiDualAdapter, Retry, ServerError, StreamInterrupted, Timeouts
from gemini_sync import transport as transport_floor
from gemini_sync.testing.emulator import Emulator
from tests.wire.raw_server import EVENT_STREAM, RawServer, black_hole
from tests.wire.support import AT_ONCE, ask, drain, event

SHORT = 0.25
#: Longer than any test may take: what ends by this deadline ends by the wrong one.
NEVER = 600.0


def limits(**short):
    """Deadlines that never pass, except those given."""
    return Timeouts(**{"connect": NEVER, "first_token": NEVER, "idle": NEVER, **short})


def deadline_of(error):
    cause = error.__cause__ if isinstance(error, StreamInterrupted) else error
    assert type(cause) is DeadlineExceeded, repr(error)
    assert f"The {cause.deadline} deadline passed" in str(error)
    return cause.deadline


# --- connect


def test_connect__full_backlog_is_tried_again(route):
    with black_hole() as url:
        _, error = drain(ask(url, route, timeouts=limits(connect=SHORT), retry=Retry(2, backoff_base=0)))
    assert deadline_of(error) == "connect"
    assert [deadline_of(attempt.error) for attempt in error.attempts] == ["connect", "connect"]
    assert error.seconds == SHORT


def test_connect__includes_the_tls_handshake(tls):
    with RawServer(lambda peer: peer.wait_gone()) as silent:
        url = silent.url.replace("http:", "https:")
        _, error = drain(ask(url, timeouts=limits(connect=SHORT), retry=Retry(1)))
    assert (deadline_of(error), len(silent.peers)) == ("connect", 1)


def test_connect__includes_the_proxys_answer(tls, monkeypatch):
    def drip(peer):
        peer.send(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        for _ in itertools.count():
            peer.send(b"x")
            gone.wait(0.02)

    gone = threading.Event()
    with RawServer(drip) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        _, error = drain(ask("https://127.0.0.1:9", timeouts=limits(connect=SHORT), retry=Retry(1)))
    assert (deadline_of(error), len(proxy.peers)) == ("connect", 1)


def test_total__holds_while_connecting():
    with black_hole() as url:
        _, error = drain(ask(url, timeouts=limits(total=SHORT)))
    assert (deadline_of(error), len(error.attempts)) == ("total", 1)


# --- first_token


@pytest.mark.parametrize(
    ("fault", "arguments"),
    [
        ("stall", {}),
        ("drip_headers", {"interval": 0.02}),
        ("stall", {"after": 0}),
        ("drip", {"interval": 0.02}),
        ("drip", {"interval": 0.02, "data": b": ping\n\n"}),
        ("drip", {"interval": 0.02, "data": b"data:\n\n"}),
    ],
    ids=["silence", "header drip", "headers then silence", "body drip", "pings", "empty events"],
)
def test_first_token__passes_and_the_route_is_not_tried_again(server, route, fault, arguments):
    script = getattr(server, route)
    script.fail(fault, times=None, **arguments)
    _, error = drain(ask(server, route, timeouts=limits(first_token=SHORT)))
    assert (deadline_of(error), len(script.requests), len(error.attempts)) == ("first_token", 1, 1)
    assert server.wait_closed()


def test_first_token__holds_while_the_request_is_being_sent():
    release = threading.Event()
    with RawServer(lambda peer: release.wait(10)) as deaf:  # never reads: the socket buffers fill up
        _, error = drain(ask(deaf.url, timeouts=limits(first_token=SHORT), system_instruction="x" * 2**24))
        release.set()
    assert (deadline_of(error), len(deaf.peers)) == ("first_token", 1)


@pytest.mark.parametrize("fault", ["stall", "drip_headers"])
def test_first_token__flips_at_once(emulator, tmp_path, fault):
    emulator.oauth.fail(fault, times=None)
    said = []
    with GeminiDualAdapter(
        emulator.key,
        emulator.write_credentials(tmp_path / "creds.json"),
        endpoints=Endpoints(**emulator.urls),
        timeouts=limits(first_token=SHORT),
        retry=AT_ONCE,
        on_fallback=said.append,
    ) as adapter:
        reply = adapter.generate("Why?")
        assert (reply.route, adapter.fallback_active) == ("api_key", True)
    assert (len(emulator.oauth.requests), len(emulator.api_key.requests)) == (1, 1)
    assert [deadline_of(event.error) for event in said] == ["first_token"]


# --- idle


@pytest.mark.parametrize(
    ("fault", "arguments"),
    [
        ("stall", {}),
        ("drip", {"interval": 0.02}),
        ("drip", {"interval": 0.02, "data": b": ping\n\n"}),
        ("drip", {"interval": 0.02, "data": b"data:\n\n"}),
    ],
    ids=["silence", "drip", "pings", "empty events"],
)
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_idle__passes_between_chunks(server, route, framing, fault, arguments):
    script = getattr(server, route)
    script.answer(text="one two three four five", framing=framing)
    script.fail(fault, after=2, **arguments)
    texts, error = drain(ask(server, route, timeouts=limits(idle=SHORT)))
    assert texts == ["one", " two three"]
    assert type(error) is StreamInterrupted
    assert (deadline_of(error), error.partial.text, len(script.requests)) == ("idle", "one two three", 1)
    assert server.wait_closed()


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ask_with_clock(emulator, clock, **timeouts):
    adapter = GeminiDualAdapter(
        emulator.key, endpoints=Endpoints(**emulator.urls), timeouts=limits(**timeouts), retry=AT_ONCE, clock=clock
    )
    with adapter:
        return drain(adapter.stream("Why?"))


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_idle__begins_anew_with_each_chunk(emulator, framing):
    clock, received = Clock(), threading.Semaphore(0)

    def pass_time(index):
        clock.now += 60.0

    emulator.api_key.answer(text="one two three four five six seven", framing=framing, pace=pass_time)
    texts, error = ask_with_clock(emulator, clock, idle=100.0)
    assert ("".join(texts), error) == ("one two three four five six seven", None)
    assert received is not None


# --- total


def test_total__ends_a_stream_that_goes_on(server, route):
    script = getattr(server, route)
    script.fail("drip", after=1, interval=0.01, data=event("and on "))
    _, error = drain(ask(server, route, timeouts=limits(total=SHORT)))
    assert type(error) is StreamInterrupted
    assert (deadline_of(error), len(script.requests)) == ("total", 1)
    assert server.wait_closed()


@pytest.mark.parametrize("fault", ["stall", "drip_headers", "endless_error"])
def test_total__surfaces_before_the_first_chunk(emulator, tmp_path, fault):
    emulator.oauth.fail(fault, times=None)
    with GeminiDualAdapter(
        emulator.key,
        emulator.write_credentials(tmp_path / "creds.json"),
        project=emulator.project,
        endpoints=Endpoints(**emulator.urls),
        timeouts=limits(total=SHORT),
        retry=AT_ONCE,
    ) as adapter:
        _, error = drain(adapter.stream("Why?"))
        assert not adapter.fallback_active
    assert deadline_of(error) == "total"
    assert (len(emulator.oauth.requests), len(emulator.api_key.requests)) == (1, 0)


def test_total__does_not_wait_for_a_retry_that_it_would_not_survive(emulator):
    emulator.api_key.fail(503, times=None)
    _, error = drain(ask(emulator, timeouts=limits(total=60.0), retry=Retry(backoff_base=NEVER, backoff_cap=NEVER)))
    assert type(error) is ServerError
    assert len(emulator.api_key.requests) == 1


def test_error_body__that_drips_is_given_up(emulator, monkeypatch):
    monkeypatch.setattr(transport_floor, "_ERROR_BODY_SECONDS", SHORT)
    assert EVENT_STREAM and Emulator
