"""The server of the benchmark, which runs in its own process and sends canned bytes as cheaply as Python can.

``python -m tests.benchmark.server [CERTIFICATE]`` prints its port and serves each connection in a thread, with TLS if
there is a certificate. It ends at the end of its standard input.
"""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from tests.benchmark.payload import answer_named, framed_events

_ROOT = Path(__file__).resolve().parents[2]
_PACE_SECONDS = 0.001
# The headers that Google sends, because parsing them is part of the cost of a call.
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Disposition: attachment\r\n"
    b"Vary: Origin\r\nVary: X-Origin\r\nVary: Referer\r\nTransfer-Encoding: chunked\r\n"
    b"Date: Sat, 01 Nov 2025 12:00:00 GMT\r\nServer: scaffolding on HTTPServer2\r\nX-XSS-Protection: 0\r\n"
    b"X-Frame-Options: SAMEORIGIN\r\nX-Content-Type-Options: nosniff\r\nServer-Timing: gfet4t7; dur=400\r\n\r\n"
)
_END = b"0\r\n\r\n"
_ACCOUNT = b'{"currentTier": {"id": "standard-tier"}, "cloudaicompanionProject": "a-project"}'
_ACCOUNT_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_ACCOUNT)
_MODEL_IN_PATH = re.compile(rb"/models/([\w-]+):")
_MODEL_IN_BODY = re.compile(rb'"model": ?"([\w-]+)"')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@functools.lru_cache(maxsize=64)
def _body(name: str, wrapped: bool) -> list[bytes]:
    """The bytes after the headers, in as few pieces as the pace and the memory allow."""
    answer = answer_named(name)
    events = framed_events(answer, wrapped)
    if answer.pace == "burst" and len(events) == answer.events:
        return [b"".join(events) + _END]
    return [*events, _END]


def _request(sock: socket.socket, received: bytes) -> tuple[bytes, bytes, bytes]:
    """The head and the body of the next request, and the bytes after it; the head is empty at the end."""
    while b"\r\n\r\n" not in received:
        data = sock.recv(65536)
        if not data:
            return b"", b"", b""
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    size = int(length[1]) if length is not None else 0
    while len(rest) < size:
        rest += sock.recv(65536)
    return head, rest[:size], rest[size:]


def _answer(sock: socket.socket, head: bytes, body: bytes) -> None:
    if b":loadCodeAssist " in head:
        sock.sendall(_ACCOUNT_HEAD + _ACCOUNT)
        return
    in_path = _MODEL_IN_PATH.search(head)
    found = in_path or _MODEL_IN_BODY.search(body)
    assert found is not None, head
    name = found[1].decode()
    parts = _body(name, in_path is None)
    if name.endswith("-burst"):
        sock.sendall(_HEAD + parts[0])
        for part in parts[1:]:
            sock.sendall(part)
    elif name.endswith("-paced"):
        sock.sendall(_HEAD)
        due = time.monotonic()
        for part in parts:
            due += _PACE_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
            sock.sendall(part)
    else:  # silent, until the client closes the connection
        sock.sendall(_HEAD + parts[0])
        sock.recv(1)


def _serve(sock: socket.socket, context: Optional[ssl.SSLContext]) -> None:
    with contextlib.suppress(OSError):  # some readers close the connection early
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True)
        with sock:
            rest = b""
            while True:
                head, body, rest = _request(sock, rest)
                if not head:
                    return
                _answer(sock, head, body)


def _accept(listener: socket.socket, context: Optional[ssl.SSLContext]) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_serve, args=(sock, context), daemon=True).start()


def main(certificate: Optional[str] = None) -> None:
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        threading.Thread(target=_accept, args=(listener, context), daemon=True).start()
        print(listener.getsockname()[1], flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def running(certificate: Optional[Path] = None) -> Iterator[str]:
    """The base URL of a server that runs in its own process."""
    command = [sys.executable, "-m", "tests.benchmark.server", *([str(certificate)] if certificate else [])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_ROOT, text=True, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            yield f"http://127.0.0.1:{port}" if certificate is None else f"https://localhost:{port}"
        finally:
            process.stdin.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
