"""Tests that no message, repr, traceback or log shows a secret, whatever goes wrong with a token or a file."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest

from gemini_sync.auth import credentials_file
from gemini_sync.auth.token_endpoint import TokenAnswer
from gemini_sync.config import Endpoints
from gemini_sync.errors import GeminiSyncError
from gemini_sync.network.cancelling import Call
from gemini_sync.services.project import load_code_assist
from gemini_sync.testing.emulator import Emulator
from tests.auth.credentials_kit import Clock, ScriptedTransport, Slept, emulated, scripted, told, write_file

# No general pattern finds these. Only code that knows them can remove them.
_SECRETS = {
    "access_token": "canary-access/1",
    "refresh_token": "canary-refresh/2",
    "id_token": "canary-id/3",
    "client_secret": "canary-client/4",
}
_ACCESS, _REFRESH, _, _CLIENT = _SECRETS.values()
_SENT = " ".join([_REFRESH, _CLIENT, quote_plus(_REFRESH), quote_plus(_CLIENT)])
_ALL = " ".join(_SECRETS.values())
_FAULTS: dict[str, Any] = {
    "503": lambda route: route.fail(503, body=_SENT.encode(), content_type="text/html", times=None),
    "400": lambda route: route.fail(400, error=_REFRESH, description=_SENT, times=None),
    "400 body": lambda route: route.fail(400, body=_SENT.encode(), times=None),
    "200 text": lambda route: route.answer(body=_ALL.encode()),
    "200 list": lambda route: route.answer(json=[_ALL]),
    "200 lifetime": lambda route: route.answer(json={**_SECRETS, "expires_in": -5}),
    "200 token": lambda route: route.answer(json={**_SECRETS, "access_token": "canary access"}),
    "307": lambda route: route.fail(307, headers={"Location": "http://127.0.0.1:1/" + _REFRESH}, times=None),
    "reset": lambda route: route.fail("reset", times=None),
}


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def _leaks(*texts: str) -> list[str]:
    return [text for text in texts if "canary" in text]


@pytest.mark.parametrize("left", [-5, 100], ids=["expired", "early"])
@pytest.mark.parametrize("fault", _FAULTS)
def test_token_faults(tmp_path: Path, log: pytest.LogCaptureFixture, fault: str, left: float) -> None:
    with Emulator(client_secret=_SECRETS["client_secret"]) as emulator:
        path = emulator.write_credentials(tmp_path / "c.json", expires_in=left)
        fields = {**json.loads(path.read_text()), **_SECRETS, "client_id": emulator.client_id}
        path.write_text(json.dumps(fields))
        _FAULTS[fault](emulator.token)
        credentials = emulated(path, emulator)
        shown = [repr(credentials), repr(credentials._source)]
        for _ in range(2):
            try:
                shown.append(repr(credentials.fetch(Call(sleep=Slept()))))
            except GeminiSyncError as exc:
                shown += [told(exc), told(pickle.loads(pickle.dumps(exc)))]
    assert emulator.token.requests
    assert (left > 0) is not any("Traceback" in text for text in shown)
    assert _leaks(log.text, *shown) == []
    assert log.text


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-9],
        lambda text: "[" + text + "]",
        lambda text: text.replace("canary-access/1", "canary\\nline"),
        lambda text: text.replace('"canary-refresh/2"', '["canary-refresh/2"]'),
        lambda text: text.replace("{", '{"type": "service_account", ', 1),
        lambda text: text.replace("canary-access/1", "\udcff"),
    ],
    ids=["torn", "list", "newline", "no string", "service account", "no UTF-8"],
)
def test_file_faults(tmp_path: Path, emulator: Emulator, log: pytest.LogCaptureFixture, change: Any) -> None:
    path = write_file(tmp_path / "c.json", **_SECRETS)
    path.write_bytes(change(path.read_text()).encode("utf-8", "surrogateescape"))
    with pytest.raises(GeminiSyncError) as caught:
        emulated(path, emulator).fetch(Call(sleep=Slept()))
    assert _leaks(log.text, told(caught.value)) == []


def test_nothing_wrong(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    with Emulator(client_secret=_SECRETS["client_secret"]) as emulator:
        emulator.token.answer(json={**_SECRETS, "expires_in": 3600})
        path = emulator.write_credentials(tmp_path / "c.json", expires_in=-5)
        path.chmod(0o644)
        credentials = emulated(path, emulator)
        token = credentials.fetch(Call())
        source: Any = credentials._source
        shown = [repr(token), repr(source.current(Call())), repr(source._cached), repr(credentials)]
    assert token.access_token == _SECRETS["access_token"]
    assert "canary" not in token.identity
    assert _leaks(log.text, *shown) == []
    assert "chmod 600" in log.text


@pytest.mark.parametrize(
    "answer",
    [
        lambda route: route.fail(403, message=_ACCESS, reason=_ACCESS, link=_ACCESS),
        lambda route: route.fail(400, body=f"<p>{_ACCESS}</p>".encode()),
        lambda route: route.fail(503, body=_ACCESS.encode()),
        lambda route: route.answer(body=_ACCESS.encode()),
        lambda route: route.answer(json=[_ACCESS]),
        lambda route: route.answer(json={"error": {"message": _ACCESS, "status": _ACCESS}}),
    ],
    ids=["403", "400", "503", "200 text", "200 list", "200 error"],
)
def test_project_faults(log: pytest.LogCaptureFixture, answer: Any) -> None:
    with Emulator() as emulator:
        emulator.accounts.check_bearer = lambda request: None  # type: ignore[method-assign]
        answer(emulator.load_code_assist)
        with pytest.raises(GeminiSyncError) as caught:
            load_code_assist(_ACCESS, endpoints=Endpoints(**emulator.urls))
    assert _leaks(log.text, told(caught.value)) == []


def test_values__show_no_secret(tmp_path: Path) -> None:
    path = write_file(tmp_path / "c.json", **_SECRETS, client_id="some-id")
    content = credentials_file.read(str(path), Call())
    source: Any = scripted(path, ScriptedTransport(), Clock())._source
    token = source.current(Call())
    answer = TokenAnswer(_ACCESS, 3600.0, _REFRESH, {"id_token": _SECRETS["id_token"]})
    for value in (content, content.client, token, source._cached, answer, source):
        assert "canary" not in f"{value!r} {value}"
