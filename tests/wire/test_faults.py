"""The outcome of each fault that breaks an answer, by its name in the corpus's fault matrix."""

from __future__ import annotations

import gzip
import socket

import pytest

from gemini_sync import (
    DeadlineExceeded,
    Endpoints,
    ProtocolError,
    ServerError,
    StreamInterrupted,
    Timeouts,
    TransportError,
)
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import TIMEOUTS
from tests.wire.faults_kit import KEY, SECRET, TEXT, guarded_rig, run
from tests.wire.raw_server import black_hole
from tests.wire.support import event


@pytest.fixture
def encrypted():
    """Plain sockets, unless a test says otherwise."""
    return False


@pytest.fixture
def emulator(encrypted, request):
    context = request.getfixturevalue("tls") if encrypted else None
    with Emulator(key=KEY, client_secret=SECRET, ssl_context=context) as running:
        yield running


@pytest.fixture
def rig(emulator, tmp_path, caplog):
    with guarded_rig(emulator, tmp_path, caplog) as rig:
        yield rig


def limits(error_type):
    """Short deadlines if one has to pass, else deadlines that a busy machine keeps as well."""
    return Timeouts(connect=20, first_token=0.3, idle=0.2) if error_type is DeadlineExceeded else TIMEOUTS


# --- before the first chunk: what fails, how, whether the same route is tried again, the type of the error

BEFORE = {
    "header_stall": ("stall", {}, False, DeadlineExceeded),
    "half_headers_fin": ("half_headers", {}, True, ProtocolError),
    "header_drip": ("drip_headers", {"interval": 0.05}, False, DeadlineExceeded),
    "fin_before_first_event": ("cut", {"after": 0}, True, TransportError),
    "cut_inside_event": ("cut", {"at": 40}, True, TransportError),
    "error_mid_stream_event k=0": ("error_event", {"code": 503}, True, ServerError),
    "error_mid_stream_plain k=0": ("error_json", {"code": 499}, True, ServerError),
    "invalid_json_event 1": ("garbage_event", {}, True, ProtocolError),
    "wrong_shape null": ("garbage_event", {"data": b"null"}, True, ProtocolError),
    "wrong_shape []": ("garbage_event", {"data": b"[]"}, False, ProtocolError),
    "wrong_shape 3": ("garbage_event", {"data": b"3"}, False, ProtocolError),
    "no chunk at all": ("empty", {}, True, ProtocolError),
    "pings alone": ("pings", {}, True, ProtocolError),
}
before = pytest.mark.parametrize(("kind", "arguments", "retried", "error_type"), BEFORE.values(), ids=BEFORE)


@before
def test_before_the_first_chunk__once(rig, emulator, kind, arguments, retried, error_type):
    emulator.oauth.fail(kind, **arguments)
    adapter, reply, texts, error = run(rig, timeouts=limits(error_type))
    assert ("".join(texts), error, type(reply.attempts[0].error)) == (TEXT, None, error_type)
    assert [attempt.route for attempt in reply.attempts] == ["oauth", "oauth" if retried else "api_key"]
    assert (adapter.fallback_active, len(rig.flips)) == (not retried, not retried)


@before
def test_before_the_first_chunk__always(rig, emulator, kind, arguments, retried, error_type):
    emulator.oauth.fail(kind, times=None, **arguments)
    adapter, reply, texts, error = run(rig, timeouts=limits(error_type))
    tries = 3 if retried else 1
    assert ("".join(texts), error) == (TEXT, None)
    assert [attempt.route for attempt in reply.attempts] == ["oauth"] * tries + ["api_key"]
    assert [type(attempt.error) for attempt in reply.attempts] == [error_type] * tries + [type(None)]
    assert [type(flip.error) for flip in rig.flips] == [error_type]
    assert adapter.generate("Again").route == "api_key"
    assert rig.counts == (tries, 2)


@pytest.mark.parametrize("times", [1, None])
def test_reset_before_headers(rig, emulator, times):
    """On a new connection; for a reused one see test_stale_keepalive."""
    emulator.api_key.fail("reset", times=times)
    _, reply, texts, error = run(rig, oauth_creds_path=None)
    outcomes = ["failed", "answered"] if times else ["failed"] * 3
    assert [attempt.outcome for attempt in reply.attempts] == outcomes
    assert ("".join(texts), type(error)) == ((TEXT, type(None)) if times else ("", TransportError))
    assert (rig.counts, emulator.connections_total) == ((0, len(outcomes)), len(outcomes))


def refused():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return gone.getsockname()[1]


@pytest.mark.parametrize("fault", ["connect_refused", "connect_blackhole"])
def test_connect(rig, emulator, fault):
    with black_hole() as hole:
        url = hole if fault == "connect_blackhole" else f"http://127.0.0.1:{refused()}"
        endpoints = Endpoints(gemini=emulator.url, code_assist=url, token=emulator.urls["token"])
        settings = {"endpoints": endpoints, "project": "a-project", "timeouts": Timeouts(connect=0.1, first_token=20)}
        adapter, reply, texts, error = run(rig, **settings)
        assert ("".join(texts), error, adapter.fallback_active) == (TEXT, None, True)
        assert [attempt.route for attempt in reply.attempts] == ["oauth"] * 3 + ["api_key"]
        _, reply, _, error = run(rig, **settings, api_key=None)
    expected = {"connect_refused": TransportError, "connect_blackhole": DeadlineExceeded}[fault]
    assert [type(attempt.error) for attempt in reply.attempts] == [expected] * 3
    assert getattr(error, "deadline", None) == {"connect_refused": None, "connect_blackhole": "connect"}[fault]


def test_stale_keepalive(rig, emulator):
    """The client cannot foresee it: the connection is reset as the second request arrives."""
    adapter = rig.adapter(project="a-project")
    emulator.oauth.fail("close_idle_then_reset")
    assert adapter.generate("First").text == default_text("First")
    connections = emulator.connections_total
    reply = adapter.generate("Second")
    assert (reply.text, reply.route, len(reply.attempts)) == (default_text("Second"), "oauth", 1)
    assert (connections, emulator.connections_total, rig.flips) == (1, 2, [])


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirect_cross_host(rig, emulator, code):
    with Emulator() as target:
        emulator.oauth.fail(code, headers={"Location": f"{target.url}/?{KEY}"})
        adapter, _, _, error = run(rig)
        assert (type(error), error.code, adapter.fallback_active) == (ProtocolError, code, False)
        assert "127.0.0.1" in str(error)
        assert (rig.counts, target.connections_total) == ((1, 0), 0)


# --- after the first chunk: what fails, how, the type of the cause and its code

AFTER = {
    "fin_after_k_events": ("cut", {}, TransportError, None),
    "rst_mid_stream": ("reset", {}, TransportError, None),
    "clean_end_no_finish": ("truncate", {}, type(None), None),
    "stall_mid_stream": ("stall", {}, DeadlineExceeded, None),
    "drip_forever": ("drip", {"interval": 0.05}, DeadlineExceeded, None),
    "error_mid_stream_plain": ("error_json", {"code": 499}, ServerError, 499),
    "error_mid_stream_event": ("error_event", {"code": 503}, ServerError, 503),
    "invalid_json_event": ("garbage_event", {"data": b"{bad"}, ProtocolError, None),
    "wrong_shape": ("garbage_event", {"data": b"3"}, ProtocolError, None),
}
PIECES = ["one", " two three", " four five six seven", " eight"]


@pytest.mark.parametrize(("after", "encrypted"), [(1, False), (2, True), (3, False)])
@pytest.mark.parametrize(("kind", "arguments", "cause", "code"), AFTER.values(), ids=AFTER)
def test_after_the_first_chunk(rig, emulator, caplog, kind, arguments, cause, code, after):
    emulator.oauth.answer(text="".join(PIECES))
    emulator.oauth.fail(kind, after=after, **arguments)
    adapter, _, texts, error = run(rig, timeouts=limits(cause))
    assert (texts, type(error), type(error.__cause__)) == (PIECES[:after], StreamInterrupted, cause)
    assert (error.partial.text, error.code, error.cancelled) == ("".join(texts), code, False)
    assert f"after {after} chunks" in str(error)
    assert [attempt.outcome for attempt in error.attempts] == ["interrupted"]
    assert (rig.counts, rig.flips, adapter.fallback_active) == ((1, 0), [], False)
    assert "{bad" not in caplog.text


# Only the framing can show a cut: a body that ends with the connection looks whole.
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize(
    ("framing", "cause"),
    [("close", type(None)), ("length", TransportError)],
    ids=["tls_eof_no_close_notify", "content_length_short"],
)
def test_framing_of_a_cut_body(rig, emulator, framing, cause):
    emulator.oauth.answer(text="".join(PIECES), framing=framing)
    emulator.oauth.fail("cut", after=2)
    _, _, texts, error = run(rig)
    assert (texts, type(error), type(error.__cause__)) == (PIECES[:2], StreamInterrupted, cause)
    assert rig.counts == (1, 0)


def test_clean_end_no_finish__when_that_is_allowed(rig, emulator):
    emulator.oauth.fail("truncate", after=2)
    _, reply, texts, error = run(rig, require_finish=False)
    assert (len(texts), error, reply.finish_reason) == (2, None, None)


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
@pytest.mark.parametrize("truncate", [False, True])
def test_gzip_stream(rig, emulator, framing, truncate):
    emulator.oauth.answer(text="".join(PIECES), framing=framing)
    emulator.oauth.fail("gzip", truncate=truncate)
    _, _, texts, error = run(rig)
    if truncate:
        assert (texts, type(error)) == (PIECES[:2], StreamInterrupted)
    else:
        assert (texts, error) == (PIECES, None)


def test_gzip_stream__its_last_bytes_are_missing(rig, emulator):
    """All events are there with the finish reason; only the end marker of gzip is missing."""
    packed = gzip.compress(event("one") + event(" two", "STOP"))
    emulator.api_key.answer(body=packed[:-6], pieces=len(packed), headers={"Content-Encoding": "gzip"})
    _, _, texts, error = run(rig, oauth_creds_path=None)
    assert (type(error), type(error.__cause__)) == (StreamInterrupted, ProtocolError)
    assert texts == ["one", " two"]
