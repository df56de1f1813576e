"""Shared by the tests on real sockets: calls, recordings, events and signals."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional, Union

import pytest

from gemini_sync import Endpoints, GeminiSyncError, Reply, Retry, Timeouts, stream_gemini_api_key, stream_gemini_oauth
from gemini_sync.testing.emulator import Emulator
from tests.support import find_corpus
from tests.wire.raw_server import SECONDS

AT_ONCE = Retry(backoff_base=0)
ONCE = Retry(max_attempts=1)
#: Longer than any test may take, so a wait of this length counts as endless.
NEVER = 600.0
PATIENT: dict[str, Any] = {
    "timeouts": Timeouts(connect=NEVER, first_token=NEVER, idle=NEVER),
    "retry": Retry(backoff_base=NEVER, backoff_cap=NEVER),
}
FRAMINGS = ("chunked", "close", "length")


def ask(server: Union[Emulator, str], route: str = "api_key", **settings: Any) -> Reply:
    """A reply of one of the plain functions, from an emulator or a URL; by default it retries without waiting."""
    url = server if isinstance(server, str) else server.url
    settings = {"endpoints": Endpoints(gemini=url, code_assist=url), "retry": AT_ONCE, **settings}
    if route == "oauth":
        token = "a-token" if isinstance(server, str) else server.issue_token()
        return stream_gemini_oauth("Why?", token, "a-project", **settings)
    return stream_gemini_api_key("Why?", "a-key" if isinstance(server, str) else server.key, **settings)


def drain(iterator: Iterable[Any]) -> tuple[list[Any], Optional[GeminiSyncError]]:
    """What came out of ``iterator``, and the error that ended it or None."""
    items = []
    try:
        for item in iterator:
            items.append(item)
    except GeminiSyncError as exc:
        return items, exc
    return items, None


def recordings() -> list[dict[str, Any]]:
    """What ``expected.json`` says of each recorded stream, with its bytes as ``body``; empty without the corpus."""
    corpus = find_corpus()
    if corpus is None:
        return []
    told = json.loads((corpus / "streams" / "expected.json").read_text(encoding="utf-8"))
    return [{**expected, "body": (corpus / "streams" / expected["file"]).read_bytes()} for expected in told]


def chunk(text: str, finish: Optional[str] = None) -> dict[str, Any]:
    """A GenerateContentResponse with one text part."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    return {"candidates": [{**candidate, "finishReason": finish} if finish else candidate]}


def event(text: str, finish: Optional[str] = None) -> bytes:
    """The same as a server-sent event."""
    return b"data: " + json.dumps(chunk(text, finish)).encode() + b"\r\n\r\n"


def telling(reply: Iterable[str], got_text: threading.Event) -> Iterator[str]:
    """The texts of ``reply``; sets ``got_text`` with each."""
    for text in reply:
        got_text.set()
        yield text


def tell_when_entered(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> threading.Event:
    """An event that is set as ``owner.name`` is called."""
    entered, original = threading.Event(), getattr(owner, name)

    def wrapper(*args: Any, **named: Any) -> Any:
        entered.set()
        return original(*args, **named)

    monkeypatch.setattr(owner, name, wrapper)
    return entered


@contextlib.contextmanager
def watchdog(end: Callable[[], object]) -> Iterator[None]:
    """Call ``end`` if the block hangs, and fail: for calls that would never end, because bytes keep coming."""
    hung = threading.Event()
    timer = threading.Timer(SECONDS, lambda: (hung.set(), end()))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        assert not hung.is_set(), "it hung"


@contextlib.contextmanager
def on_signal(number: int, handle: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """A function that sends this thread a signal; ``handle`` is called once for it."""
    handled, receiver = threading.Event(), threading.get_ident()

    def handler(*_: object) -> None:
        if not handled.is_set():
            handled.set()
            handle()

    def send() -> None:
        # Repeated, because a signal that comes just before a thread blocks does not wake it.
        for _ in range(200):
            signal.pthread_kill(receiver, number)
            if handled.wait(0.05):
                break

    before = signal.signal(number, handler)
    try:
        yield send
    finally:
        signal.signal(number, before)
