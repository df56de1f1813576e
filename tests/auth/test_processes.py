"""Processes that share a credentials file, while each refresh gives a new refresh token and ends the old one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import in_thread
from tests.support import python_child

_SECONDS = 20.0
_ROUNDS = 12

# Reads the paths of credentials files, and makes a call with each; tells when it waits, and which route served.
_CALLER = """
import json, sys, time
from gemini_sync import Endpoints, GeminiDualAdapter, OAuthClient

def wait(seconds):
    print("waits", flush=True)
    time.sleep(seconds)

urls, key, client = json.loads(sys.argv[1])
for line in sys.stdin:
    with GeminiDualAdapter(
        api_key=key, oauth_creds_path=line.strip(), endpoints=Endpoints(**urls), oauth_client=OAuthClient(*client),
        on_fallback=lambda event: None, sleep=wait,
    ) as adapter:
        print(adapter.generate("Hi").route, flush=True)
"""


class _Caller:
    """A process that makes calls."""

    def __init__(self, child: Any) -> None:
        self._child = child

    def call(self, path: Path, waits: Callable[[], None]) -> str:
        """The route that served a call with the file; calls ``waits`` when the process begins to wait."""
        self._child.stdin.write(f"{path}\n")
        self._child.stdin.flush()
        while (said := self._child.stdout.readline().strip()) == "waits":
            waits()
        return str(said)


class _BothAsk:
    """Lets the token endpoint answer the first of two processes when the other has asked as well, or waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _asked
        self._asked = 0
        self.settled = threading.Event()

    def __call__(self) -> None:
        with self._lock:
            self._asked += 1
            asked = self._asked
        if asked > 1:
            self.settled.set()
        assert self.settled.wait(_SECONDS)


def test_processes__with_refresh_tokens_that_rotate(emulator: Emulator, tmp_path: Path) -> None:
    """Both find the token expired. One refreshes; the other waits for it, and uses the new token without a request."""
    emulator.rotates_refresh_tokens = True
    settings = json.dumps([emulator.urls, emulator.key, [emulator.client_id, emulator.client_secret]])
    served = []
    with python_child("-c", _CALLER, settings) as first, python_child("-c", _CALLER, settings) as second:
        callers = [_Caller(first), _Caller(second)]
        for number in range(_ROUNDS):
            path = emulator.write_credentials(tmp_path / f"{number}.json", expires_in=-5)
            emulator.token.before = asks = _BothAsk()
            calls = [in_thread(partial(caller.call, path, asks.settled.set)) for caller in callers]
            served += [call() for call in calls]
    assert served == ["oauth"] * (2 * _ROUNDS)
    assert len(emulator.token.requests) == _ROUNDS
    assert {path.name for path in tmp_path.iterdir()} == {f"{number}.json" for number in range(_ROUNDS)}
