"""Holds how an adapter is set up: bad settings, the environment, a route without a credential."""

from __future__ import annotations

import math
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import gemini_sync
from gemini_sync import Endpoints, GeminiDualAdapter, OAuthClient, Timeouts
from gemini_sync.errors import ConfigError, CredentialsError
from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import TIMEOUTS, Rig


@pytest.fixture
def rig(emulator: Emulator, tmp_path: Path) -> Iterator[Rig]:
    with Rig(emulator, tmp_path) as rig:
        yield rig


# -- settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", 5),
        ("api_key", ""),
        ("api_key", "two words"),
        ("api_key", "key\nX-Header: 1"),
        ("oauth_creds_path", 5),
        ("oauth_creds_path", " "),
        ("oauth_creds_path", '{"access_token": "x"}'),
        ("model", None),
        ("model", 5),
        ("model", ""),
        ("model", "models/../x"),
        ("model", "models/../../upload/x"),
        ("model", ".."),
        ("project", 12345),
        ("oauth_client", ("id", "secret")),
        ("endpoints", "https://example.com"),
        ("endpoints", None),
        ("timeouts", 30),
        ("retry", 3),
        ("fallback", "false"),
        ("fallback", 0),
        ("sticky_for", "60"),
        ("sticky_for", -1),
        ("sticky_for", math.nan),
        ("sticky_for", True),
        ("on_fallback", None),
        ("on_fallback", "print"),
        ("policy", None),
        ("policy", gemini_sync.Decision.SURFACE),
        ("require_finish", None),
        ("max_event_bytes", 0),
        ("max_event_bytes", 1.5),
        ("max_event_bytes", True),
        ("persist_credentials", "no"),
        ("session_factory", object()),
        ("clock", 0.0),
        ("sleep", 0.5),
    ],
)
def test_setting__that_cannot_be_used_is_refused_at_once(rig: Rig, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        rig.adapter(**{name: value})
    assert len(str(caught.value)) > len(name) + 10
    assert rig.emulator.key not in str(caught.value)
    assert rig.emulator.requests == []


@pytest.mark.parametrize("seconds", [0, 0.5, 1, 1e9, math.inf, None])
def test_sticky_for__any_number_from_zero_on(rig: Rig, seconds: Any) -> None:
    assert rig.adapter(sticky_for=seconds).generate("Hi").text == default_text("Hi")


@pytest.mark.parametrize("url", ["http://example.com", "ftp://127.0.0.1", "http://10.0.0.1", "example.com", 5])
@pytest.mark.parametrize("name", ["gemini", "code_assist", "token"])
def test_endpoint__that_is_in_the_clear_is_refused(name: str, url: Any) -> None:
    with pytest.raises(ConfigError, match=f"Endpoints.{name}"):
        GeminiDualAdapter("a-key", endpoints=Endpoints(**{name: url}))


def test_no_credentials__say_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"GEMINI_API_KEY.*oauth_creds\.json"):
        GeminiDualAdapter()
    with pytest.raises(ConfigError, match="No credentials"):
        GeminiDualAdapter.from_env()


def test_unknown_argument__is_a_type_error(rig: Rig) -> None:
    with pytest.raises(TypeError):
        rig.adapter(base_url="https://example.com")
    with pytest.raises(TypeError):
        rig.adapter().stream("Hi", temperature=1)


@pytest.mark.parametrize(
    ("contents", "options"),
    [
        ("", {}),
        (" \n", {}),
        ([], {}),
        (None, {}),
        (5, {}),
        (b"bytes", {}),
        ([{"role": "user", "parts": []}], {}),
        ([object()], {}),
        ("Hi", {"model": 5}),
        ("Hi", {"model": "models/../x"}),
        ("Hi", {"model": ""}),
        ("Hi", {"system_instruction": 5}),
        ("Hi", {"tools": {"googleSearch": {}}}),
        ("Hi", {"tools": "googleSearch"}),
        ("Hi", {"tool_config": []}),
        ("Hi", {"safety_settings": {}}),
        ("Hi", {"generation_config": 1.0}),
        ("Hi", {"generation_config": {"temperature": math.nan}}),
        ("Hi", {"generation_config": {"stopSequences": {"a", "b"}}}),
        ("Hi", {"cached_content": 5}),
        ("Hi", {"labels": "a=b"}),
        ("Hi", {"timeouts": 5}),
    ],
)
def test_argument__that_cannot_be_used_is_refused_at_the_call(
    rig: Rig, contents: Any, options: Mapping[str, Any]
) -> None:
    adapter = rig.adapter()
    for method in (adapter.stream, adapter.generate):
        with pytest.raises(ConfigError):
            method(contents, **options)
    if options.keys() <= {"model", "system_instruction", "tools", "timeouts"}:
        with pytest.raises(ConfigError):
            adapter.count_tokens(contents, **options)
    assert (rig.emulator.requests, rig.flips) == ([], [])


@pytest.mark.parametrize("alone", [True, False])
def test_credentials_path__that_is_a_directory(rig: Rig, tmp_path: Path, alone: bool) -> None:
    adapter = rig.adapter(oauth_creds_path=tmp_path, **({"api_key": None} if alone else {}))
    if alone:
        with pytest.raises(CredentialsError, match=str(tmp_path)):
            adapter.generate("Hi")
        assert rig.emulator.requests == []
    else:
        assert adapter.generate("Hi").route == "api_key"
        (event,) = rig.flips
        assert str(tmp_path) in str(event)
        assert rig.counts == (0, 1)


# -- the environment


class Recording(GeminiDualAdapter):
    """An adapter whose settings can be looked at."""

    @property
    def settings(self) -> dict[str, Any]:
        return self._settings


VARIABLES = {
    "GEMINI_API_KEY": "key-one",
    "GOOGLE_API_KEY": "key-two",
    "GEMINI_MODEL": "gemini-of-the-environment",
    "GOOGLE_CLOUD_PROJECT": "project-one",
    "GOOGLE_CLOUD_PROJECT_ID": "project-two",
    "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/named.json",
    "GOOGLE_GEMINI_BASE_URL": "http://localhost:1",
    "CODE_ASSIST_ENDPOINT": "http://localhost:2",
    "GEMINI_OAUTH_CLIENT_ID": "client-id",
    "GEMINI_OAUTH_CLIENT_SECRET": "client-secret",
}


def test_from_env__reads_every_variable() -> None:
    settings = Recording.from_env(environ=VARIABLES).settings
    expected = {
        "api_key": "key-one",
        "oauth_creds_path": "/nowhere/named.json",
        "model": "gemini-of-the-environment",
        "project": "project-one",
        "oauth_client": OAuthClient("client-id", "client-secret"),
        "endpoints": Endpoints(gemini="http://localhost:1", code_assist="http://localhost:2"),
    }
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_from_env__has_second_names_and_ignores_blank_ones(blank: str) -> None:
    names = ("GEMINI_API_KEY", "GOOGLE_CLOUD_PROJECT", "GEMINI_MODEL", "CODE_ASSIST_ENDPOINT")
    settings = Recording.from_env(environ={**VARIABLES, **dict.fromkeys(names, blank)}).settings
    assert (settings["api_key"], settings["project"]) == ("key-two", "project-two")
    assert settings["model"] == gemini_sync.DEFAULT_MODEL
    assert settings["endpoints"] == Endpoints(gemini="http://localhost:1")


def test_from_env__lets_arguments_win(tmp_path: Path) -> None:
    given = {
        "api_key": None,
        "oauth_creds_path": str(tmp_path),
        "model": "mine",
        "project": "mine",
        "oauth_client": None,
        "endpoints": Endpoints(),
        "fallback": False,
        "timeouts": Timeouts(total=1),
    }
    settings = Recording.from_env(environ=VARIABLES, **given).settings
    assert {name: settings[name] for name in given} == given


def test_from_env__takes_the_file_at_home_where_there_is_one(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "key")
    assert Recording.from_env().settings["oauth_creds_path"] is None
    path = home / ".gemini" / "oauth_creds.json"
    path.parent.mkdir()
    path.write_text("{}")
    assert Recording.from_env().settings["oauth_creds_path"] == str(path)
    assert Recording.from_env(oauth_creds_path=None).settings["oauth_creds_path"] is None


def test_from_env__takes_home_from_the_variables_it_is_given(tmp_path: Path, home: Path) -> None:
    path = tmp_path / ".gemini" / "oauth_creds.json"
    path.parent.mkdir()
    path.write_text("{}")
    environ = {"GEMINI_API_KEY": "key", "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    assert Recording.from_env(environ=environ).settings["oauth_creds_path"] == str(path)
    named = {**environ, "GOOGLE_APPLICATION_CREDENTIALS": "~/mine.json"}
    assert Recording.from_env(environ=named).settings["oauth_creds_path"] == str(tmp_path / "mine.json")
    del named["HOME"], named["USERPROFILE"]
    assert Recording.from_env(environ=named).settings["oauth_creds_path"] == str(home / "mine.json")


def test_from_env__half_an_oauth_client_is_no_error_where_nothing_is_refreshed(tmp_path: Path) -> None:
    environ = {"GEMINI_API_KEY": "key", "GEMINI_OAUTH_CLIENT_ID": "client-id"}
    assert Recording.from_env(environ=environ).settings["oauth_client"] is None
    named = {**environ, "GOOGLE_APPLICATION_CREDENTIALS": "named.json"}
    assert Recording.from_env(environ=named, oauth_creds_path=None).settings["oauth_client"] is None
    with pytest.raises(ConfigError, match="GEMINI_OAUTH_CLIENT_SECRET is not set"):
        Recording.from_env(environ=environ, oauth_creds_path=tmp_path)


def test_from_env__needs_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has no entry in /etc/passwd."""

    def unknown(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert Recording.from_env(environ={"GEMINI_API_KEY": "key"}).settings["oauth_creds_path"] is None


@pytest.mark.parametrize(
    "environ",
    [
        {"GOOGLE_GEMINI_BASE_URL": "http://example.com"},
        {"CODE_ASSIST_ENDPOINT": "https://user:password@example.com"},
        {"GEMINI_OAUTH_CLIENT_ID": "client-id", "GOOGLE_APPLICATION_CREDENTIALS": "named.json"},
        {"GEMINI_OAUTH_CLIENT_SECRET": "client-secret", "GOOGLE_APPLICATION_CREDENTIALS": "named.json"},
        {"GEMINI_MODEL": "a/b/c"},
    ],
)
def test_from_env__refuses_what_cannot_be_used(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        GeminiDualAdapter.from_env(environ={"GEMINI_API_KEY": "key", **environ})
    assert "password" not in str(caught.value)


def test_from_env__serves(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "GEMINI_API_KEY": rig.emulator.key,
        "GOOGLE_APPLICATION_CREDENTIALS": str(rig.path),
        "GOOGLE_GEMINI_BASE_URL": rig.emulator.url,
        "CODE_ASSIST_ENDPOINT": rig.emulator.url + "/",
    }.items():
        monkeypatch.setenv(name, value)
    with GeminiDualAdapter.from_env(timeouts=TIMEOUTS) as adapter:
        assert adapter.generate("Hi").text == default_text("Hi")
    assert rig.counts == (1, 0)


# -- a route without a credential


def test_oauth_route__is_off_without_credentials(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    adapter = rig.adapter(oauth_creds_path=None)
    assert adapter.generate("Hi").route == "api_key"
    status = adapter.route_status()
    assert (status.preferred, status.fallback_active, adapter.fallback_active) == ("api_key", False, False)
    adapter.reset()
    assert adapter.generate("Hi").route == "api_key"
    assert {request.route for request in rig.emulator.requests} == {"api_key"}
    assert rig.flips == []
    assert capfd.readouterr().err == ""


def test_api_key_route__is_off_without_a_key(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    rig.emulator.oauth.fail(403, times=1)
    adapter = rig.adapter(api_key=None)
    with pytest.raises(gemini_sync.PermissionDeniedError) as caught:
        adapter.generate("Hi")
    assert caught.value.__cause__ is None
    assert adapter.generate("Hi").route == "oauth"
    assert (rig.counts, rig.flips, adapter.fallback_active) == ((2, 0), [], False)
    assert capfd.readouterr().err == ""
