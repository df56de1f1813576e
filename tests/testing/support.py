"""Requests to the emulator as a plain HTTP client and a plain socket send them."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import urllib.parse
from types import SimpleNamespace

MODEL = "/v1beta/models/gemini-3.5-flash"
STREAM = MODEL + ":streamGenerateContent?alt=sse"
OAUTH_STREAM = "/v1internal:streamGenerateContent?alt=sse"
PROMPT = {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]}
WRAPPED = {"model": "gemini-3-flash", "project": "p", "request": PROMPT}
BODY = json.dumps(PROMPT).encode()
#: A body to script, as a list of its events.
EVENTS = [b'data: {"n": 1}\r\n\r\n', b'data: {"n": 2}\r\n\r\n', b'data: {"n": 3}\r\n\r\n']
TIMEOUT = 10

# --- an HTTP client


def connect(emulator):
    return http.client.HTTPConnection(urllib.parse.urlsplit(emulator.url).netloc, timeout=TIMEOUT)


def start(client, path=STREAM, **headers):
    """Send a request with the API key, and leave the response to the test."""
    client.request("POST", path, BODY, {"x-goog-api-key": "emulator-api-key", **headers})


def send(emulator, method, path, body=None, headers=None):
    """The status and headers of the response, and its content as JSON, or as bytes if it is not JSON."""
    with contextlib.closing(connect(emulator)) as client:
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        client.request(method, path, data, headers or {})
        response = client.getresponse()
        content = response.read()
    with contextlib.suppress(ValueError):
        content = json.loads(content)
    return SimpleNamespace(status=response.status, headers=response.headers, content=content)


def ask(emulator, path=STREAM, body=PROMPT):
    return send(emulator, "POST", path, body, {"x-goog-api-key": "emulator-api-key"})


def ask_oauth(emulator, path=OAUTH_STREAM, body=WRAPPED, token=None):
    headers = {"Authorization": f"Bearer {token or emulator.issue_token()}"}
    return send(emulator, "GET" if body is None else "POST", path, body, headers)


def events(content):
    """The values of the events in a body that Google's servers could have sent."""
    assert content.endswith(b"\r\n\r\n")
    return [json.loads(event.removeprefix(b"data: ")) for event in content[:-4].split(b"\r\n\r\n")]


def text_of(content):
    """The text of an answer, which is a body of events or a list of chunks."""
    chunks = events(content) if isinstance(content, bytes) else content
    return "".join(part["text"] for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"])


# --- a socket


def dial(emulator):
    address = urllib.parse.urlsplit(emulator.url)
    return socket.create_connection((address.hostname, address.port), TIMEOUT)


def raw_request(path=STREAM, body=BODY, headers=b""):
    lines = b"POST %b HTTP/1.1\r\nx-goog-api-key: emulator-api-key\r\nContent-Length: %d\r\n%b\r\n%b"
    return lines % (path.encode(), len(body), headers, body)


def read_until(client, mark):
    received = b""
    while mark not in received:
        data = client.recv(65536)
        assert data, f"closed before {mark!r}: {received!r}"
        received += data
    return received


def receive(emulator, **arguments):
    """Head and raw body of one response, read until the server closes."""
    with dial(emulator) as client:
        client.sendall(raw_request(headers=b"Connection: close\r\n", **arguments))
        with client.makefile("rb") as reader:
            head, _, body = reader.read().partition(b"\r\n\r\n")
    return head.decode(), body


def chunked(*events, end=True):
    """Events as they are sent with ``Transfer-Encoding: chunked``."""
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + (b"0\r\n\r\n" if end else b"")
