"""Threads that ask for their projects at the same time, with several logins and tokens."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.config import Endpoints
from gemini_sync.errors import AuthError, ServerError
from gemini_sync.network.cancelling import Call
from gemini_sync.network.exchange import Answer
from gemini_sync.network.transport import Transport
from gemini_sync.services.project import Projects
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Gate, in_thread
from tests.auth.credentials_kit import Watched, await_all, together


class _Accounts:
    """In place of ``Transport``. Each good token has a project; ``before`` is what each token calls first."""

    def __init__(self, **before: Any) -> None:
        self._before = before

    def fetch(self, call: Call, method: str, url: str, headers: Any, body: Any = None, **rest: Any) -> Answer:
        token = headers["Authorization"].split()[1]
        self._before[token]()
        if token.startswith("revoked"):
            return Answer(401, {}, json.dumps({"error": {"code": 401, "status": "UNAUTHENTICATED"}}))
        return Answer(200, {}, json.dumps({"currentTier": {}, "cloudaicompanionProject": f"project of {token}"}))


def test_projects__each_login_gets_its_own_after_the_failure_of_another_token() -> None:
    """In each of two logins, one thread waits for another whose token was revoked."""
    waiting = threading.Semaphore(0)
    gates = {name: Gate() for name in ("revoked_a", "revoked_b", "good_a")}
    projects = Projects(_Accounts(**gates, good_b=waiting.release), Endpoints())  # type: ignore[arg-type]

    def ask(call: Call, token: str) -> Any:
        return in_thread(lambda: projects.project(call, AccessToken(token, None, identity=token[-1])))

    refused, served = [], []
    for login in "ab":
        refused.append(ask(Call(), f"revoked_{login}"))
        gates[f"revoked_{login}"].await_arrivals()
        served.append(ask(Watched(waiting), f"good_{login}"))
        await_all(waiting, 1)
    gates["revoked_a"].open()
    gates["good_a"].await_arrivals()
    gates["revoked_b"].open()
    await_all(waiting, 1)  # the second login asks now, or waits for the first
    gates["good_a"].open()
    assert [result() for result in served] == ["project of good_a", "project of good_b"]
    for result in refused:
        with pytest.raises(AuthError):
            result()


def test_projects__two_threads_with_one_good_token_get_its_project_after_the_failure_of_another_token() -> None:
    """The slower thread learns of the failure only when the faster one has begun to ask with the good token."""
    waiting, learned = threading.Semaphore(0), threading.Event()
    gates = {"revoked_a": Gate(), "good_a": Gate()}
    projects = Projects(_Accounts(**gates), Endpoints())  # type: ignore[arg-type]

    class Slower(Watched):
        def wait_for(self, future: Any) -> None:
            super().wait_for(future)
            if not learned.is_set():
                gates["good_a"].await_arrivals()
                learned.set()

    def ask(call: Call, token: str) -> Any:
        return in_thread(lambda: projects.project(call, AccessToken(token, None, identity="a")))

    refused = ask(Call(), "revoked_a")
    gates["revoked_a"].await_arrivals()
    served = [ask(Watched(waiting), "good_a"), ask(Slower(waiting), "good_a")]
    await_all(waiting, 2)
    gates["revoked_a"].open()
    assert learned.wait(20)
    gates["good_a"].open()
    assert [result() for result in served] == ["project of good_a"] * 2
    with pytest.raises(AuthError):
        refused()


def test_projects__keep_one_until_other_credentials_take_over(emulator: Emulator) -> None:
    projects = Projects(Transport(), Endpoints(**emulator.urls))
    for identity in ("one", "one", "two", "two", "one"):
        assert projects.project(Call(), AccessToken(emulator.issue_token(), None, identity)) == "emulator-project"
    assert len(emulator.load_code_assist.requests) == 3


def test_projects__look_again_before_they_ask(emulator: Emulator) -> None:
    projects = Projects(Transport(), Endpoints(**emulator.urls))
    token = AccessToken(emulator.issue_token(), None)
    project = projects.project(Call(), token)
    assert projects._find(Call(), token).project == project  # a thread calls this if it looked before and begins after
    assert len(emulator.load_code_assist.requests) == 1


def test_projects__do_not_share_the_failure_of_another_token(emulator: Emulator) -> None:
    """A thread with a good token asks with that one, although both tokens belong to one login."""
    projects, gate, waiting = Projects(Transport(), Endpoints(**emulator.urls)), Gate(), threading.Semaphore(0)
    emulator.load_code_assist.fail(401, before=gate)
    refused = in_thread(lambda: projects.project(Call(), AccessToken("revoked", None)))
    gate.await_arrivals()
    good = AccessToken(emulator.issue_token(), None)
    served = in_thread(lambda: projects.project(Watched(waiting), good))
    await_all(waiting, 1)
    gate.open()
    assert served() == "emulator-project"
    with pytest.raises(AuthError):
        refused()
    assert len(emulator.load_code_assist.requests) == 2


def test_projects__ask_once_for_threads_with_a_token_each(emulator: Emulator) -> None:
    emulator.tier = None
    projects, waiting = Projects(Transport(), Endpoints(**emulator.urls)), threading.Semaphore(0)
    emulator.load_code_assist.before = lambda: await_all(waiting, 7)
    outcomes = together(8, lambda: projects.project(Watched(waiting), AccessToken(emulator.issue_token(), None)))
    assert outcomes == ["emulator-project"] * 8
    assert (len(emulator.load_code_assist.requests), len(emulator.onboard.requests)) == (1, 1)


def test_projects__ask_once_for_fifty_threads(emulator: Emulator) -> None:
    projects, waiting = Projects(Transport(), Endpoints(**emulator.urls)), threading.Semaphore(0)
    token = AccessToken(emulator.issue_token(), None)
    emulator.load_code_assist.before = lambda: await_all(waiting, 49)
    outcomes = together(50, lambda: projects.project(Watched(waiting), token))
    assert outcomes == ["emulator-project"] * 50
    assert len(emulator.requests) == 1


def test_projects__share_a_failure_and_do_not_keep_it(emulator: Emulator) -> None:
    projects, waiting = Projects(Transport(), Endpoints(**emulator.urls)), threading.Semaphore(0)
    token = AccessToken(emulator.issue_token(), None)
    emulator.load_code_assist.fail(503, before=lambda: await_all(waiting, 49))
    outcomes = together(50, lambda: projects.project(Watched(waiting), token))
    assert {type(outcome) for outcome in outcomes} == {ServerError}
    assert len(emulator.requests) == 1
    assert projects.project(Call(), token) == "emulator-project"
