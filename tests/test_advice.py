"""Messages that advise something: each test makes the situation, follows the advice, and sees that it helps."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import google.auth.exceptions
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gemini_sync import (
    ConfigError,
    CredentialsError,
    DeadlineExceeded,
    FallbackEvent,
    GeminiDualAdapter,
    OAuthClient,
    RefreshError,
    Timeouts,
    get_access_token,
    stream_gemini_api_key,
    stream_gemini_oauth,
)
from gemini_sync.network.cancelling import Call
from gemini_sync.network.exchange import Exchange
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Rig
from tests.auth.credentials_kit import Clock, ScriptedTransport, fetch, scripted, warnings_in, write_file


@pytest.fixture
def rig(emulator: Emulator, tmp_path: Path) -> Any:
    with Rig(emulator, tmp_path) as rig:
        yield rig


def _from_env(rig: Rig, **more: str) -> GeminiDualAdapter:
    settings = rig.settings()
    for name in ("api_key", "oauth_creds_path", "oauth_client"):
        del settings[name]
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(rig.path), **more}
    return rig.enter_context(GeminiDualAdapter.from_env(environ=environ, **settings))


# -- credentials


def test_no_credentials__arguments_or_the_environment_through_from_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "a-key")
    with pytest.raises(ConfigError, match=r"give api_key, .* from_env\(\) and the command line read the environment"):
        GeminiDualAdapter()  # it reads no environment
    GeminiDualAdapter("a-key").close()
    GeminiDualAdapter.from_env().close()


@pytest.mark.parametrize("key", ["", "  "])
def test_empty_key__none_helps_the_adapter_only(rig: Rig, key: str) -> None:
    with pytest.raises(ConfigError, match=r"api_key is empty\. .*None to leave this route off"):
        rig.adapter(api_key=key)
    rig.adapter(api_key=None)
    for plain in (lambda: stream_gemini_api_key("Hi", key), lambda: stream_gemini_oauth("Hi", key, "p")):
        with pytest.raises(ConfigError, match=r"is empty\. Give the credential itself\.$"):
            plain()
    with pytest.raises(ConfigError, match=r"OAuthClient\.id is empty\. Give the credential itself\.$"):
        OAuthClient(key, "secret")


def test_empty_path__leave_it_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for use in (lambda: rig.adapter(oauth_creds_path=""), lambda: get_access_token("")):
        with pytest.raises(ConfigError, match=r"Give the path .* or leave the argument out"):
            use()
    GeminiDualAdapter("a-key").close()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(rig.path))
    assert get_access_token()


def test_oauth_client_is_missing__argument_or_from_env(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.emulator.write_credentials(rig.path, expires_in=-5)
    client = {
        "GEMINI_OAUTH_CLIENT_ID": rig.emulator.client_id,
        "GEMINI_OAUTH_CLIENT_SECRET": rig.emulator.client_secret,
    }
    for name, value in client.items():
        monkeypatch.setenv(name, value)  # an adapter made with arguments does not read it
    with pytest.raises(ConfigError, match=r"Give oauth_client=, or set GEMINI_\w+ and GEMINI_\w+ for from_env\(\)"):
        rig.adapter(api_key=None, oauth_client=None).generate("Hi")
    assert rig.adapter(api_key=None).generate("Hi").route == "oauth"
    rig.emulator.write_credentials(rig.path, expires_in=-5)
    assert _from_env(rig, **client).generate("Hi").route == "oauth"


def test_file_of_another_type__the_expression_in_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, key = tmp_path / "service.json", rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    names = {"type": "service_account", "project_id": "p", "client_email": "a@example.com", "private_key": pem}
    path.write_text(json.dumps({**names, "token_uri": "https://token.example"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(CredentialsError) as caught:
        get_access_token(path)
    (expression,) = re.findall(r"google\.auth\.default\S+", str(caught.value))
    credentials = eval(expression, {"google": google})
    assert not credentials.requires_scopes
    with GeminiDualAdapter(oauth_creds_path=credentials, project="p"):
        pass


@pytest.mark.parametrize("kind", ["authorized", 5, "installed"])
def test_file_of_an_unknown_type__google_auth_would_not_load_it(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "creds.json"
    path.write_text(json.dumps({"type": kind}))
    with pytest.raises(CredentialsError, match=r"of the type .*\. Log in again with the program that writes this file"):
        get_access_token(path)


def test_file__that_no_login_would_mend(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"is not a file\. Name a file\.$"):
        get_access_token(tmp_path)
    with pytest.raises(CredentialsError, match=r"cannot be read: .*\. Let this user read it, or name another file\.$"):
        get_access_token(str(tmp_path / "half\0path"))


def test_open_file__the_command_in_the_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_file(tmp_path / "a file; with odd characters.json")
    path.chmod(0o644)
    fetch(scripted(path, ScriptedTransport(), Clock()))
    (warning,) = warnings_in(caplog)
    assert shlex.split(warning.partition("Run: ")[2]) == ["chmod", "600", str(path)]


@pytest.mark.parametrize("given", ["", "Bearer some-token"])
def test_token_source__what_it_should_return(given: str) -> None:
    with pytest.raises(CredentialsError, match="Let it return the access token alone, without 'Bearer'"):
        fetch(scripted(lambda: given, ScriptedTransport(), Clock()))


# -- the token endpoint


@pytest.mark.parametrize(
    ("code", "answer", "step"),
    [
        (404, {"body": b"<html>No such page</html>"}, r"\. Check Endpoints\.token and the proxies\.$"),
        (401, {"error": "deleted_client"}, r"Check the OAuth client, which is the one in the credentials file if"),
        (403, {"error": "org_internal"}, r"\. Log in again, or check the OAuth client\.$"),
        (503, {"error": "some_error"}, r"\. Try again later\.$"),
    ],
)
def test_refusal__of_the_token_endpoint(rig: Rig, code: int, answer: dict[str, Any], step: str) -> None:
    rig.emulator.write_credentials(rig.path, expires_in=-5)
    rig.emulator.token.fail(code, times=None, **answer)
    with pytest.raises(RefreshError, match=step):
        rig.adapter(api_key=None).generate("Hi")


@pytest.mark.parametrize(
    "answer", [b"<html>Sign in</html>", b"{}", b'{"access_token": ""}', b'{"access_token": "a b"}']
)
def test_token_endpoint__answer_that_a_caller_cannot_copy_again(rig: Rig, answer: bytes) -> None:
    rig.emulator.write_credentials(rig.path, expires_in=-5)
    rig.emulator.token.fail(200, body=answer, times=None)
    with pytest.raises(
        RefreshError, match=r"\. Check Endpoints\.token and the proxies, or try again later\.$"
    ) as caught:
        rig.adapter(api_key=None).generate("Hi")
    assert "Give the credential" not in str(caught.value)
    assert "Copy" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "retryable", "step"),
    [
        ("TransportError", False, "Check the network and proxies"),
        ("RefreshError", True, "Check the network and proxies"),
        ("RefreshError", False, "Log in again, or check the scopes and rights"),
    ],
)
def test_google_auth__step_by_the_kind_of_failure(name: str, retryable: bool, step: str) -> None:
    class Failing:
        token: Optional[str] = None

        def refresh(self, request: object) -> None:
            raise getattr(google.auth.exceptions, name)("No.", retryable=retryable)

    with pytest.raises(RefreshError, match=step):
        fetch(scripted(Failing(), ScriptedTransport(), Clock()))


# -- the project


def test_project_is_missing__argument_or_from_env(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.emulator.project = None
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")  # an adapter made with arguments does not read it
    with pytest.raises(ConfigError, match=r"as project=, or in GOOGLE_CLOUD_PROJECT for from_env\(\)"):
        rig.adapter(api_key=None).generate("Hi")
    assert rig.adapter(api_key=None, project="my-project").generate("Hi").route == "oauth"
    assert _from_env(rig, GOOGLE_CLOUD_PROJECT="my-project").generate("Hi").route == "oauth"


@pytest.mark.parametrize("project", ["My Project", " "])
def test_project__that_is_no_id(rig: Rig, project: str) -> None:
    with pytest.raises(ConfigError, match=r"^project .*\. Give its id, which the Google Cloud console shows"):
        rig.adapter(api_key=None, project=project).generate("Hi")


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "FAILED_PRECONDITION"])
def test_project__refusal_does_not_advise_to_change_the_request(rig: Rig, status: str) -> None:
    rig.emulator.load_code_assist.fail(400, status=status, message="It failed.")
    with pytest.raises(CredentialsError, match=r": It failed\. Check the project, .* what this account may use\.$"):
        rig.adapter(api_key=None).generate("Hi")


# -- deadlines


@pytest.mark.parametrize(("timeouts", "step"), [(None, "No setting"), (Timeouts(), "Raise Timeouts.connect")])
def test_deadline__of_a_function_that_takes_no_timeouts(timeouts: Optional[Timeouts], step: str) -> None:
    call = Call(timeouts).start()  # get_access_token() and load_code_assist() give none
    call.enter("connect", call.timeouts.connect)
    assert f"within 10 s. {step}" in str(call.deadline_error())


def test_small_request__names_its_whole_limit_if_its_body_stalls() -> None:
    clock = Clock()

    class Stalled:
        def read(self, size: int) -> bytes:
            clock.advance(30)
            return b" "

    response = requests.Response()
    response.status_code, response.raw, response.url = 200, Stalled(), "https://example.com"  # type: ignore[assignment]
    response.close = lambda: None  # type: ignore[method-assign]
    call = Call(clock=clock).start()
    with call.bounded(20, "The answer"):
        call.enter_answer()
        clock.advance(5)
        with pytest.raises(DeadlineExceeded, match=r"^The answer did not come within 20 s\. "):
            Exchange(call, response, lambda reusable: None).answer(20)


# -- the way back after a fallback


def _flip(rig: Rig, **changes: Any) -> tuple[GeminiDualAdapter, str]:
    adapter = rig.adapter(**changes)
    assert adapter.generate("Hi").route == "api_key"
    (event,) = rig.flips
    assert isinstance(event, FallbackEvent)
    return adapter, str(event)


def test_way_back__after_an_answer_about_the_account(rig: Rig) -> None:
    rig.emulator.oauth.fail(403, reason="TOS_VIOLATION")
    adapter, line = _flip(rig)
    assert "To go back, fix this, then call reset(force=True)." in line
    adapter.reset()
    assert adapter.generate("Hi").route == "api_key"
    adapter.reset(force=True)
    assert adapter.generate("Hi").route == "oauth"


def _without_project(rig: Rig) -> dict[str, Any]:
    rig.emulator.project = None
    return {"project": "my-project"}


def _without_client(rig: Rig) -> dict[str, Any]:
    rig.emulator.write_credentials(rig.path, expires_in=-5)
    return {"oauth_client": OAuthClient(rig.emulator.client_id, rig.emulator.client_secret)}


@pytest.mark.parametrize("break_it", [_without_project, _without_client])
def test_way_back__after_a_setting_was_wrong(rig: Rig, break_it: Callable[[Rig], dict[str, Any]]) -> None:
    mended = break_it(rig)
    adapter, line = _flip(rig, **dict.fromkeys(mended))
    assert "To go back, fix this, then make a new adapter." in line
    adapter.reset()
    assert adapter.generate("Hi").route == "api_key"
    assert rig.adapter(**mended).generate("Hi").route == "oauth"


def test_way_back__after_other_failures(rig: Rig) -> None:
    good = rig.path.read_bytes()
    rig.path.write_text("{ this is no JSON")
    adapter, line = _flip(rig)
    assert line.endswith("To go back, fix this, then call reset().")
    rig.path.write_bytes(good)
    adapter.reset()
    assert adapter.generate("Hi").route == "oauth"
