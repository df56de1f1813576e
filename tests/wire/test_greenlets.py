"""Calls in greenlets of gevent and eventlet, in child processes, because both patch the standard library for good."""

from __future__ import annotations

import importlib.util
import threading

import pytest

from gemini_sync.testing.emulator import default_text
from tests.support import python_child
from tests.wire.raw_server import EVENT_STREAM, SECONDS, RawServer, black_hole
from tests.wire.support import event

LIBRARIES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None, reason=f"{name} is not installed; tox -e greenlets installs it"
        ),
    )
    for name in ("gevent", "eventlet")
]
pytestmark = pytest.mark.parametrize("library", LIBRARIES)


def run(library, situation, server, *, when="early", until=lambda: True):
    """What the child printed; ``until`` returns when the child may go on from a wait of its own."""
    url, key = (server, "a-key") if isinstance(server, str) else (server.url, server.key)
    arguments = ("-W", "ignore", "-m", "tests.wire.greenlet_child", library, when, situation, url, key)
    with python_child(*arguments) as child:
        assert until()
        said, complaints = child.communicate("go on\n")
    assert child.returncode == 0, complaints
    return said.splitlines()


def test_greenlets__twenty_at_once(server, library):
    """The server answers none of the first twenty before it has all of them, so no call blocks the others."""
    meet = threading.Barrier(20)
    server.api_key.before = lambda: meet.wait(SECONDS)
    expected = [repr(default_text(f"{turn} {number}")) for turn in range(2) for number in range(20)]
    assert run(library, "many", server) == expected


def test_greenlets__patched_after_the_import(emulator, library):
    """Only without TLS, because urllib3 itself does not work if ssl is patched after its import."""
    meet = threading.Barrier(20)
    emulator.api_key.before = lambda: meet.wait(SECONDS)
    expected = [repr(default_text(f"{turn} {number}")) for turn in range(2) for number in range(20)]
    assert run(library, "many", emulator, when="late") == expected


@pytest.mark.parametrize("when", ["early", "late"])
def test_greenlets__each_sends_for_its_own_call(library, when):
    assert run(library, "own calls", "http://127.0.0.1:9", when=when) == ["[True, True]"]


@pytest.mark.parametrize("end", ["cancel", "close reply", "close adapter"])
def test_greenlets__another_ends_a_blocked_read(server, library, end):
    server.api_key.answer(body=event("one") * 2)
    server.api_key.fail("stall", after=1)
    [said] = run(library, end, server)
    assert said.startswith("one|StreamInterrupted|True|")
    assert server.wait_closed()


def test_greenlets__cancel_while_waiting_for_headers(server, library):
    server.api_key.fail("stall")
    [said] = run(library, "cancel at once", server, until=lambda: server.api_key.wait_for(1))
    assert said.startswith("|StreamInterrupted|True|")


def test_greenlets__cancel_in_the_handshake(tls, library):
    asked = threading.Event()

    def script(peer):
        assert peer.socket.recv(65536)
        asked.set()
        peer.wait_gone()

    with RawServer(script) as silent:
        url = silent.url.replace("http:", "https:")
        [said] = run(library, "cancel at once", url, until=lambda: asked.wait(SECONDS))
    assert said.startswith("|StreamInterrupted|True|")


def test_greenlets__cancel_in_the_sleep_between_retries(emulator, library):
    emulator.api_key.fail(503, times=None)
    [said] = run(library, "cancel asleep", emulator, until=lambda: emulator.api_key.wait_for(1))
    assert said.startswith("|StreamInterrupted|True|")


def test_greenlets__cancel_while_connecting(library):
    with black_hole() as url:
        [said] = run(library, "cancel connecting", url)
    assert said.startswith("|StreamInterrupted|True|")


@pytest.mark.parametrize("name", ["first_token", "total"])
def test_greenlets__deadline_before_the_first_chunk(server, library, name):
    server.api_key.fail("stall")
    [said] = run(library, name, server)
    assert f"|DeadlineExceeded|False|The {name} deadline passed" in said


def test_greenlets__deadline_while_bytes_drip(context, library):
    def script(peer):
        peer.read_request()
        peer.send(EVENT_STREAM + b"\r\n" + event("one"))
        while True:
            peer.send(b": still here\r\n\r\n")
            peer.pause(0.01)

    with RawServer(script, tls=context) as server:
        [said] = run(library, "idle", server.url)
    assert said.startswith("one|StreamInterrupted|False|The idle deadline passed")


def test_greenlets__deadline_of_a_connection(library):
    with black_hole() as url:
        [said] = run(library, "connect", url)
    assert "|DeadlineExceeded|False|The connect deadline passed" in said
