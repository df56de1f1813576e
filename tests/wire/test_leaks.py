"""Replies that are not read to the end leave no connection at the server and no descriptor here."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from gemini_sync import GeminiDualAdapter, GeminiSyncError
from tests.adapter_kit import Rig
from tests.wire.support import AT_ONCE, PATIENT

DESCRIPTORS = Path("/proc/self/fd")

pytestmark = pytest.mark.skipif(not DESCRIPTORS.exists(), reason="needs /proc to count descriptors")


def descriptors() -> set[str]:
    """What this process has open: sockets and files by their inodes or names."""
    links = set()
    for descriptor in DESCRIPTORS.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            links.add(os.readlink(descriptor))
    return links


class Stop(Exception):
    pass


def closed(adapter: GeminiDualAdapter) -> None:
    reply = adapter.stream("Why?")
    next(reply)
    reply.close()


def dropped(adapter: GeminiDualAdapter) -> None:
    reply = adapter.stream("Why?")
    next(reply)
    del reply


def broken_out_of(adapter: GeminiDualAdapter) -> None:
    for _ in adapter.stream("Why?"):
        break


def raised_within(adapter: GeminiDualAdapter) -> Stop:
    """The exception, which the test stores: it refers to this frame, but to no open reply."""
    try:
        with adapter.stream("Why?") as reply:
            for _ in reply:
                raise Stop
    except Stop as exc:
        return exc
    raise AssertionError("no text came")


def raised_in_a_loop(adapter: GeminiDualAdapter) -> Stop:
    try:
        for _ in adapter.stream("Why?"):
            raise Stop
    except Stop as exc:
        return exc
    raise AssertionError("no text came")


def chunks_dropped(adapter: GeminiDualAdapter) -> None:
    next(adapter.stream("Why?").chunks())


def cancelled(adapter: GeminiDualAdapter) -> None:
    reply = adapter.stream("Why?")
    next(reply)
    reply.cancel()


def never_begun(adapter: GeminiDualAdapter) -> None:
    adapter.stream("Why?")


ABANDONED = (
    closed, dropped, broken_out_of, raised_within, raised_in_a_loop, chunks_dropped, cancelled, never_begun
)  # fmt: skip


def test_abandoned__leave_nothing_open(server, route, tmp_path):
    script = getattr(server, route)
    with Rig(server, tmp_path) as rig:
        other = {"api_key": "oauth_creds_path", "oauth": "api_key"}[route]
        adapter = rig.adapter(**{other: None, **PATIENT})
        adapter.count_tokens("Why?")  # opens what is opened only once
        script.fail("stall", after=2, times=None)
        before = descriptors()
        kept = [abandon(adapter) for _ in range(10) for abandon in ABANDONED]
        adapter.close()
        assert server.wait_closed()
        assert len(script.requests) == 1 + 10 * (len(ABANDONED) - 1)
        assert descriptors() - before == set()
        assert sum(isinstance(exc, Stop) for exc in kept) == 20


@pytest.mark.parametrize(
    ("fault", "arguments"),
    [
        (503, {}),
        ("endless_error", {}),
        ("reset", {}),
        ("reset", {"after": 1}),
        ("cut", {"after": 1}),
        ("half_headers", {}),
        ("html", {}),
        ("gzip", {"truncate": True}),
        ("garbage_event", {"after": 1}),
        (307, {"headers": {"Location": "http://127.0.0.1:9/"}}),
    ],
)
def test_failed__leave_nothing_open(emulator, tmp_path, fault, arguments):
    emulator.api_key.fail(fault, times=None, **arguments)
    with Rig(emulator, tmp_path) as rig:
        adapter = rig.adapter(oauth_creds_path=None, retry=AT_ONCE)
        before, kept = descriptors(), []
        for _ in range(3):
            with pytest.raises(GeminiSyncError) as caught:
                adapter.generate("Why?")
            kept.append(caught.value)
        adapter.close()
        assert emulator.wait_closed()
        assert descriptors() - before == set()
