"""Objects in a forked child get new locks, and the list of these objects keeps none of them alive."""

from __future__ import annotations

import gc
import os
import runpy
import weakref

import pytest

from gemini_sync import fork
from gemini_sync.auth.single_flight import SingleFlight
from gemini_sync.network.cancelling import Call
from tests.adapter_kit import Gate, in_thread
from tests.support import in_child, run_python


class Counter:
    def __init__(self) -> None:
        self.times = 0
        fork.register_after_fork(self)

    def after_fork(self) -> None:
        self.times += 1


def test_after_fork__each_object_once() -> None:
    first, second = Counter(), Counter()
    fork.register_after_fork(first)
    fork._after_fork()
    assert (first.times, second.times) == (1, 1)


def test_register__keeps_no_object_alive() -> None:
    gc.disable()
    try:
        gone = weakref.ref(Counter())
        assert gone() is None
    finally:
        gc.enable()
    fork._after_fork()


def test_register__on_a_system_without_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    names = runpy.run_path(str(fork.__file__))
    counter = Counter()
    names["register_after_fork"](counter)
    names["_after_fork"]()
    assert counter.times == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_forked_child__does_not_wait_for_locks_of_the_parent() -> None:
    program = """
import os, sys, threading
from gemini_sync.routing.fallback import FallbackState

state = FallbackState()
holder = threading.Thread(target=state._lock.acquire)  # this thread does not exist in the child
holder.start()
holder.join()
child = os.fork()
if child == 0:
    flips = state.fall_back(state.choose("m"), "401")
    os._exit(7 if flips and state.fallback_active else 1)
_, status = os.waitpid(child, 0)
sys.exit(os.WEXITSTATUS(status) if not state.fallback_active else 2)
"""
    ended = run_python("-c", program)
    assert (ended.returncode, ended.stderr) == (7, "")


class SlowKey(str):
    """The key of an attempt, whose look-up waits for a gate."""

    gate: Gate

    def __hash__(self) -> int:
        self.gate()
        return super().__hash__()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child__does_not_wait_for_a_thread_that_looks_for_an_attempt() -> None:
    flight: SingleFlight[str] = SingleFlight()
    key = SlowKey("key")
    key.gate = Gate()
    looking = in_thread(lambda: flight.run(Call(), lambda: "of the parent", key=key))
    key.gate.await_arrivals()
    assert in_child(lambda: flight.run(Call(), lambda: "of the child", key="key"))() == "of the child"
    key.gate.open()
    assert looking() == "of the parent"
