"""No variable of our frames ever holds a plain credential, so whatever interrupts a call, its traceback shows none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.oauth2.credentials import Credentials
from sentry_sdk.utils import safe_repr

from gemini_sync import (
    Endpoints,
    GeminiDualAdapter,
    GeminiSyncError,
    get_access_token,
    load_code_assist,
    stream_gemini_api_key,
    stream_gemini_oauth,
)
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Rig
from tests.attacks.reporters import CANARIES, CLIENT_SECRET, KEY

# The emulator has the credentials of its accounts. The other two are where plain text becomes a secret, or is redacted.
_EXEMPT = ("gemini_sync.testing", "gemini_sync.secret", "gemini_sync.redaction")

# Bytes on their way between a socket and the line that takes them on, like those in the frames of the libraries; and
# the mapping of a caller.
_ON_THE_WAY = {
    ("gemini_sync.environment", "variables_in", "environ"),
    ("gemini_sync.environment", "<dictcomp>", "environ"),
    ("gemini_sync.network.connection", "request", "body"),  # of google-auth, as in the next line
    ("gemini_sync.network.pools", "urlopen", "named"),
    ("gemini_sync.network.receiving", "read1", "pieces"),
    ("gemini_sync.network.receiving", "read1", "received"),
    ("gemini_sync.network.connection", "send", "data"),
    ("gemini_sync.network.exchange", "_read_text", "chunk"),
    ("gemini_sync.network.exchange", "chunks", "data"),
    ("gemini_sync.network.receiving", "read1", "data"),
}


def plain_variables(work: Callable[[], Any]) -> set[tuple[str, str, str]]:
    """Module, function and name of each variable of ours that shows a credential while ``work`` runs."""
    found: set[tuple[str, str, str]] = set()
    seen: set[Any] = set()

    def trace(frame: Any, event: str, argument: Any) -> Any:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith("gemini_sync") or module.startswith(_EXEMPT):
            return None
        if event in ("exception", "return") or (event == "line" and frame in seen):
            for name, value in list(frame.f_locals.items()):
                if any(canary in safe_repr(value) for canary in CANARIES):
                    found.add((module, frame.f_code.co_name, name))
        if event == "line":
            seen.add(frame)  # before its first line, a function has not concealed its arguments
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except GeminiSyncError:
        pass
    finally:
        sys.settrace(before)
    return found - _ON_THE_WAY


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Emulator(key=KEY, client_secret=CLIENT_SECRET) as emulator, Rig(emulator, tmp_path) as rig:
        rig.path = emulator.write_credentials(tmp_path / "oauth_creds.json", expires_in=-5)
        yield rig


def test_plain_variables__are_found() -> None:
    module: dict[str, Any] = {"__name__": "gemini_sync.leaky", "KEY": KEY}
    exec(compile("def leaky():\n    plain = str(KEY)\n    return plain", "leaky", "exec"), module)
    assert plain_variables(module["leaky"]) == {("gemini_sync.leaky", "leaky", "plain")}


def refresh_flip_and_answer(rig: Rig) -> None:
    with GeminiDualAdapter(**rig.settings()) as adapter:
        assert adapter.generate("Hi").route == "oauth"
        rig.emulator.oauth.fail(403)
        assert adapter.generate("Hi").route == "api_key"
        assert adapter.count_tokens("Hi")


def refused_refresh(rig: Rig) -> None:
    rig.emulator.token.fail(400, times=None, error="invalid_grant", description=CLIENT_SECRET)
    with GeminiDualAdapter(**rig.settings()) as adapter:
        assert adapter.generate("Hi").route == "api_key"


def odd_refresh(rig: Rig) -> None:
    rig.emulator.token.answer(json={"access_token": "emulator-access-token 1", "expires_in": 3600})
    get_access_token(rig.path, **{name: rig.settings()[name] for name in ("oauth_client", "endpoints")})


def refused_key(rig: Rig) -> None:
    rig.emulator.api_key.fail(400, times=None, reason="API_KEY_INVALID")
    list(stream_gemini_api_key("Hi", rig.emulator.key, endpoints=rig.settings()["endpoints"]))


def refused_token(rig: Rig) -> None:
    token = rig.emulator.issue_token()
    rig.emulator.oauth.fail(401, times=None)
    list(stream_gemini_oauth("Hi", token, "a-project", endpoints=rig.settings()["endpoints"]))


def project_of_a_token(rig: Rig) -> None:
    load_code_assist(rig.emulator.issue_token(), endpoints=rig.settings()["endpoints"])


def callable_source(rig: Rig) -> None:
    with GeminiDualAdapter(**rig.settings(oauth_creds_path=rig.emulator.issue_token)) as adapter:
        rig.emulator.oauth.fail(401, times=None)
        assert adapter.generate("Hi").route == "api_key"


def environment(rig: Rig) -> None:
    variables = {
        "GEMINI_API_KEY": KEY,
        "GEMINI_OAUTH_CLIENT_ID": rig.emulator.client_id,
        "GEMINI_OAUTH_CLIENT_SECRET": CLIENT_SECRET,
        "GOOGLE_APPLICATION_CREDENTIALS": str(rig.path),
        "OTHER_PASSWORD": "canary",
    }
    with GeminiDualAdapter.from_env(environ=variables, endpoints=rig.settings()["endpoints"]) as adapter:
        assert adapter.generate("Hi").route == "oauth"


def broken_file(rig: Rig) -> None:
    rig.path.write_text(rig.path.read_text()[:-9])
    with GeminiDualAdapter(**rig.settings()) as adapter:
        assert adapter.generate("Hi").route == "api_key"


def unreachable(rig: Rig) -> None:
    nowhere = Endpoints(gemini="http://127.0.0.1:1", code_assist="http://127.0.0.1:1", token=rig.emulator.urls["token"])
    with GeminiDualAdapter(**rig.settings(endpoints=nowhere, project="a-project")) as adapter:
        adapter.generate("Hi")


def google_auth(rig: Rig) -> None:
    given = Credentials(
        None,
        refresh_token=rig.emulator.issue_refresh_token(),
        token_uri=rig.emulator.urls["token"],
        client_id=rig.emulator.client_id,
        client_secret=CLIENT_SECRET,
    )
    with GeminiDualAdapter(**rig.settings(oauth_creds_path=given)) as adapter:
        assert adapter.generate("Hi").route == "oauth"


WORKS = (
    refresh_flip_and_answer, refused_refresh, odd_refresh, refused_key, refused_token, project_of_a_token,
    callable_source, environment, broken_file, unreachable, google_auth,
)  # fmt: skip


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_locals__hold_no_plain_credential(rig: Rig, work: Callable[[Rig], None]) -> None:
    assert plain_variables(lambda: work(rig)) == set()
