"""What the tests of credentials share: a clock to set, scripted answers, threads that start at once."""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

import pytest

from gemini_sync.auth.credentials import Credentials, credentials_for
from gemini_sync.config import Endpoints, OAuthClient
from gemini_sync.network.cancelling import Call
from gemini_sync.network.exchange import Answer
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import Emulator

CLIENT = OAuthClient("kit-client-id", "kit-client-secret")
NOW = 1_900_000_000.0
_SECONDS = 30.0


class Clock:
    """A clock that only ``advance`` moves, from any thread; in seconds since the epoch."""

    def __init__(self, now: float = NOW) -> None:
        self._now = now
        self._lock = threading.Lock()  # guards _now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds


class Slept(list[float]):
    """Stands in for ``sleep``: it notes the seconds, and moves the clock if one is given."""

    def __init__(self, clock: Optional[Clock] = None, hook: Optional[Callable[[], object]] = None) -> None:
        self._clock, self._hook = clock, hook

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
        if self._clock is not None:
            self._clock.advance(seconds)
        if self._hook is not None:
            self._hook()


class ScriptedTransport:
    """Stands in for ``Transport.fetch``: each answer is a value, an exception, or a callable giving one of these."""

    def __init__(self, answer: Any = None, *more: Any) -> None:
        self._answers = [answer, *more]
        self.forms: list[bytes] = []

    def fetch(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: Optional[bytes] = None, **rest: Any
    ) -> Answer:
        self.forms.append(body or b"")
        answer = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
        answer = answer() if callable(answer) else answer
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Answer) else Answer(200, {}, json.dumps(answer))


class Counter:
    """Gives token answers, each with another token: ``kit-access-1``, ``kit-access-2``, …"""

    def __init__(self, lifetime: float = 3600, **fields: Any) -> None:
        self.issued, self._fields = 0, {"expires_in": lifetime, **fields}

    def __call__(self) -> dict[str, Any]:
        self.issued += 1
        return {"access_token": f"kit-access-{self.issued}", **self._fields}


def write_file(path: Path, *, left: Optional[float] = 3600, now: float = NOW, **fields: Any) -> Path:
    """Write a file as the Gemini CLI does. Its access token expires in ``left`` seconds; None leaves a field out."""
    document = {
        "access_token": "file-access-token",
        "refresh_token": "file-refresh-token",
        "scope": "openid",
        "token_type": "Bearer",
        "id_token": "file-id-token",
        "expiry_date": None if left is None else int((now + left) * 1000),
        **fields,
    }
    path.touch(0o600)
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))
    return path


def scripted(path: Any, transport: Any, clock: Clock, **options: Any) -> Credentials:
    """Credentials over a ``ScriptedTransport``."""
    given = {"oauth_client": CLIENT, "endpoints": Endpoints(), "clock": clock, **options}
    return credentials_for(path, transport=transport, **given)


def emulated(path: Any, emulator: Emulator, **options: Any) -> Credentials:
    """Credentials that are refreshed by the emulator."""
    given = {
        "transport": Transport(),
        "oauth_client": OAuthClient(emulator.client_id, emulator.client_secret),
        "endpoints": Endpoints(**emulator.urls),
        "clock": time.time,
        **options,
    }
    return credentials_for(path, **given)


def fetch(credentials: Credentials) -> str:
    """An access token, for a call that does not really sleep."""
    return credentials.fetch(Call(sleep=Slept())).access_token


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class Watched(Call):
    """A call that releases ``waiting`` when it starts to wait for another thread's attempt."""

    def __init__(self, waiting: threading.Semaphore) -> None:
        super().__init__()
        self._waiting = waiting

    def wait_for(self, future: Any) -> None:
        self._waiting.release()
        super().wait_for(future)


def await_all(waiting: threading.Semaphore, count: int) -> None:
    """Return when ``count`` calls wait."""
    for _ in range(count):
        assert waiting.acquire(timeout=_SECONDS)


def together(count: int, work: Callable[[], Any]) -> list[Any]:
    """What ``work`` returned or raised in each of ``count`` threads, which start at once."""
    barrier = threading.Barrier(count)
    outcomes: list[Any] = [None] * count

    def run(index: int) -> None:
        barrier.wait(_SECONDS)
        try:
            outcomes[index] = work()
        except BaseException as exc:
            outcomes[index] = exc

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    return outcomes


def told(error: BaseException) -> str:
    """Everything that an error shows: itself, its attributes, its traceback with the causes."""
    return "\n".join(
        [
            repr(error),
            str(error),
            repr(vars(error)),
            *traceback.format_exception(type(error), error, error.__traceback__),
        ]
    )
