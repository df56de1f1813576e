"""How callers end a call: they drop, close or cancel the stream, press Ctrl-C, or fork."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import ssl
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from gemini_sync import GeminiDualAdapter, Reply, StreamInterrupted, Timeouts
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import Gate, Rig, in_thread
from tests.support import run_python

NO_DEADLINE = Timeouts(None, None, None, None)
SCRIPT = Path(__file__).parent / "fork_child.py"


@pytest.fixture(params=["plain", "tls"])
def either(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Adapters over plain HTTP, then over TLS."""
    context = None
    if request.param == "tls":
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with Emulator(ssl_context=context) as emulator, Rig(emulator, tmp_path) as rig:
        yield rig


# -- dropped


def close(reply: Reply) -> None:
    reply.close()


def leave_the_block(reply: Reply) -> None:
    with reply:
        next(reply, None)


def leave_the_loop(reply: Reply) -> None:
    for _ in reply.chunks():
        break


def drop(reply: Reply) -> None:
    """Does nothing, because the caller only forgets the reply."""


def fail_in_the_block(reply: Reply) -> None:
    with contextlib.suppress(ZeroDivisionError), reply:
        raise ZeroDivisionError


@pytest.mark.parametrize("end", [close, leave_the_block, leave_the_loop, drop, fail_in_the_block])
def test_half_read_stream__leaves_no_connection(rig: Rig, end: Callable[[Reply], None]) -> None:
    """The server holds each stream open until the client has gone."""
    rig.emulator.oauth.fail("stall", after=2, times=None)
    adapter = rig.adapter()
    for _ in range(40):
        reply = adapter.stream("Hi")
        next(reply)
        end(reply)
        del reply
    gc.collect()
    assert rig.emulator.wait_closed()
    assert rig.counts == (40, 0)
    assert rig.flips == []
    rig.emulator.oauth.reset()
    assert adapter.generate("Hi").text == default_text("Hi")


def test_stream__never_begun_opens_no_connection(rig: Rig) -> None:
    adapter = rig.adapter()
    for _ in range(100):
        adapter.stream("Hi").close()
    assert rig.emulator.connections_total == 0


def test_error__kept_by_the_caller_holds_no_connection(rig: Rig) -> None:
    rig.emulator.oauth.fail("error_event", after=2, times=20, code=503)
    adapter = rig.adapter()
    kept = []
    for _ in range(20):
        with pytest.raises(StreamInterrupted) as caught:
            adapter.generate("Hi")
        kept.append(caught.value)
    adapter.close()
    assert rig.emulator.wait_closed()
    assert all(error.partial is not None and error.partial.text for error in kept)


# -- cancelled


@pytest.mark.parametrize(
    ("route", "fault"),
    [("oauth", {"after": 1}), ("oauth", {}), ("oauth", {"after": 0}), ("load_code_assist", {}), ("token", {})],
    ids=["in the body", "before the headers", "before the first event", "asking for the project", "refreshing"],
)
def test_cancel__wakes_a_blocked_reader(either: Rig, route: str, fault: dict[str, Any]) -> None:
    """Only cancel() can end this call, because it has no deadline."""
    gate = Gate()
    if route == "token":
        either.path = either.emulator.write_credentials(either.path, expires_in=-60)
    getattr(either.emulator, route).fail("stall", before=gate, **fault)
    adapter = either.adapter(timeouts=NO_DEADLINE)
    reply, came = adapter.stream("Hi"), []
    result = in_thread(lambda: came.extend(reply))
    gate.await_arrivals()
    gate.open()
    reply.cancel()
    with pytest.raises(StreamInterrupted) as caught:
        result()
    assert caught.value.cancelled
    assert caught.value.partial is not None
    assert default_text("Hi").startswith(caught.value.partial.text)
    assert [attempt.outcome for attempt in caught.value.attempts] == ["cancelled"]
    assert either.counts[1] == 0
    assert (either.flips, adapter.fallback_active) == ([], False)
    assert adapter.generate("Hi").route == "oauth"


# -- interrupted by a signal


def interrupt(*ignored: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("moment", ["headers", "body", "wait"])
def test_ctrl_c__ends_the_call_at_once_and_the_next_call_works(rig: Rig, moment: str) -> None:
    adapter = rig.adapter(timeouts=NO_DEADLINE, **({"sleep": interrupt} if moment == "wait" else {}))
    if moment == "headers":
        rig.emulator.oauth.fail("stall", before=interrupt)
    elif moment == "body":
        rig.emulator.oauth.answer(times=1, pace=lambda index: interrupt() if index == 2 else None)
        rig.emulator.oauth.fail("stall", after=2)
    else:
        rig.emulator.oauth.fail(503)
    with pytest.raises(KeyboardInterrupt):
        adapter.generate("Hi")
    assert (rig.counts, rig.flips) == ((1, 0), [])
    rig.emulator.oauth.reset()
    reply = adapter.generate("Hi")
    assert (reply.text, reply.route) == (default_text("Hi"), "oauth")
    assert len(adapter.route_status().failures) == (moment == "wait")


# -- forked


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork__with_idle_connections_a_running_stream_and_held_locks() -> None:
    done = run_python(str(SCRIPT))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["child: oauth, not fallen back", "parent: both streams exact", "connections: 3"]


def test_adapter__is_freed_when_dropped(rig: Rig) -> None:
    """No global object refers to it, not even the fork hooks."""
    adapter = GeminiDualAdapter(**rig.settings())
    rig.emulator.oauth.fail(503, times=None)
    adapter.generate("Hi")
    rig.flips.clear()  # an event refers to the error, and the error to its traceback
    dropped = weakref.ref(adapter._router)
    del adapter
    gc.collect()
    assert dropped() is None
    assert rig.emulator.wait_closed()
