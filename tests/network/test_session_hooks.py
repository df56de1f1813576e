"""Response hooks of the caller's session change nothing about a call, whatever they do."""

from __future__ import annotations

import io
import traceback
from pathlib import Path
from typing import Any, Callable

import pytest
import requests

from gemini_sync import InvalidRequestError, TransportError
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import Rig
from tests.network.transport_kit import Canned, mocked
from tests.wire.support import event

ANSWER = event("Hello", "STOP")


def raises(response: requests.Response, **_: Any) -> None:
    response.raise_for_status()


def reads(response: requests.Response, **_: Any) -> None:
    assert response.content


def hooked(hook: Callable[..., None]) -> Callable[[], requests.Session]:
    def session() -> requests.Session:
        made = requests.Session()
        made.hooks["response"].append(hook)
        return made

    return session


@pytest.mark.parametrize("hook", [raises, reads])
def test_hook__changes_nothing_about_an_answer(rig: Rig, hook: Callable[..., None]) -> None:
    reply = rig.adapter(session_factory=hooked(hook)).generate("Hi")
    assert (reply.text, reply.route) == (default_text("Hi"), "oauth")
    assert rig.counts == (1, 0)


@pytest.mark.parametrize("hook", [raises, reads])
def test_hook__leaves_the_connection_for_the_next_call(rig: Rig, hook: Callable[..., None]) -> None:
    adapter = rig.adapter(oauth_creds_path=None, session_factory=hooked(hook))
    for _ in range(3):
        adapter.generate("Hi")
    assert rig.emulator.connections_total == 1


@pytest.mark.parametrize("hook", [raises, reads])
def test_hook__changes_nothing_about_an_error(rig: Rig, hook: Callable[..., None]) -> None:
    rig.emulator.oauth.fail(400, message="bad field", times=None)
    adapter = rig.adapter(session_factory=hooked(hook))
    with pytest.raises(InvalidRequestError, match="bad field"):
        adapter.generate("Hi")
    assert (rig.counts, rig.flips) == ((1, 0), [])


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_hook__that_reads_a_compressed_answer(emulator: Emulator, tmp_path: Path, encoding: str) -> None:
    with Rig(emulator, tmp_path) as rig:
        if encoding == "gzip":
            emulator.api_key.fail("gzip")
        adapter = rig.adapter(oauth_creds_path=None, session_factory=hooked(reads))
        assert adapter.generate("Hi").text == default_text("Hi")


def test_hook__that_raises_an_error_without_a_response() -> None:
    def broken(response: requests.Response, **_: Any) -> None:
        raise requests.HTTPError("no more")

    canned = Canned(lambda: io.BytesIO(ANSWER))
    session = canned.session()
    session.hooks["response"].append(broken)
    with pytest.raises(Exception, match="HTTPError") as caught:
        mocked(session_factory=lambda: session).generate("Hi")
    assert isinstance(caught.value.__cause__, requests.HTTPError)


def test_hook__error_of_another_service_is_not_taken_for_the_answer(rig: Rig) -> None:
    def audits(response: requests.Response, **_: Any) -> None:
        refusal = requests.Response()
        refusal.status_code, refusal.request = 401, requests.Request("POST", "https://audit.example").prepare()
        refusal.raise_for_status()

    with pytest.raises(TransportError, match="HTTPError"):
        rig.adapter(session_factory=hooked(audits), fallback=False).generate("Hi")
    assert not rig.emulator.token.requests


def test_hook__with_a_bug_can_be_found() -> None:
    def buggy(response: requests.Response, **_: Any) -> None:
        raise FileNotFoundError("/no/such/audit.log")

    session = Canned(lambda: io.BytesIO(ANSWER)).session()
    session.hooks["response"].append(buggy)
    with pytest.raises(TransportError, match="FileNotFoundError") as caught:
        mocked(session_factory=lambda: session).generate("Hi")
    assert caught.value.__cause__ is not None
    assert "buggy" in "".join(traceback.format_tb(caught.value.__cause__.__traceback__))
