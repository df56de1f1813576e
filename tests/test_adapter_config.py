"""How an adapter is set up: settings that cannot be used, and routes without a credential."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import gemini_sync
from gemini_sync import Endpoints, GeminiDualAdapter
from gemini_sync.errors import ConfigError, CredentialsError
from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Rig

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
        ("sticky_for", "hints"),
        ("remind_every", 0),
        ("remind_every", -1.0),
        ("remind_every", math.nan),
        ("remind_every", True),
        ("remind_every", "daily"),
        ("quota_by_model", None),
        ("quota_by_model", "yes"),
        ("quota_by_model", 1),
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
def test_setting__that_cannot_be_used(rig: Rig, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        rig.adapter(**{name: value})
    assert len(str(caught.value)) > len(name) + 10
    assert rig.emulator.key not in str(caught.value)
    assert rig.emulator.requests == []


@pytest.mark.parametrize("seconds", [0, 0.5, 1, 1e9, math.inf, None, "hint"])
def test_sticky_for__any_number_of_at_least_zero_or_hint(rig: Rig, seconds: Any) -> None:
    assert rig.adapter(sticky_for=seconds).generate("Hi").text == default_text("Hi")


@pytest.mark.parametrize("url", ["http://example.com", "ftp://127.0.0.1", "http://10.0.0.1", "example.com", 5])
@pytest.mark.parametrize("name", ["gemini", "code_assist", "token"])
def test_endpoint__without_tls(name: str, url: Any) -> None:
    with pytest.raises(ConfigError, match=f"Endpoints.{name}"):
        GeminiDualAdapter("a-key", endpoints=Endpoints(**{name: url}))


def test_no_credentials__message_says_what_to_do() -> None:
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
def test_argument__that_cannot_be_used(rig: Rig, contents: Any, options: Mapping[str, Any]) -> None:
    adapter = rig.adapter()
    for method in (adapter.stream, adapter.generate):
        with pytest.raises(ConfigError):
            method(contents, **options)
    if options.keys() <= {"model", "system_instruction", "tools", "timeouts"}:
        with pytest.raises(ConfigError):
            adapter.count_tokens(contents, **options)
    assert (rig.emulator.requests, rig.flips) == ([], [])


@pytest.mark.parametrize("alone", [True, False])
def test_credentials_path__is_a_directory(rig: Rig, tmp_path: Path, alone: bool) -> None:
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
