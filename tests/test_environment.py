"""``from_env()``: which variables it reads, and which setting each of them gives."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Any

import pytest

import gemini_sync
from gemini_sync import Endpoints, GeminiDualAdapter, OAuthClient, Timeouts
from gemini_sync.errors import ConfigError
from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import TIMEOUTS, Rig


class Recording(GeminiDualAdapter):
    """An adapter that shows its settings."""

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
    "GOOGLE_GENAI_API_VERSION": "v1alpha",
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
        "endpoints": Endpoints("http://localhost:1", "v1alpha", "http://localhost:2"),
    }
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize("blank", ["", " ", "\n", '""', "' '"])
def test_from_env__blank_variable_counts_as_not_set(blank: str) -> None:
    names = ("GEMINI_API_KEY", "GOOGLE_CLOUD_PROJECT", "GEMINI_MODEL", "CODE_ASSIST_ENDPOINT")
    settings = Recording.from_env(environ={**VARIABLES, **dict.fromkeys(names, blank)}).settings
    assert (settings["api_key"], settings["project"]) == ("key-two", "project-two")
    assert settings["model"] == gemini_sync.DEFAULT_MODEL
    assert settings["endpoints"] == Endpoints("http://localhost:1", "v1alpha")


@pytest.mark.parametrize("around", [" {} ", '"{}"', "'{}'\n", ' " {}"'])
def test_from_env__white_space_and_quotes_around_values(around: str) -> None:
    """``docker run --env-file`` keeps the quotes of its file."""
    quoted = {name: around.format(value) for name, value in VARIABLES.items()}
    expected, settings = (Recording.from_env(environ=each).settings for each in (VARIABLES, quoted))
    assert settings == expected


@pytest.mark.parametrize(("version", "meant"), [("beta", "v1beta"), ("v1", "v1"), (" v1beta ", "v1beta")])
def test_from_env__version_of_the_api(version: str, meant: str) -> None:
    environ = {"GEMINI_API_KEY": "key", "GOOGLE_GENAI_API_VERSION": version}
    assert Recording.from_env(environ=environ).settings["endpoints"] == Endpoints(gemini_version=meant)


def test_from_env__arguments_win(tmp_path: Path) -> None:
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


def test_from_env__uses_the_default_file_if_it_exists(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "key")
    assert Recording.from_env().settings["oauth_creds_path"] is None
    path = home / ".gemini" / "oauth_creds.json"
    path.parent.mkdir()
    path.write_text("{}")
    assert Recording.from_env().settings["oauth_creds_path"] == str(path)
    assert Recording.from_env(oauth_creds_path=None).settings["oauth_creds_path"] is None


def test_from_env__home_of_the_given_variables(tmp_path: Path, home: Path) -> None:
    path = tmp_path / ".gemini" / "oauth_creds.json"
    path.parent.mkdir()
    path.write_text("{}")
    environ = {"GEMINI_API_KEY": "key", "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    assert Recording.from_env(environ=environ).settings["oauth_creds_path"] == str(path)
    named = {**environ, "GOOGLE_APPLICATION_CREDENTIALS": "~/mine.json"}
    assert Recording.from_env(environ=named).settings["oauth_creds_path"] == str(tmp_path / "mine.json")
    del named["HOME"], named["USERPROFILE"]
    assert Recording.from_env(environ=named).settings["oauth_creds_path"] == str(home / "mine.json")


def test_from_env__half_an_oauth_client_is_an_error_only_with_oauth(tmp_path: Path) -> None:
    environ = {"GEMINI_API_KEY": "key", "GEMINI_OAUTH_CLIENT_ID": "client-id"}
    assert Recording.from_env(environ=environ).settings["oauth_client"] is None
    named = {**environ, "GOOGLE_APPLICATION_CREDENTIALS": "named.json"}
    assert Recording.from_env(environ=named, oauth_creds_path=None).settings["oauth_client"] is None
    with pytest.raises(ConfigError, match="GEMINI_OAUTH_CLIENT_SECRET is not set"):
        Recording.from_env(environ=environ, oauth_creds_path=tmp_path)


def test_from_env__user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user in a container may have no entry in /etc/passwd."""

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
        {"GOOGLE_GENAI_API_VERSION": "newest"},
    ],
)
def test_from_env__variable_that_cannot_be_used(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        GeminiDualAdapter.from_env(environ={"GEMINI_API_KEY": "key", **environ})
    assert "password" not in str(caught.value)


def test_from_env__adapter_answers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
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
