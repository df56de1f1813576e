"""The guard of the pytest plugin: a test that would reach Gemini's real hosts fails, however it gets there."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

import pytest
import urllib3.connection

from gemini_sync_pytest import Guard, RealHostError
from tests.testing.test_pytest_plugin import Run, counts, folder, run, tape

__all__ = ["folder", "run"]  # fixtures

HOSTS = (
    "generativelanguage.googleapis.com",
    "cloudcode-pa.googleapis.com",
    "aiplatform.googleapis.com",
    "europe-west4-aiplatform.googleapis.com",
    "aiplatform.eu.rep.googleapis.com",
)
OTHERS = (
    "storage.googleapis.com",
    "oauth2.googleapis.com",
    "generativelanguage.googleapis.com.example.com",
    "localhost",
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was looked up; there is no name service, also if a guard fails."""
    asked: list[str] = []

    def getaddrinfo(host: object, *_: object, **__: object) -> None:
        asked.append(str(host))
        raise socket.gaierror(socket.EAI_NONAME, "there is no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def failed(done: pytest.RunResult, host: str = "generativelanguage.googleapis.com") -> bool:
    return f"RealHostError: This test would have reached {host}. Replay a recording" in done.stdout.str()


@pytest.fixture
def guard() -> Guard:
    made = Guard()
    made.install()
    made.install()  # which does nothing more
    made.is_on = True
    yield made
    made.remove()


# -- in a run


def test_guard__fails_the_test_that_calls(run: Run, no_network: list[str]) -> None:
    done = run("def test_it():\n    ask()")
    assert counts(done) == {"failed": 1}
    assert failed(done)
    assert no_network == []


def test_guard__fails_the_test_whose_code_catches_it(run: Run) -> None:
    done = run(
        """
def test_it():
    try:
        ask()
    except Exception:
        pass

def test_next_one():
    pass
"""
    )
    assert counts(done) == {"failed": 1, "passed": 1}
    assert failed(done)


def test_guard__hears_of_threads(run: Run) -> None:
    done = run(
        """
from concurrent.futures import ThreadPoolExecutor

def test_it():
    with ThreadPoolExecutor() as pool:
        pool.submit(ask)
"""
    )
    assert counts(done) == {"failed": 1}
    assert failed(done)


def test_guard__hears_of_fixtures(run: Run) -> None:
    done = run(
        """
@pytest.fixture
def before():
    ask()

@pytest.fixture
def after():
    yield
    try:
        ask()
    except Exception:
        pass

def test_before(before): pass
def test_after(after): pass
"""
    )
    assert counts(done) == {"errors": 2, "passed": 1}


def test_guard__is_lifted_by_marker_and_by_setting(run: Run) -> None:
    code = "def test_it():\n    with pytest.raises(GeminiSyncError, match='no network'):\n        ask()"
    assert counts(run(code)) == {"failed": 1}
    assert counts(run(f"@pytest.mark.gemini_live\n{code}")) == {"passed": 1}
    assert counts(run(code, "-o", "gemini_guard=false")) == {"passed": 1}


def test_guard__lets_a_recording_through(run: Run, no_network: list[str]) -> None:
    code = "def test_it(gemini_cassette):\n    with pytest.raises(GeminiSyncError, match='no network'):\n        ask()"
    assert counts(run(code, "--gemini-record=once")) == {"passed": 1}
    assert no_network[0] == "generativelanguage.googleapis.com"
    assert counts(run(code.replace("gemini_cassette", ""), "--gemini-record=once")) == {"failed": 1}


def test_guard__lets_a_replay_and_mocks_alone(run: Run, folder: Path) -> None:
    tape(folder, "test_replay", "recorded")
    done = run(
        """
import responses
from gemini_sync.testing import add_stream

def test_replay(gemini_cassette):
    assert ask() == "recorded"

@responses.activate
def test_mock():
    add_stream(responses, "mocked")
    assert ask() == "mocked"
"""
    )
    assert counts(done) == {"passed": 2}, done.stdout.str()


def test_guard__of_a_run_ends_with_it(run: Run) -> None:
    before = socket.getaddrinfo, vars(http.client.HTTPConnection)["_tunnel"]
    run("def test_it(): ask()")
    assert (socket.getaddrinfo, vars(http.client.HTTPConnection)["_tunnel"]) == before


# -- which hosts


@pytest.mark.parametrize("host", [*HOSTS, HOSTS[0].upper() + ".", HOSTS[0].encode()])
def test_host__that_is_real(guard: Guard, host: object, no_network: list[str]) -> None:
    with pytest.raises(RealHostError, match=r"googleapis\.com"):
        socket.getaddrinfo(host, 443)
    assert (len(guard.refused), no_network) == (1, [])


@pytest.mark.parametrize("host", OTHERS)
def test_host__of_others(guard: Guard, host: str, no_network: list[str]) -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(host, 443)
    assert (guard.refused, no_network) == ([], [host])


def test_token_endpoint__is_refused_to_this_package_alone(guard: Guard) -> None:
    guard.check("oauth2.googleapis.com")
    names = {"__name__": "gemini_sync.auth.anything", "check": guard.check}
    with pytest.raises(RealHostError):
        eval("check('oauth2.googleapis.com')", names)


@pytest.mark.parametrize("lifted", [True, False])
def test_guard__that_is_off_or_lifted(guard: Guard, lifted: bool) -> None:
    guard.is_on, guard.is_lifted = lifted, lifted
    guard.check(HOSTS[0])


@pytest.mark.parametrize("owner", [http.client, urllib3.connection])
def test_tunnel__to_a_real_host_is_refused(guard: Guard, owner: object, monkeypatch: pytest.MonkeyPatch) -> None:
    tunnelled: list[str] = []
    connection_class = owner.HTTPConnection  # type: ignore[attr-defined]
    if "_tunnel" not in vars(connection_class):
        pytest.skip("urllib3 has no tunnel of its own on this Python")
    monkeypatch.setattr(connection_class, "_tunnel", lambda connection: tunnelled.append(connection._tunnel_host))
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("proxy.example.com", 3128)
    connection = connection_class("proxy.example.com")
    for host in (HOSTS[0], "example.com"):
        connection.set_tunnel(host, 443)
        if host == HOSTS[0]:
            with pytest.raises(RealHostError):
                connection._tunnel()
        else:
            connection._tunnel()
    assert tunnelled == ["example.com"]


def test_remove__leaves_what_came_in_between(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    between = socket.getaddrinfo
    later = lambda *arguments: between(*arguments)  # noqa: E731
    monkeypatch.setattr(socket, "getaddrinfo", later)
    guard.remove()
    assert socket.getaddrinfo is later
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(HOSTS[0], 443)
