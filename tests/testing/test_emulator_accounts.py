"""The credentials of the emulator: which it accepts, the token endpoint, and the credential files it writes."""

from __future__ import annotations

import json
import os
import stat
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest

from gemini_sync.testing.emulator import Emulator
from tests.testing.support import OAUTH_STREAM, PROMPT, STREAM, WRAPPED, ask_oauth, send


def refresh(emulator, **changes):
    form = {
        "grant_type": "refresh_token",
        "refresh_token": emulator.issue_refresh_token(),
        "client_id": emulator.client_id,
        "client_secret": emulator.client_secret,
        **changes,
    }
    return send(emulator, "POST", "/token", urllib.parse.urlencode(form).encode())


@pytest.mark.parametrize("headers", [{}, {"x-goog-api-key": "wrong"}])
def test_api_key__not_valid(emulator, headers):
    error = send(emulator, "POST", STREAM, PROMPT, headers).content["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["details"][0]["reason"] == "API_KEY_INVALID"


def test_credentials__one_and_not_in_the_url(emulator):
    both = {"x-goog-api-key": emulator.key, "Authorization": "Bearer x"}
    assert "Multiple" in send(emulator, "POST", STREAM, PROMPT, both).content["error"]["message"]
    in_url = send(emulator, "POST", f"{STREAM}&key={emulator.key}", PROMPT)
    assert in_url.status == 400
    assert "URL" in in_url.content["error"]["message"]


def test_bearer__revoked_expired_unknown():
    now = [1000.0]
    with Emulator(clock=lambda: now[0]) as emulator:
        token = emulator.issue_token(expires_in=60)
        assert ask_oauth(emulator, token=token).status == 200
        now[0] += 60
        refused = ask_oauth(emulator, token=token)
        assert (refused.status, refused.content["error"]["status"]) == (401, "UNAUTHENTICATED")
        assert "invalid_token" in refused.headers["WWW-Authenticate"]
        token = emulator.issue_token()
        emulator.revoke(token)
        assert ask_oauth(emulator, token=token).status == 401
        assert send(emulator, "POST", OAUTH_STREAM, WRAPPED, {"Authorization": "Basic eA=="}).status == 401
        assert send(emulator, "POST", OAUTH_STREAM, WRAPPED).status == 401


def test_token__prefix(emulator):
    emulator.accounts.token_prefix = "ya29."
    token = refresh(emulator).content["access_token"]
    assert token.startswith("ya29.")
    assert ask_oauth(emulator, token=token).status == 200


def test_token__refresh(emulator):
    emulator.token_lifetime = 77
    answer = refresh(emulator).content
    assert answer["expires_in"] == 77
    assert "refresh_token" not in answer
    assert ask_oauth(emulator, token=answer["access_token"]).status == 200


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_id": "x"}, 401, "invalid_client"),
        ({"client_secret": "x"}, 401, "invalid_client"),
        ({"refresh_token": "x"}, 400, "invalid_grant"),
    ],
)
def test_token__refused(emulator, change, status, error):
    answer = refresh(emulator, **change)
    assert (answer.status, answer.content["error"]) == (status, error)


def test_write_credentials__gemini_cli(tmp_path):
    with Emulator(clock=lambda: 1000.0) as emulator:
        path = emulator.write_credentials(tmp_path / "new" / "creds.json", expires_in=60)
        content = json.loads(path.read_text())
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert content["expiry_date"] == 1_060_000
        assert "client_id" not in content
        assert ask_oauth(emulator, token=content["access_token"]).status == 200
        emulator.revoke(content["refresh_token"])
        assert refresh(emulator, refresh_token=content["refresh_token"]).status == 400


def test_write_credentials__authorized_user(emulator, tmp_path):
    path = tmp_path / "creds.json"
    path.write_text("{}")
    path.chmod(0o644)
    content = json.loads(emulator.write_credentials(str(path), style="authorized_user").read_text())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert content.pop("type") == "authorized_user"
    assert refresh(emulator, **content).status == 200
    emulator.revoke_all()
    assert refresh(emulator, **content).status == 400
    with pytest.raises(ValueError, match="style"):
        emulator.write_credentials(path, style="other")


@pytest.mark.parametrize("style", ["gemini-cli", "authorized_user"])
def test_write_credentials__over_its_own(emulator, tmp_path, style):
    path = emulator.write_credentials(tmp_path / "creds.json")
    with Emulator() as other:
        content = json.loads(other.write_credentials(path, style=style).read_text())
        assert refresh(other, refresh_token=content["refresh_token"]).status == 200
    assert json.loads(emulator.write_credentials(path).read_text())["refresh_token"] != content["refresh_token"]


@pytest.mark.parametrize(
    "text",
    [
        '{"refresh_token": "of-a-user"}',
        '{"type": "authorized_user", "client_id": "c", "refresh_token": "of-a-user"}',
        '{"access_token": "of-a-user"}',
        '{"refresh_token": ["emulator-refresh-token-1"]}',
        '{"refresh_token": "of-a-us',
        "[]",
        "\xff notes of a user",
    ],
)
def test_write_credentials__never_over_another_login(emulator, tmp_path, text):
    real = tmp_path / "real.json"
    real.write_bytes(text.encode("latin-1"))
    real.chmod(0o644)
    link = tmp_path / "creds.json"
    link.symlink_to(real)
    for path in (real, link):
        with pytest.raises(FileExistsError, match=r"Name another file"):
            emulator.write_credentials(path)
    assert real.read_bytes() == text.encode("latin-1")
    assert stat.S_IMODE(real.stat().st_mode) == 0o644


def test_token__rotated(emulator):
    emulator.rotates_refresh_tokens = True
    first = emulator.issue_refresh_token()
    second = refresh(emulator, refresh_token=first).content["refresh_token"]
    answer = refresh(emulator, refresh_token=first)
    assert (answer.status, answer.content["error"]) == (400, "invalid_grant")
    assert refresh(emulator, refresh_token=second).status == 200


def test_token__rotated_once_for_two_requests_at_the_same_time(emulator, monkeypatch):
    """Both have been found good before one of them gets the new refresh token."""
    emulator.rotates_refresh_tokens = True
    both, check_grant = threading.Barrier(2), emulator.accounts.check_grant
    monkeypatch.setattr(emulator.accounts, "check_grant", lambda request: (check_grant(request), both.wait(20)))
    token = emulator.issue_refresh_token()
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: refresh(emulator, refresh_token=token).status, range(2)))
    assert sorted(answers) == [200, 400]
