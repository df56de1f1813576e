"""Tests of threads that share one login: one refresh for all, nothing mixed, nothing lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemini_sync.auth import credentials_file
from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.credentials import Credentials
from gemini_sync.errors import RefreshError
from gemini_sync.network.cancelling import Call
from gemini_sync.network.exchange import Answer
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Gate, in_thread
from tests.auth.credentials_kit import (
    Clock,
    Counter,
    ScriptedTransport,
    Slept,
    Watched,
    await_all,
    emulated,
    fetch,
    scripted,
    together,
    warnings_in,
    write_file,
)

_MANY = 50


def _stampede(credentials: Credentials, waiting: threading.Semaphore) -> list[Any]:
    return together(_MANY, lambda: credentials.fetch(Watched(waiting)).access_token)


def _slow(waiting: threading.Semaphore, count: int = _MANY - 1) -> Callable[[], None]:
    """A hook that lets the token endpoint answer when ``count`` threads wait."""
    return lambda: await_all(waiting, count)


def test_fetch__fifty_threads_and_an_expired_token(emulator: Emulator, tmp_path: Path) -> None:
    path = emulator.write_credentials(tmp_path / "c.json", expires_in=-5)
    waiting = threading.Semaphore(0)
    emulator.token.before = _slow(waiting)
    outcomes = _stampede(emulated(path, emulator), waiting)
    assert len(emulator.token.requests) == 1
    assert set(outcomes) == {json.loads(path.read_text())["access_token"]}


def test_fetch__fifty_threads_and_a_refused_token(emulator: Emulator, tmp_path: Path) -> None:
    path = emulator.write_credentials(tmp_path / "c.json")
    credentials = emulated(path, emulator)
    refused = credentials.token()
    waiting = threading.Semaphore(0)
    emulator.token.before = _slow(waiting)

    def replay() -> str:
        credentials.invalidate(refused)
        return credentials.fetch(Watched(waiting)).access_token

    outcomes = together(_MANY, replay)
    assert len(emulator.token.requests) == 1
    assert len(set(outcomes)) == 1
    assert refused not in outcomes


@pytest.mark.parametrize("overtaken", ["reading", "deciding"])
def test_fetch__overtaken_by_the_refresh_of_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overtaken: str
) -> None:
    """A thread that read the refused token just before its replacement must not use it or put it back."""
    transport = ScriptedTransport(Counter(lifetime=600))
    credentials = scripted(write_file(tmp_path / "c.json", left=7200), transport, Clock())
    credentials.invalidate("file-access-token")
    late, gate = Call(), Gate()
    owner, name = (credentials_file, "read") if overtaken == "reading" else (credentials._source, "current")
    original, hooks = getattr(owner, name), iter([gate])

    def slow(*arguments: Any) -> Any:
        found = original(*arguments)
        if late in arguments:
            next(hooks, lambda: None)()
        return found

    monkeypatch.setattr(owner, name, slow)
    fetched = in_thread(lambda: credentials.fetch(late).access_token)
    gate.await_arrivals()
    assert fetch(credentials) == "kit-access-1"
    gate.open()
    assert fetched() == "kit-access-1"
    assert len(transport.forms) == 1


def test_fetch__token_refused_while_it_is_saved(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that joins the refresh after the 401 does not get the refused token back."""
    credentials = emulated(emulator.write_credentials(tmp_path / "c.json", expires_in=-5), emulator)
    update, gate, waiting = credentials_file.update, Gate(), threading.Semaphore(0)
    hooks = iter([gate])
    monkeypatch.setattr(credentials_file, "update", lambda *args: (next(hooks, lambda: None)(), update(*args))[1])
    leader = in_thread(credentials.token)
    gate.await_arrivals()
    refused = credentials.token()  # in memory already
    credentials.invalidate(refused)
    joined = in_thread(lambda: credentials.fetch(Watched(waiting)).access_token)
    await_all(waiting, 1)
    gate.open()
    assert joined() == leader() == credentials.token() != refused
    assert len(emulator.token.requests) == 2


def test_fetch__new_login_while_another_thread_adopts_an_older_reading(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = emulator.write_credentials(tmp_path / "c.json", expires_in=-5)
    emulator.revoke(json.loads(path.read_text())["refresh_token"])
    credentials = emulated(path, emulator)
    source, read, slow, gate, adopted = credentials._source, credentials_file.read, Call(), Gate(), threading.Event()
    new_login = threading.Event()
    late: list[Any] = []

    def slow_read(path: str, call: Call) -> Any:
        content = read(path, call)
        if call is slow:
            gate()
        elif new_login.is_set() and not gate.is_open:
            gate.open()
            assert adopted.wait(20)
        return content

    def log_in() -> None:
        late.append(in_thread(lambda: (source.current(slow), adopted.set())))
        gate.await_arrivals()
        emulator.write_credentials(path)
        new_login.set()

    monkeypatch.setattr(credentials_file, "read", slow_read)
    emulator.token.before = log_in
    assert credentials.token() == json.loads(path.read_text())["access_token"]
    late[0]()
    assert len(emulator.token.requests) == 1


@pytest.mark.parametrize("client", ["none", "given"])
def test_fetch__other_program_refreshes_just_before(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    path = emulator.write_credentials(tmp_path / "c.json", expires_in=-5)
    changes = {} if client == "given" else {"oauth_client": None}
    credentials = emulated(path, emulator, **changes)
    refresh = credentials._source.refresh

    def refresh_late(*args: Any, **kwargs: Any) -> AccessToken:
        emulator.write_credentials(path)
        return refresh(*args, **kwargs)

    monkeypatch.setattr(credentials._source, "refresh", refresh_late)
    assert credentials.token() == json.loads(path.read_text())["access_token"]
    assert not emulator.token.requests


def test_fetch__fifty_threads_share_a_failure(emulator: Emulator, tmp_path: Path) -> None:
    path = emulator.write_credentials(tmp_path / "c.json", expires_in=-5)
    before = path.read_bytes()
    waiting = threading.Semaphore(0)
    emulator.token.fail(400, error="invalid_grant", before=_slow(waiting))
    outcomes = _stampede(emulated(path, emulator, clock=Clock(time.time())), waiting)
    assert len(emulator.token.requests) == 1
    assert {type(outcome) for outcome in outcomes} == {RefreshError}
    assert {outcome.reason for outcome in outcomes} == {"invalid_grant"}
    assert len(set(map(id, outcomes))) == _MANY
    assert path.read_bytes() == before


def test_fetch__ahead_of_expiry_no_other_thread_waits(emulator: Emulator, tmp_path: Path) -> None:
    path = emulator.write_credentials(tmp_path / "c.json", expires_in=100)
    old = json.loads(path.read_text())["access_token"]
    credentials = emulated(path, emulator)
    done = threading.Semaphore(0)
    emulator.token.before = _slow(done)

    def go_on() -> str:
        token = credentials.fetch(Call()).access_token
        done.release()
        return token

    outcomes = together(_MANY, go_on)
    assert len(emulator.token.requests) == 1
    assert outcomes.count(old) == _MANY - 1
    assert credentials.token() not in (old, None)


def test_fetch__failure_ahead_of_expiry_is_told_once(
    emulator: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = emulator.write_credentials(tmp_path / "c.json", expires_in=60)
    emulator.token.fail(503, times=None)
    credentials = emulated(path, emulator, clock=Clock(time.time()))
    outcomes = together(_MANY, credentials.token)
    assert set(outcomes) == {json.loads(path.read_text())["access_token"]}
    assert len(warnings_in(caplog)) == len(emulator.token.requests) == 1


def test_fetch__token_that_expires_during_a_refresh_ahead(tmp_path: Path) -> None:
    clock, waiting = Clock(), threading.Semaphore(0)
    path = write_file(tmp_path / "c.json", left=60)
    outcomes: list[str] = []
    late = threading.Thread(
        target=lambda: outcomes.append(credentials.fetch(Watched(waiting)).access_token), daemon=True
    )

    def busy() -> Answer:
        clock.advance(60)
        late.start()
        await_all(waiting, 1)
        return Answer(503, {}, "busy")

    credentials = scripted(path, ScriptedTransport(busy, Counter()), clock)
    assert fetch(credentials) == "kit-access-1"
    late.join(10)
    assert outcomes == ["kit-access-1"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(), RuntimeError()], ids=repr)
def test_fetch__interrupted_refresh_is_taken_over(tmp_path: Path, interruption: BaseException) -> None:
    clock, waiting = Clock(), threading.Semaphore(0)
    path = write_file(tmp_path / "c.json", left=-5)

    def interrupted() -> BaseException:
        await_all(waiting, 9)
        return interruption

    credentials = scripted(path, ScriptedTransport(interrupted, Counter()), clock)
    outcomes = together(10, lambda: credentials.fetch(Watched(waiting)).access_token)
    assert outcomes.count(interruption) == 1
    assert outcomes.count("kit-access-1") == 9


def test_fetch__interrupt_while_reading(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("")

    def interrupt() -> None:
        raise KeyboardInterrupt

    credentials = scripted(path, ScriptedTransport(), Clock())
    with pytest.raises(KeyboardInterrupt):
        credentials.fetch(Call(sleep=Slept(hook=interrupt)))
    write_file(path)
    assert fetch(credentials) == "file-access-token"
