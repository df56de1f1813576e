"""Tests of a credentials file that two threads use at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Optional

import pytest

from gemini_sync.auth import credentials_file
from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.credentials_file import FileContent
from gemini_sync.auth.file_source import FileSource
from gemini_sync.config import Endpoints
from gemini_sync.network.cancelling import Call
from tests.adapter_kit import in_thread
from tests.auth.credentials_kit import CLIENT, Clock, Counter, ScriptedTransport, warnings_in, write_file
from tests.lock_kit import OneAtATime


def _source(path: Path, transport: Any, clock: Clock, persist: bool = False) -> Any:
    url = Endpoints().token
    return FileSource(str(path), transport=transport, url=url, client=CLIENT, persist=persist, clock=clock)


class _StoppingClock(Clock):
    """Stops whoever reads it, once it has a point to stop at."""

    point: Optional[OneAtATime] = None

    def __call__(self) -> float:
        if self.point is not None:
            self.point.stop()
        return super().__call__()


def test_adopt__no_other_reading_gets_in_between(path: Path) -> None:
    clock = _StoppingClock()
    source = _source(path, ScriptedTransport(), clock)
    source.current(Call())
    write_file(path, access_token="newer")
    clock.point = point = OneAtATime(lambda: source.current(Call()))
    source._lock = point.lock
    adopted = source.current(Call())
    assert adopted.access_token == "newer"
    assert (point.second(), point.shared) == (adopted, False)


def test_adopt__no_refreshed_token_gets_in_between(path: Path) -> None:
    """It would be lost, because the reading compares with what was there before."""
    clock, asked, answered = _StoppingClock(), threading.Event(), threading.Event()

    def answer() -> dict[str, Any]:
        asked.set()
        assert answered.wait(20)
        return {"access_token": "refreshed", "expires_in": 3600}

    write_file(path, left=-5)
    source = _source(path, ScriptedTransport(answer), clock)
    refreshed = in_thread(lambda: source.refresh(Call(), AccessToken("")))
    assert asked.wait(20)
    write_file(path, left=60, access_token="of-a-sibling")
    clock.point = point = OneAtATime(lambda: (answered.set(), refreshed())[1])
    source._lock = point.lock
    source.current(Call())
    assert (point.second().access_token, point.shared) == ("refreshed", False)
    assert source.current(Call()).access_token == "refreshed"


def test_warning__of_two_threads_at_once_is_one(path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    class Warned(set):  # type: ignore[type-arg]
        def __contains__(self, message: object) -> bool:
            found = super().__contains__(message)
            point.stop()
            return found

    path.chmod(0o644)
    source = _source(path, ScriptedTransport(), clock)
    point = OneAtATime(lambda: source.current(Call()))
    source._lock, source._warned = point.lock, Warned()
    source.current(Call())
    point.second()
    assert (len(warnings_in(caplog)), point.shared) == (1, False)


def test_save__overtaken_by_a_reading_of_the_file(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refreshed serves this call, and what the file says by now the next one."""

    class Overtaken(FileContent):
        @property
        def exposed(self) -> bool:  # it is asked for before the content is adopted
            write_file(path, left=7200, access_token="of-a-sibling")
            source.current(Call())
            return False

    write_file(path, left=-5)
    source, update = _source(path, ScriptedTransport(Counter()), clock, persist=True), credentials_file.update
    monkeypatch.setattr(credentials_file, "update", lambda *arguments: Overtaken(*update(*arguments)))
    assert source.refresh(Call(), AccessToken("")).access_token == "kit-access-1"
    assert source.current(Call()).access_token == "of-a-sibling"
