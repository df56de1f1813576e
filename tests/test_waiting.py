"""Waiting with plain locks: what ends a wait, the queue of idle connections, and that a call uses no other locks."""

from __future__ import annotations

import concurrent.futures
import logging
import queue
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
import requests
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from gemini_sync import GeminiDualAdapter, waiting
from gemini_sync.network.connection import _keeping_deadlines
from gemini_sync.network.pools import IdleConnections
from gemini_sync.network.sessions import adopt_session
from gemini_sync.waiting import wait, wake
from tests.adapter_kit import Rig, in_thread

_BOUND = 20.0

# -- waiting


def test_wait__over_at_once() -> None:
    waiters: list[Any] = []
    wait(lambda: True, None, waiters)
    wait(lambda: False, 0, waiters)
    assert waiters == []


def test_wake__ends_the_wait_of_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_SLICE_SECONDS", 3600.0)
    first, second, over = list[Any](), list[Any](), threading.Event()
    asked = threading.Semaphore(0)

    def is_over() -> bool:
        asked.release()
        return over.is_set()

    threads = [in_thread(lambda: wait(is_over, None, first, second)) for _ in range(3)]
    for _ in threads:
        assert asked.acquire(timeout=_BOUND)
    wake(first)  # for nothing
    for _ in threads:
        assert asked.acquire(timeout=_BOUND)
    over.set()
    wake(second)
    wake(first)
    for thread in threads:
        thread()
    assert (first, second) == ([], [])


def test_wait__asks_again_if_an_interrupt_came_before_the_waking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_SLICE_SECONDS", 0.01)
    answers = iter([False, False, True])
    wait(lambda: next(answers), None, [])


# -- the queue of idle connections


def test_queue__last_in_first_out() -> None:
    idle = IdleConnections(2)
    for connection in "ab":
        idle.put(connection)
    with pytest.raises(queue.Full):
        idle.put("c")
    assert (idle.qsize(), idle.empty()) == (2, False)
    assert (idle.full(), isinstance(idle, queue.Queue)) == (True, True)
    assert (idle.get(), idle.get(block=False)) == ("b", "a")
    assert (idle.qsize(), idle.empty()) == (0, True)
    with pytest.raises(queue.Empty):
        idle.get(block=False)
    with pytest.raises(queue.Empty):
        idle.get(timeout=0.01)


def test_queue__that_blocks_waits_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_SLICE_SECONDS", 3600.0)
    idle = IdleConnections(2)
    threads = [in_thread(idle.get) for _ in range(2)]
    for connection in "ab":
        idle.put(connection)
    assert sorted(thread() for thread in threads) == ["a", "b"]


@pytest.mark.parametrize("scheme", ["http://", "https://"])
def test_queue__of_all_our_pools(scheme: str) -> None:
    with adopt_session(requests.Session()) as session:
        manager = session.get_adapter(scheme).poolmanager  # type: ignore[attr-defined]
        assert isinstance(manager.connection_from_url(f"{scheme}localhost").pool, IdleConnections)


@pytest.mark.parametrize("pool", [HTTPConnectionPool, HTTPSConnectionPool])
def test_queue__of_the_pools_of_a_caller(pool: Any) -> None:
    class Queue(queue.LifoQueue[Any]):
        pass

    plain, own = type("Plain", (pool,), {}), type("Own", (pool,), {"QueueCls": Queue})
    assert isinstance(_keeping_deadlines(plain)("localhost").pool, IdleConnections)
    assert isinstance(_keeping_deadlines(own)("localhost").pool, Queue)


# -- an interrupt inside of these leaves a lock taken

_CLASSES = (
    threading.Condition,
    threading.Event,
    threading.Semaphore,
    threading.Barrier,
    queue.Queue,
    queue.LifoQueue,
    concurrent.futures.Future,
)
_RISKY = {
    code
    for holder in (*_CLASSES, logging)
    for name, function in vars(holder).items()
    if isinstance(function, types.FunctionType) and (holder is not logging or name in ("getLogger", "_acquireLock"))
    for code in [function.__code__]
} | {logging.Manager.getLogger.__code__}


class Watch:
    """A trace function that notes which of the risky functions this thread calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        # The futures of tenacity are left out, because no second thread and no second call sees one of them.
        if frame.f_code in _RISKY and not _user(frame).startswith("tenacity"):
            self.calls.append(f"{frame.f_code.co_name} from {_user(frame)}")


def _user(frame: Any) -> str:
    """The module whose code uses the lock."""
    while frame.f_globals["__name__"] in ("threading", "queue", "logging", "concurrent.futures._base"):
        frame = frame.f_back
    return str(frame.f_globals["__name__"])


def refresh(rig: Rig) -> GeminiDualAdapter:
    rig.emulator.write_credentials(rig.path, expires_in=-10)
    return rig.adapter()


def fall_back(rig: Rig) -> GeminiDualAdapter:
    rig.emulator.oauth.fail(403)
    return rig.adapter()


def session_of_the_caller(rig: Rig) -> GeminiDualAdapter:
    return rig.adapter(session_factory=requests.Session)


@pytest.mark.parametrize("prepare", [refresh, fall_back, session_of_the_caller])
def test_call__runs_in_no_code_where_an_interrupt_leaves_a_lock_taken(
    rig: Rig, prepare: Callable[[Rig], GeminiDualAdapter]
) -> None:
    prepare(rig).generate("What is done only once in a process")
    adapter, watch, before = prepare(rig), Watch(), sys.gettrace()
    sys.settrace(watch)
    try:
        assert adapter.generate("Why?").text
        reply = adapter.stream("Why?")
        next(reply)
        reply.cancel()
        reply.close()
        adapter.close()
    finally:
        sys.settrace(before)
    assert watch.calls == []
