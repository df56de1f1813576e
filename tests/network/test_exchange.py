"""Responses: redirects that stay unread, compressed bodies, error bodies within their limits."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
import requests

from gemini_sync import (
    DeadlineExceeded,
    InvalidRequestError,
    ProtocolError,
    QuotaError,
    ServerError,
    StreamInterrupted,
    Timeouts,
)
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Rig
from tests.network.transport_kit import Canned, Pieces, endless, mocked
from tests.wire.raw_server import RawServer
from tests.wire.support import ONCE, ask, drain, event, watchdog

TEXT = default_text("Why?")
ANSWER = event("one ") + event("two", "STOP")
LOCATIONS = ["https://evil.example/x", "http://[::1", "\xff", "//", "", None]


# --- redirects


@pytest.mark.parametrize(
    ("code", "location", "operation"),
    [
        *((code, LOCATIONS[0], "stream") for code in (300, 301, 302, 303, 304, 305, 307, 308, 399)),
        *((code, location, "stream") for code in (304, 307) for location in LOCATIONS[1:]),
        *((307, location, "count_tokens") for location in LOCATIONS[:2]),
    ],
)
def test_redirect__body_is_not_read(code, location, operation):
    reads = []
    headers = {} if location is None else {"Location": location}
    canned = Canned(lambda: Pieces(endless(b"x" * 1000), lambda: reads.append(1)), code, headers)
    with mocked(session_factory=canned.session) as adapter, pytest.raises(ProtocolError) as caught:
        list(adapter.stream("Why?")) if operation == "stream" else adapter.count_tokens("Why?")
    assert (caught.value.code, len(caught.value.attempts), len(canned.sent)) == (code, 1, 1)
    host = "evil.example" if location == LOCATIONS[0] else "nowhere"
    assert f"answered {code}, a redirect to {host};" in str(caught.value)
    assert reads == []


@pytest.mark.parametrize("location", [b"https://evil.example/x", b"http://[::1", b"/\xff"])
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("body", ["endless", "stalled"])
def test_redirect__whatever_its_body_does(code, location, body):
    def script(peer):
        peer.read_request()
        length = b"Content-Length: 1000\r\n" if body == "stalled" else b""
        peer.send(b"HTTP/1.1 %d Moved\r\nLocation: %b\r\n%b\r\n" % (code, location, length))
        while body == "endless":
            peer.send(b"x" * 65536)
        peer.wait_gone()

    with RawServer(script) as server:
        reply = ask(server.url)
        with watchdog(reply.cancel):
            _, error = drain(reply)
        assert (type(error), error.code, len(server.peers), len(error.attempts)) == (ProtocolError, code, 1, 1)


@pytest.mark.parametrize("location", ["http://[::1", b"\xff".decode("latin-1")])
@pytest.mark.parametrize("script", ["oauth", "load_code_assist"])
def test_redirect__without_a_target_is_refused_and_does_not_fall_back(emulator, tmp_path, location, script):
    getattr(emulator, script).fail(307, headers={"Location": location})
    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter()
        _, error = drain(adapter.stream("Why?"))
        assert (type(error), error.code, "to nowhere" in str(error)) == (ProtocolError, 307, True)
        assert (adapter.fallback_active, rig.flips, rig.slept) == (False, [], [])


def test_redirect__hooks_of_the_callers_session_still_run(emulator, tmp_path):
    seen = []

    def session():
        made = requests.Session()
        made.hooks["response"].append(lambda response, **_: seen.append(response.status_code))
        return made

    with Rig(emulator, tmp_path) as rig:
        assert rig.adapter(oauth_creds_path=None, session_factory=session).generate("Why?").text == TEXT
    assert seen == [200]


# --- compressed bodies


def compressed(kind):
    half = len(ANSWER) // 2
    return {
        "one member": gzip.compress(ANSWER),
        "two members": gzip.compress(ANSWER[:half]) + gzip.compress(ANSWER[half:]),
        "an empty member": gzip.compress(b"") + gzip.compress(ANSWER) + gzip.compress(b""),
        "padded": gzip.compress(ANSWER) + b"\0" * 1000,
        "zlib": zlib.compress(ANSWER),
    }[kind]


@pytest.mark.parametrize("pieces", [10**6, 7, 1])
@pytest.mark.parametrize("kind", ["one member", "two members", "an empty member", "padded", "zlib"])
def test_compressed__is_whole(emulator, kind, pieces):
    encoding = "deflate" if kind == "zlib" else "gzip"
    emulator.api_key.answer(body=compressed(kind), headers={"Content-Encoding": encoding}, pieces=pieces)
    reply = ask(emulator, retry=ONCE)
    assert ("".join(reply), reply.finish_reason) == ("one two", "STOP")
    assert "".join(ask(emulator)) == "one two"


@pytest.mark.parametrize("encoding", ["Identity", " IDENTITY ", "", "GZip", " X-GZIP "])
def test_encoding__in_any_spelling(emulator, encoding):
    body = gzip.compress(ANSWER) if "gzip" in encoding.lower() else ANSWER
    emulator.api_key.answer(body=body, headers={"Content-Encoding": encoding})
    assert "".join(ask(emulator, retry=ONCE)) == "one two"


@pytest.mark.parametrize("kind", ["one member", "two members", "zlib"])
def test_compressed__cut_off_or_damaged(emulator, kind):
    """Wherever the damage is, the text before it is kept, and the answer never looks complete."""
    whole = compressed(kind)
    headers = {"Content-Encoding": "deflate" if kind == "zlib" else "gzip"}
    damaged = [
        whole[:0],
        whole[:-1],
        whole[: len(whole) // 2],
        whole[:-4] + b"!?!?",
        whole[: len(whole) // 2] + b"\xff" * 20 + whole[len(whole) // 2 + 20 :],
        b"\x00" + whole,
        whole + b"rest",
    ]
    for body in damaged:
        emulator.api_key.answer(body=body, headers=headers, times=1)
        _, error = drain(ask(emulator, retry=ONCE))
        told = error.__cause__ if isinstance(error, StreamInterrupted) else error
        assert type(told) is ProtocolError, body
        assert "The compressed body " in str(told)


def test_compressed__error_body_is_read_as_far_as_possible(emulator):
    body = b'{"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}'
    packed = gzip.compress(body[:20]) + gzip.compress(body[20:])
    for sent, said in ((packed, "503 UNAVAILABLE: busy"), (packed[:-30], "503"), (b"\x00" + packed, "503")):
        emulator.api_key.fail(503, body=sent, headers={"Content-Encoding": "gzip"})
        _, error = drain(ask(emulator, retry=ONCE))
        assert (type(error), error.code) == (ServerError, 503)
        assert said in str(error)


# --- deadlines


@pytest.mark.parametrize(
    ("timeouts", "reads"),
    [
        (Timeouts(first_token=None), 5),
        (Timeouts(first_token=60), 5),
        (Timeouts(first_token=2.5), 3),
        (Timeouts(first_token=None, total=60), 5),
    ],
)
def test_error_body__is_read_for_five_seconds_or_until_first_token(timeouts, reads):
    """The body never ends, and each piece takes a second. The error quotes what came in time."""
    now, came = [0.0], []

    def pass_time():
        now[0] += 1.0
        came.append(now[0])

    canned = Canned(lambda: Pieces(endless(b"busy "), pass_time), 503)
    with mocked(session_factory=canned.session, timeouts=timeouts, clock=lambda: now[0], retry=ONCE) as adapter:
        _, error = drain(adapter.stream("Why?"))
    assert (type(error), error.code, len(came)) == (ServerError, 503, reads)
    assert " ".join(["busy"] * reads) + "." in str(error)


def test_error_body__total_ends_the_call():
    now = [0.0]

    def pass_time():
        now[0] += 1.0

    canned = Canned(lambda: Pieces(endless(b"busy "), pass_time), 503)
    limits = Timeouts(first_token=60, total=2.5)
    with mocked(session_factory=canned.session, timeouts=limits, clock=lambda: now[0]) as adapter:
        _, error = drain(adapter.stream("Why?"))
    assert (type(error), error.deadline, error.seconds, now) == (DeadlineExceeded, "total", 2.5, [3.0])


def test_total__that_passes_while_the_request_is_prepared(emulator):
    """requests refuses a timeout of 0 with a ValueError."""
    now = [0.0]

    class Session(requests.Session):
        def merge_environment_settings(self, *args):
            now[0] += 5.0
            return super().merge_environment_settings(*args)

    transport, call = Transport(Session), Call(Timeouts(total=5.0), clock=lambda: now[0]).start()
    with pytest.raises(DeadlineExceeded) as caught:
        transport.send(call, "POST", emulator.url + "/any", {}, b"{}")
    assert caught.value.seconds == 5.0
    assert emulator.connections_total == 0
    transport.close()


# --- the bodies of errors

EXHAUSTED = {
    "error": {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "message": "Come back later.",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "QUOTA_EXHAUSTED"}],
    }
}
ERROR_BODIES = {
    "plain": json.dumps(EXHAUSTED).encode(),
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(EXHAUSTED).encode(),
    "array": json.dumps([EXHAUSTED]).encode(),
    "event": b"data: " + json.dumps(EXHAUSTED).encode() + b"\r\n\r\n",
    "event of many lines": b"data: " + json.dumps(EXHAUSTED, indent=1).replace("\n", "\ndata: ").encode() + b"\n\n",
    "event with a type": b"event: error\ndata:" + json.dumps(EXHAUSTED).encode() + b"\n\n",
    "event and an end": b"data: " + json.dumps(EXHAUSTED).encode() + b"\n\ndata: [DONE]\n\n",
    "event with odd line ends in a string": b"data: " + json.dumps(EXHAUSTED).replace("later", "\u2028 \x85").encode(),
    "large": json.dumps({"error": {**EXHAUSTED["error"], "message": "x" * 100_000}}).encode(),
}


@pytest.mark.parametrize("operation", ["stream", "count_tokens"])
@pytest.mark.parametrize("body", ERROR_BODIES.values(), ids=ERROR_BODIES)
def test_error_body__is_understood(emulator, tmp_path, body, operation):
    emulator.api_key.fail(429, body=body, times=None)
    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter(oauth_creds_path=None)
        with pytest.raises(QuotaError) as caught:
            list(adapter.stream("Why?")) if operation == "stream" else adapter.count_tokens("Why?")
    assert (caught.value.reason, len(emulator.api_key.requests)) == ("QUOTA_EXHAUSTED", 1)
    assert len(str(caught.value)) < 10_200


def test_error_body__sends_no_control_characters_to_a_terminal(emulator):
    emulator.api_key.fail(400, message="bad \x1b]0;owned\x07field\x1b[2J\r\nhere", status="\x1b[1mODD")
    with pytest.raises(InvalidRequestError) as caught:
        list(ask(emulator))
    assert str(caught.value) == "400 [1mODD: bad ]0;owned field [2J here. Change the request."
