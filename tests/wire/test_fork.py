"""A child process has connections and locks of its own: no answer meant for the parent, no wait for its threads."""

from __future__ import annotations

import os
import threading

import pytest

from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Rig
from tests.support import in_child
from tests.wire.raw_server import SECONDS
from tests.wire.support import PATIENT, drain

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def test_fork__with_an_idle_connection(server, tmp_path):
    with Rig(server, tmp_path) as rig:
        adapter = rig.adapter()
        adapter.generate("Before")
        result = in_child(lambda: "|".join(adapter.generate(f"Child {n}").text for n in range(20)))
        ours = [adapter.generate(f"Parent {n}").text for n in range(20)]
        assert result() == "|".join(default_text(f"Child {n}") for n in range(20))
        assert ours == [default_text(f"Parent {n}") for n in range(20)]
    connections = {}
    for request in server.oauth.requests:
        connections.setdefault(request.connection, set()).add("Child" in request.body.decode())
    assert sorted(connections.values(), key=str) == [{False}, {True}]


def test_fork__with_a_stream_half_read(server, tmp_path):
    """The child drops its copy; the parent reads on."""
    gate = threading.Event()
    server.oauth.answer(text="one two three", pace=lambda index: index and gate.wait(SECONDS))
    with Rig(server, tmp_path) as rig:
        adapter = rig.adapter()
        reply = adapter.stream("Why?")
        texts = [next(reply)]

        def close_and_ask():
            reply.close()
            server_answer = adapter.generate("Child", model="other")
            return server_answer.text

        server.oauth.answer(text="for the child", model="other")
        assert in_child(close_and_ask)() == "for the child"
        gate.set()
        texts += reply
    assert "".join(texts) == "one two three"


def test_fork__child_that_closes_the_adapter_leaves_the_parents_stream_alone(server, tmp_path):
    """Closing cancels calls. The parent's must not be among them, because both processes hold the same socket."""
    gate = threading.Event()
    server.oauth.answer(text="one two three", pace=lambda index: index and gate.wait(SECONDS))
    with Rig(server, tmp_path) as rig:
        adapter = rig.adapter()
        reply = adapter.stream("Why?")
        texts = [next(reply)]
        assert in_child(lambda: f"closed: {adapter.close()}")() == "closed: None"
        gate.set()
        texts += reply
    assert "".join(texts) == "one two three"


def cancel(reply):
    reply.cancel()
    return drain(reply)[1].cancelled  # it receives nothing that is meant for the parent


#: What ends a half-read reply. A reply that is dropped is closed by its generator.
ENDINGS = {
    "cancel()": cancel,
    "close()": lambda reply: reply.close(),
    "dropped": lambda reply: reply._state.chunks.close(),
}


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_fork__child_that_ends_a_half_read_reply_ends_its_own_side_alone(server, tmp_path, end):
    gate = threading.Event()
    server.oauth.answer(text="one two three", pace=lambda index: index and gate.wait(SECONDS))
    with Rig(server, tmp_path) as rig:
        reply = rig.adapter().stream("Why?")
        texts = [next(reply)]
        assert in_child(lambda: str(end(reply)))() in ("None", "True")
        gate.set()
        texts += reply
    assert "".join(texts) == "one two three"


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_fork__parent_that_ends_a_half_read_reply_ends_the_servers_side(server, tmp_path, end):
    """Although the child still has a copy of the socket."""
    server.oauth.answer(text="one two three")
    server.oauth.fail("stall", after=1)
    release, released = os.pipe()
    with Rig(server, tmp_path) as rig:
        reply = rig.adapter(timeouts=PATIENT["timeouts"]).stream("Why?")
        assert next(reply) == "one"
        result = in_child(lambda: os.read(release, 1).decode())
        try:
            end(reply)
            assert server.wait_closed()
        finally:
            os.write(released, b"x")
        assert result() == "x"
    os.close(release)
    os.close(released)


def test_fork__while_a_thread_has_the_lock_of_a_call(emulator, tmp_path):
    """It may be in ``cancel()``. That thread does not exist in the child."""
    emulator.oauth.answer(text="one two three")
    held, release = threading.Event(), threading.Event()
    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter()
        reply = adapter.stream("Why?")
        texts = [next(reply)]
        (call,) = adapter._router._calls

        def hold():
            with call._lock:
                held.set()
                release.wait(SECONDS)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(SECONDS)
        assert in_child(lambda: str(reply.close()))() == "None"
        release.set()
        thread.join()
        texts += reply
    assert "".join(texts) == "one two three"


def test_fork__while_a_thread_refreshes_the_token(server, tmp_path):
    """The single flight is held by a thread that does not exist in the child."""
    arrived, release = threading.Event(), threading.Event()
    with Rig(server, tmp_path) as rig:
        server.write_credentials(rig.path, expires_in=-10)
        adapter = rig.adapter()

        def hold():
            server.token.before = None
            arrived.set()
            release.wait(SECONDS)

        server.token.before = hold
        texts = []
        thread = threading.Thread(target=lambda: texts.append(adapter.generate("Parent").text))
        thread.start()
        assert arrived.wait(SECONDS)
        assert in_child(lambda: adapter.generate("Child").text)() == default_text("Child")
        release.set()
        thread.join()
    assert texts == [default_text("Parent")]
    assert len(server.token.requests) == 2
    assert rig.flips == []


def test_fork__while_threads_are_calling(emulator, tmp_path):
    """Without TLS: a thread may hold a lock of OpenSSL at the fork, and no thread of the child can release it."""
    stop = threading.Event()
    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter()
        wrong = []

        def call():
            number = 0
            while not stop.is_set():
                number += 1
                prompt = f"Thread {threading.get_ident()} {number}"
                if adapter.generate(prompt).text != default_text(prompt):
                    wrong.append(prompt)

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            said = [in_child(lambda: adapter.generate("Child").text)() for _ in range(10)]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert (said, wrong) == ([default_text("Child")] * 10, [])
