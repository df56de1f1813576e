"""``session_factory``, with which a caller gives an adapter its own sessions of requests."""

from __future__ import annotations

import pickle

import pytest
import requests

from gemini_sync import GeminiDualAdapter, StreamInterrupted, Timeouts
from gemini_sync.errors import DeadlineExceeded
from gemini_sync.network.sessions import default_session
from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Rig


class Sessions:
    """A factory that remembers its sessions, and which of them are closed."""

    def __init__(self) -> None:
        self.made: list[requests.Session] = []
        self.closed: list[requests.Session] = []

    def __call__(self) -> requests.Session:
        session = requests.Session()
        close = session.close
        session.close = lambda: (self.closed.append(session), close())  # type: ignore[method-assign, assignment]
        session.headers["X-Of-The-Caller"] = "yes"
        self.made.append(session)
        return session


def test_session_factory__makes_all_sessions_and_close_closes_them(rig: Rig) -> None:
    sessions = Sessions()
    adapter = rig.adapter(session_factory=sessions)
    assert sessions.made == []
    for _ in range(3):
        adapter.generate("Hi")
    assert len(sessions.made) == 1
    held = [adapter.stream("Hi") for _ in range(3)]
    assert all(map(next, held))
    assert len(sessions.made) == 3
    for reply in held:
        assert list(reply)
    assert sessions.closed == []
    assert rig.emulator.connections_total == 3
    assert all(request.headers["X-Of-The-Caller"] == "yes" for request in rig.emulator.requests)
    adapter.close()
    assert set(sessions.closed) == set(sessions.made)


def test_session_factory__plain_session_keeps_the_deadlines(rig: Rig) -> None:
    """After a broken answer the adapter closes the session, too."""
    sessions = Sessions()
    adapter = rig.adapter(session_factory=sessions, timeouts=Timeouts(idle=0.05))
    rig.emulator.oauth.fail("drip", after=1, interval=0.005)
    with pytest.raises(StreamInterrupted) as caught:
        adapter.generate("Hi")
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    assert caught.value.__cause__.deadline == "idle"
    assert sessions.closed == sessions.made
    assert adapter.generate("Hi").route == "oauth"


def test_session_factory__its_error_reaches_the_caller(rig: Rig) -> None:
    def broken() -> requests.Session:
        raise RuntimeError("no session today")

    with pytest.raises(RuntimeError, match="no session today"):
        rig.adapter(session_factory=broken).generate("Hi")


def test_session_factory__is_in_the_pickle(rig: Rig) -> None:
    settings = {**rig.settings(), "on_fallback": print, "sleep": None, "session_factory": default_session}
    with GeminiDualAdapter(**settings) as adapter, pickle.loads(pickle.dumps(adapter)) as copy:
        assert copy.generate("Hi").text == default_text("Hi")
