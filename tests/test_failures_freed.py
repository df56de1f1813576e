"""An error that is dropped frees the frames of its callers at once, without a garbage collection."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gemini_sync import GeminiDualAdapter, GeminiSyncError, Retry, Timeouts
from tests.adapter_kit import Rig

SHORT = Timeouts(connect=20, first_token=0.05, idle=0.05)  # the deadline or the fault may end the call


@pytest.fixture
def no_gc() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class Held:
    """An object of the caller, such as a large document."""


def is_kept(use: Callable[[], Any]) -> bool:
    """True if the frame of a caller still exists after ``use()`` failed in it and the error is gone."""

    def caller() -> weakref.ref[Held]:
        held = Held()
        try:
            use()
        except GeminiSyncError:
            return weakref.ref(held)
        raise AssertionError("nothing failed")

    return caller()() is not None


def stream(adapter: GeminiDualAdapter) -> None:
    for _ in adapter.stream("Why?", timeouts=SHORT):
        pass


OPERATIONS = {
    "stream": stream,
    "chunks": lambda adapter: list(adapter.stream("Why?", timeouts=SHORT).chunks()),
    "generate": lambda adapter: adapter.generate("Why?", timeouts=SHORT),
    "count": lambda adapter: adapter.count_tokens("Why?"),
}
EVERY = [(kind, {}) for kind in (400, 401, 403, 404, 429, 503, "reset", "half_headers", "html")]
OF_STREAMS = [
    ("cut", {"after": 0}),
    ("cut", {"after": 1}),
    ("empty", {}),
    ("garbage_event", {}),
    ("garbage_event", {"after": 1}),
    ("error_event", {"after": 1}),
    ("error_json", {"after": 1, "code": 401}),
    ("stall", {}),
    ("stall", {"after": 1}),
    ("drip", {"after": 1}),
]
CASES = [(name, *fault) for name in OPERATIONS for fault in EVERY + (OF_STREAMS if name != "count" else [])]


@pytest.mark.parametrize("routes", ["both", "api_key"])
@pytest.mark.parametrize(("operation", "kind", "arguments"), CASES)
def test_freed__after_a_fault(
    rig: Rig, no_gc: None, routes: str, operation: str, kind: Any, arguments: dict[str, Any]
) -> None:
    for route in (rig.emulator.oauth, rig.emulator.api_key):
        route.fail(kind, times=None, **arguments)
    changes = {} if routes == "both" else {"oauth_creds_path": None}
    adapter = rig.adapter(retry=Retry(max_attempts=2), on_fallback=repr, **changes)
    assert not is_kept(lambda: OPERATIONS[operation](adapter))


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("broken", ["missing", "corrupt", "refused", "unreachable"])
def test_freed__after_broken_credentials(rig: Rig, no_gc: None, broken: str, fallback: bool) -> None:
    rig.emulator.api_key.fail(503, times=None)
    if broken == "missing":
        rig.path.unlink()
    elif broken == "corrupt":
        rig.path.write_text("{")
    else:
        rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60)
        rig.emulator.token.fail(400 if broken == "refused" else "reset", times=None)
    adapter = rig.adapter(fallback=fallback, on_fallback=repr)
    assert not is_kept(lambda: adapter.generate("Why?"))


@pytest.mark.parametrize("status", [403, 503])
def test_freed__after_no_project(rig: Rig, no_gc: None, status: int) -> None:
    rig.emulator.load_code_assist.fail(status, times=None)
    adapter = rig.adapter(fallback=False)
    assert not is_kept(lambda: adapter.generate("Why?"))


def test_freed__after_cancel(rig: Rig, no_gc: None) -> None:
    reply = rig.adapter().stream("Why?")
    rig.emulator.oauth.fail("stall", after=1)

    def read() -> None:
        next(reply)
        reply.cancel()
        next(reply)

    assert not is_kept(read)
