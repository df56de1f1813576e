"""Each failure that can be scripted, byte by byte, as a plain socket receives it."""

from __future__ import annotations

import json
import re
import threading
import zlib

import pytest

from tests.testing.support import EVENTS, TIMEOUT, chunked, dial, raw_request, read_until, receive


@pytest.fixture
def emulator(emulator):
    emulator.api_key.answer(body=b"".join(EVENTS))
    return emulator


def error_of(body):
    return json.loads(body)["error"]


# --- statuses


def test_status__every_detail(emulator):
    emulator.api_key.fail(
        429,
        status="MINE",
        message="Slow down",
        reason="RATE_LIMIT_EXCEEDED",
        domain="here",
        metadata={"a": "b"},
        quota_id="PerDay",
        link="https://example.com/help",
        retry_delay="2s",
        details=[{"@type": "own"}],
        headers={"Retry-After": "2", "Set-Cookie": "a=b"},
    )
    head, body = receive(emulator)
    error = error_of(body)
    assert head.startswith("HTTP/1.1 429 Too Many Requests\r\n")
    assert "Retry-After: 2" in head
    assert (error["code"], error["status"], error["message"]) == (429, "MINE", "Slow down")
    info, quota, link, delay, own = error["details"]
    assert (info["reason"], info["domain"], info["metadata"]) == ("RATE_LIMIT_EXCEEDED", "here", {"a": "b"})
    assert quota["violations"][0]["quotaId"] == "PerDay"
    assert link["links"][0]["url"] == "https://example.com/help"
    assert delay["retryDelay"] == "2s"
    assert own == {"@type": "own"}


def test_status__plain_array_body_and_redirect(emulator):
    emulator.api_key.fail(503)
    emulator.api_key.fail(599, as_array=True)
    emulator.api_key.fail(502, body=b"<html>", content_type="text/html")
    emulator.api_key.fail(307, headers={"Location": "http://127.0.0.1:1/"})
    assert error_of(receive(emulator)[1]) == {
        "code": 503,
        "message": "Service Unavailable",
        "status": "UNAVAILABLE",
    }
    head, body = receive(emulator)
    assert head.startswith("HTTP/1.1 599 Unknown\r\n")
    assert json.loads(body)[0]["error"]["code"] == 599
    head, body = receive(emulator)
    assert "Content-Type: text/html" in head
    assert body == b"<html>"
    assert "Location: http://127.0.0.1:1/" in receive(emulator)[0]


def test_status__of_the_token_endpoint(emulator):
    emulator.token.fail(400, error="invalid_grant", error_subtype="invalid_rapt", description="Log in")
    emulator.token.fail(503, error="temporarily_unavailable")
    rapt, down = (json.loads(receive(emulator, path="/token", body=b"")[1]) for _ in range(2))
    assert rapt == {"error": "invalid_grant", "error_description": "Log in", "error_subtype": "invalid_rapt"}
    assert down == {"error": "temporarily_unavailable"}


def test_status__does_not_do_what_was_asked(emulator):
    emulator.tier = None
    emulator.onboard.fail(503)
    token = emulator.issue_token()
    authorization = f"Authorization: Bearer {token}\r\nConnection: close\r\n".encode()
    with dial(emulator) as client, client.makefile("rb") as reader:
        lines = raw_request("/v1internal:onboardUser", b'{"tierId": "free-tier"}', authorization)
        client.sendall(lines.replace(b"x-goog-api-key", b"x"))
        assert b" 503 " in reader.read()
    assert emulator.tier is None


def test_fail__unknown_kind_and_arguments(emulator):
    with pytest.raises(ValueError, match="no fault 'melt'"):
        emulator.api_key.fail("melt")
    with pytest.raises(TypeError):
        emulator.api_key.fail("reset", colour="red")
    with pytest.raises(TypeError):
        emulator.api_key.fail(503, colour="red")


# --- connections that break


@pytest.mark.parametrize("after", [None, 2])
def test_reset(emulator, after):
    gate = threading.Event()
    emulator.api_key.answer(body=b"".join(EVENTS), pace=lambda i: i < 2 or gate.wait(TIMEOUT))
    emulator.api_key.fail("reset", after=after)
    with dial(emulator) as client:
        client.sendall(raw_request())
        if after:
            assert chunked(*EVENTS[:2], end=False) in read_until(client, EVENTS[1] + b"\r\n")
        gate.set()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert len(emulator.api_key.requests) == 1


def test_cut__after_events(emulator):
    emulator.api_key.fail("cut", after=2)
    assert receive(emulator)[1] == chunked(*EVENTS[:2], end=False)


def test_cut__of_a_body_with_a_length(emulator):
    emulator.api_key.answer(body=b"".join(EVENTS), framing="length")
    emulator.api_key.fail("cut", after=1)
    head, body = receive(emulator)
    assert f"Content-Length: {len(b''.join(EVENTS))}" in head
    assert body == EVENTS[0]


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_cut__at_each_byte(emulator, framing):
    whole = b"".join(EVENTS)
    emulator.api_key.answer(body=whole, framing=framing)
    for at in range(len(whole) + 1):
        emulator.api_key.fail("cut", at=at)
        body = receive(emulator)[1]
        if framing == "chunked":
            assert not body.endswith(chunked())
            body = b"".join(re.split(rb"\A12\r\n|\r\n12\r\n", body))  # 18 bytes each
            body = body[:-2] if at == len(whole) else body
        assert body == whole[:at]


def test_stall__until_the_client_goes(emulator):
    emulator.api_key.fail("stall")
    emulator.api_key.fail("stall", after=1)
    with dial(emulator) as client:
        client.sendall(raw_request())
        assert emulator.api_key.wait_for(1)
        client.sendall(b"more")
    assert emulator.wait_closed()
    with dial(emulator) as client:
        client.sendall(raw_request())
        assert read_until(client, EVENTS[0]).startswith(b"HTTP/1.1 200 OK")
    assert emulator.wait_closed()


def test_half_headers(emulator):
    emulator.api_key.fail("half_headers")
    assert receive(emulator) == ("HTTP/1.1 200 OK\r\nContent-Type: text/event-st", b"")


def test_drips__until_the_client_goes_or_the_emulator_stops(emulator):
    emulator.api_key.fail("drip_headers", interval=0.001)
    emulator.api_key.fail("drip", after=1, interval=0.001, data=b"tick")
    emulator.api_key.fail("drip", interval=60)
    with dial(emulator) as client:
        client.sendall(raw_request())
        assert read_until(client, b"xxx").startswith(b"HTTP/1.1 200 OK\r\nX-Drip: xx"[:25])
    with dial(emulator) as client:
        client.sendall(raw_request())
        assert chunked(EVENTS[0], end=False) in read_until(client, chunked(b"tick", b"tick", end=False))
    with dial(emulator) as client:
        client.sendall(raw_request())
        read_until(client, chunked(b":", end=False))
        emulator.stop()
        assert client.recv(1) == b""


def test_endless_error(emulator):
    emulator.api_key.fail("endless_error", code=502)
    with dial(emulator) as client:
        client.sendall(raw_request())
        received = 0
        while received < 2**20:
            received += len(client.recv(65536))
    assert emulator.wait_closed()


def test_close_idle_then_reset(emulator):
    emulator.api_key.fail("close_idle_then_reset")
    with dial(emulator) as client:
        client.sendall(raw_request())
        assert read_until(client, b"0\r\n\r\n").endswith(chunked(*EVENTS))
        client.sendall(raw_request())
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert receive(emulator)[1] == chunked(*EVENTS)
    assert len(emulator.api_key.requests) == 2


# --- bodies that are wrong


@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        ("truncate", {"after": 2}, EVENTS[:2]),
        ("pings", {}, [b": ping\r\n\r\n"] * 3),
        ("empty", {}, []),
        ("garbage_event", {"after": 1}, [EVENTS[0], b"data: {bad\r\n\r\n"]),
        ("garbage_event", {"data": b"null"}, [b"data: null\r\n\r\n"]),
    ],
)
def test_body__changed(emulator, kind, arguments, expected):
    emulator.api_key.fail(kind, **arguments)
    head, body = receive(emulator)
    assert head.startswith("HTTP/1.1 200 OK")
    assert "Content-Type: text/event-stream" in head
    assert body == chunked(*expected)


def test_error_event(emulator):
    emulator.api_key.fail("error_event", after=1, code=429, reason="QUOTA_EXHAUSTED")
    body = receive(emulator)[1]
    assert body.startswith(chunked(EVENTS[0], end=False))
    error = error_of(re.search(rb"data: (.*\"error\".*)\r\n", body)[1])
    assert (error["code"], error["details"][0]["reason"]) == (429, "QUOTA_EXHAUSTED")


@pytest.mark.parametrize("as_array", [False, True])
def test_error_json(emulator, as_array):
    emulator.api_key.fail("error_json", after=1, code=499, as_array=as_array)
    body = receive(emulator)[1]
    assert body.startswith(chunked(EVENTS[0], end=False))
    text = body.split(b"\r\n", 5)[5].removesuffix(b"\r\n0\r\n\r\n")
    assert text.count(b"\n") > 3
    value = json.loads(text)
    assert (value[0] if as_array else value)["error"]["status"] == "CANCELLED"


def test_html(emulator):
    emulator.api_key.fail("html")
    emulator.api_key.fail("html", code=502)
    answers = [receive(emulator) for _ in range(2)]
    assert [head.split()[1] for head, _ in answers] == ["200", "502"]
    assert all("text/html" in head and b"<html>" in body for head, body in answers)


@pytest.mark.parametrize("truncate", [False, True])
def test_gzip(emulator, truncate):
    emulator.api_key.answer(body=b"".join(EVENTS), framing="close")
    emulator.api_key.fail("gzip", truncate=truncate)
    head, body = receive(emulator)
    assert "Content-Encoding: gzip" in head
    unpacker = zlib.decompressobj(wbits=31)
    assert unpacker.decompress(body) == b"".join(EVENTS[:1] if truncate else EVENTS)
    assert unpacker.eof is not truncate
