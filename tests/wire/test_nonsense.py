"""Responses that are no HTTP: the error says what was wrong with them."""

from __future__ import annotations

import pytest

from gemini_sync import TransportError
from tests.wire.raw_server import RawServer
from tests.wire.support import ONCE, ask, drain

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (OK + b"X-Long: " + b"x" * 70_000, "LineTooLong: got more than 65536 bytes when reading header line)"),
        (OK + b"X-More: 1\r\n" * 200 + b"\r\n", "HTTPException: got more than 100 headers)"),
        (b"SSH-2.0-OpenSSH_9.9 a-key\r\n", "BadStatusLine: SSH-2.0-OpenSSH_9.9 [redacted]"),
        (b"HTTP/3.0 200 OK\r\n\r\n", "UnknownProtocol: HTTP/3.0)"),
        (b"x" * 60_000 + b"\r\n", "BadStatusLine: xxxx"),
    ],
    ids=["long line", "many headers", "other protocol", "other version", "long status line"],
)
def test_response__that_makes_no_sense_is_named(context, answer, said):
    """In the words of http.client, without a secret, and cut to a length."""

    def script(peer):
        peer.read_request()
        peer.send(answer)
        peer.wait_gone()

    with RawServer(script, tls=context) as server:
        _, error = drain(ask(server.url, retry=ONCE))
    assert type(error) is TransportError
    assert f"failed: the response ended early or made no sense ({said}" in str(error)
    assert len(str(error)) < 700


def test_response__whose_last_line_is_too_long(context):
    def script(peer):
        peer.read_request()
        peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 70_000)
        peer.wait_gone()

    with RawServer(script, tls=context) as server:
        _, error = drain(ask(server.url, retry=ONCE))
    assert "(LineTooLong: got more than 65536 bytes when reading chunk size)" in str(error)
