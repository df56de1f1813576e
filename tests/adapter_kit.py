"""What the tests of the adapter share: a rig around an emulator, gates for threads, scripted services, errors."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Optional, Union

from gemini_sync.adapter import GeminiDualAdapter
from gemini_sync.config import Endpoints, OAuthClient, Timeouts
from gemini_sync.errors import (
    Attempt,
    GeminiSyncError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
)
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.request import Request, build
from gemini_sync.network.cancelling import Call
from gemini_sync.routing.events import FallbackEvent
from gemini_sync.routing.router import Router
from gemini_sync.services.base import OpenStream
from gemini_sync.testing.emulator import Emulator, default_text

TIMEOUTS = Timeouts(connect=20, first_token=20, idle=20)
LINK = "https://example.com/validate"
_SECONDS = 20.0


class Rig(contextlib.ExitStack):
    """An emulator, a credentials file, and adapters that are closed at the end. It remembers flips and waits."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        super().__init__()
        self.emulator, self.path = emulator, emulator.write_credentials(folder / "oauth_creds.json")
        self.flips: list[FallbackEvent] = []
        self.slept: list[float] = []

    def settings(self, **changes: Any) -> dict[str, Any]:
        """What an adapter on the emulator takes: both routes, no real waiting between tries."""
        return {
            "api_key": self.emulator.key,
            "oauth_creds_path": self.path,
            "oauth_client": OAuthClient(self.emulator.client_id, self.emulator.client_secret),
            "endpoints": Endpoints(**self.emulator.urls),
            "timeouts": TIMEOUTS,
            "on_fallback": self.flips.append,
            "sleep": self.slept.append,
            **changes,
        }

    def adapter(self, **changes: Any) -> GeminiDualAdapter:
        return self.enter_context(GeminiDualAdapter(**self.settings(**changes)))

    @property
    def counts(self) -> tuple[int, int]:
        """How many generating or counting requests came, by OAuth and by API key."""
        return len(self.emulator.oauth.requests), len(self.emulator.api_key.requests)


class Gate:
    """A hook at which server threads wait until it is opened; a test can await their arrival."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._opened = threading.Event()

    def __call__(self, *ignored: object) -> None:
        self._arrived.release()
        assert self._opened.wait(_SECONDS)

    def await_arrivals(self, count: int = 1) -> None:
        for _ in range(count):
            assert self._arrived.acquire(timeout=_SECONDS)

    def open(self) -> None:
        self._opened.set()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start ``work`` in a thread. The function returned waits for its end, and returns or raises what ``work`` did."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome[:] = [work(), None]
        except BaseException as exc:
            outcome[:] = [None, exc]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(_SECONDS)
        assert not thread.is_alive()
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    return result


# What a scripted service does with one request: raise the error that a callable makes, or stream the texts in a list.
# A callable in a list makes an error as well, or is a hook if it returns None.
Step = Union[Callable[[], BaseException], list[Any]]
BY_OAUTH, BY_KEY = ["by", " OAuth"], ["by", " key"]


class ScriptedService:
    """A service that takes one step for each request, and the last step again and again. Streams end with STOP."""

    def __init__(self, route: str, *steps: Step) -> None:
        self.route = route
        self.asked: list[str] = []
        self.steps = list(steps)

    def _next(self, request: Request) -> list[Any]:
        self.asked.append(request.model)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if callable(step):
            raise step()
        return step

    def open(self, request: Request, call: Call) -> OpenStream:
        chunks = self._play(self._next(request))
        first = next(chunks)
        call.check()  # as a socket does
        return first, chunks

    def count_tokens(self, request: Request, call: Call) -> int:
        return len(self._next(request))

    def _play(self, items: list[Any]) -> Iterator[Chunk]:
        for position, item in enumerate(items, 1):
            if not callable(item):
                yield chunk(item, finish="STOP" if position == len(items) else None)
                continue
            error = item()
            if error is not None:
                raise error


def chunk(text: str, finish: Optional[str] = None) -> Chunk:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    if finish is not None:
        candidate["finishReason"] = finish
    return Chunk({"candidates": [candidate]}, {"traceId": f"trace of {text}"})


def ask(model: str = "some-model") -> Request:
    return build("Hello", model=model)


class Table:
    """A router with two scripted services; with one if there are no ``oauth`` steps, or if ``api_key`` is None."""

    def __init__(self, *oauth: Step, api_key: Optional[Step] = BY_KEY, **settings: Any) -> None:
        self.oauth, self.api_key = ScriptedService("oauth", *oauth), ScriptedService("api_key", api_key or BY_KEY)
        self.events: list[FallbackEvent] = []
        self.slept: list[float] = []
        services = {service.route: service for service, on in ((self.oauth, oauth), (self.api_key, api_key)) if on}
        self.router = Router(services, **{"on_fallback": self.events.append, "sleep": self.slept.append, **settings})

    def stream(self, model: str = "some-model", timeouts: Optional[Timeouts] = None) -> Reply:
        return self.router.stream(ask(model), timeouts or Timeouts())

    def route(self, model: str = "some-model") -> Optional[str]:
        """Make a call, and return the route that served it."""
        reply = self.stream(model)
        assert list(reply)
        return reply.route

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.oauth.asked), len(self.api_key.asked)


def gist(error: Optional[BaseException]) -> Optional[tuple[Any, ...]]:
    """What two errors have in common if one is a copy of the other without its traceback."""
    return None if error is None else (type(error), str(error), getattr(error, "code", None))


def kept(attempts: Iterable[Attempt]) -> list[Optional[tuple[Any, ...]]]:
    """The gist of the error of each attempt; none of them may have a traceback."""
    errors = [attempt.error for attempt in attempts]
    assert [error for error in errors if error is not None and error.__traceback__ is not None] == []
    return [gist(error) for error in errors]


def not_found() -> GeminiSyncError:
    return NotFoundError("404 NOT_FOUND: no such model.", code=404)


def unavailable() -> GeminiSyncError:
    return ServerError("503 UNAVAILABLE.", code=503, trace_id="trace-503")


def forbidden() -> GeminiSyncError:
    return PermissionDeniedError("403 PERMISSION_DENIED.", code=403)


def bad_request() -> GeminiSyncError:
    return InvalidRequestError("400", code=400)


def validation() -> GeminiSyncError:
    return PermissionDeniedError("403: validate.", code=403, reason="VALIDATION_REQUIRED", link=LINK)


class Asker:
    """Asks a new question at each call, checks the answer and returns the route; any thread may call it."""

    def __init__(self, adapter: GeminiDualAdapter) -> None:
        self._adapter, self._numbers = adapter, itertools.count()

    def __call__(self) -> Any:
        question = f"Question {next(self._numbers)}"
        reply = self._adapter.generate(question)
        assert reply.text == default_text(question)
        return reply.route
