"""Stories about tokens: refreshes, revoked tokens, another login, and the project that is found with a token."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.credentials import Credentials
from gemini_sync.config import Endpoints
from gemini_sync.errors import AuthError, GeminiSyncError, RefreshError
from gemini_sync.network.cancelling import Call
from gemini_sync.network.exchange import Answer
from gemini_sync.services.base import with_token
from gemini_sync.services.project import Projects
from tests.attacks.scheduler import THREADS, Found, Scheduler, Story
from tests.auth.credentials_kit import Clock, scripted, write_file


class _TokenServer:
    """In place of ``Transport``: the token endpoint and loadCodeAssist. Each refresh gives the next token."""

    def __init__(self, scheduler: Scheduler, valid: set[str]) -> None:
        self._scheduler, self.valid = scheduler, valid
        self.refreshes = 0
        self.fails = False
        self.refusal = 401  # of loadCodeAssist
        self.ended: tuple[str, str] = ("", "")  # a refresh token that is refused, and why

    def fetch(self, call: Call, method: str, url: str, headers: Any, body: Any = None, **rest: Any) -> Answer:
        self._scheduler.pause()
        call.check()
        if not url.endswith("/token"):
            return self._project(headers["Authorization"].split()[1])
        self.refreshes += 1
        token = f"new-token-{self.refreshes}"
        self._scheduler.pause()
        call.check()
        if self.ended[0] and self.ended[0].encode() in body:
            return Answer(400, {}, json.dumps({"error": self.ended[1]}))
        if self.fails:
            return Answer(400, {}, json.dumps({"error": "invalid_client"}))
        self.valid.add(token)
        return Answer(200, {}, json.dumps({"access_token": token, "expires_in": 3600}))

    def _project(self, token: str) -> Answer:
        accepted = token in self.valid
        self._scheduler.pause()
        if accepted:
            return Answer(200, {}, json.dumps({"currentTier": {}, "cloudaicompanionProject": "a-project"}))
        return Answer(self.refusal, {}, json.dumps({"error": {"code": self.refusal, "message": "refused"}}))

    def use(self, token: AccessToken) -> str:
        """Any request with ``token``."""
        accepted = token.access_token in self.valid
        self._scheduler.pause()
        if not accepted:
            raise AuthError("401", code=401)
        return token.access_token


def refreshes(rng: random.Random, scheduler: Scheduler, found: Found, folder: Path) -> Story:
    """The token in a file is over, or nearly over. One refresh serves all, also if one call is cancelled."""
    left = rng.choice((-10, 100, 20))
    path = write_file(folder / "oauth_creds.json", left=left)
    server = _TokenServer(scheduler, {"file-access-token"} if left > 30 else set())
    server.fails = left < 30 and rng.random() < 0.2
    credentials = scripted(path, server, Clock())
    calls = [Call(sleep=lambda seconds: None) for _ in range(rng.randint(2, THREADS))]
    cancels = rng.random() < 0.3
    works: list[Callable[[], Any]] = [functools.partial(credentials.fetch, call) for call in calls]
    if cancels and len(works) < THREADS:
        works.append(lambda: (scheduler.wait_a_while(), calls[0].cancel()))

    def check(outcomes: list[Any]) -> None:
        began = server.refreshes - (1 if cancels and server.refreshes > 1 else 0)  # the cancelled one may have begun
        if began != 1 and not cancels:
            found(f"one expiry led to {began} refreshes")
        for outcome in outcomes[: len(calls)]:
            if isinstance(outcome, AccessToken):
                if outcome.access_token not in server.valid:
                    found("a thread got a token that is not valid")
            elif not (server.fails and isinstance(outcome, RefreshError)) and not (cancels and outcome is outcomes[0]):
                found(f"a thread got {type(outcome).__name__}: {outcome}", outcome)

    return works, lambda: None, check


class _Tokens:
    """Threads that use a token for the project and for a request, while the token is revoked and replaced."""

    def __init__(self, rng: random.Random, scheduler: Scheduler, found: Found, server: _TokenServer) -> None:
        self._rng, self._scheduler, self._found, self._server = rng, scheduler, found, server
        self._projects = Projects(server, Endpoints())  # type: ignore[arg-type]

    def call(self, credentials: Credentials) -> str:
        call = Call(sleep=lambda seconds: None)
        return with_token(credentials, call, functools.partial(self._use, call))

    def _use(self, call: Call, token: AccessToken) -> str:
        valid_before = token.access_token in self._server.valid
        try:
            self._projects.project(call, token)
            return self._server.use(token)
        except GeminiSyncError:
            if valid_before and token.access_token in self._server.valid:
                self._found("a token that is valid was refused")
            raise

    def check(self, outcomes: list[Any]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self._found(f"a call failed with {type(outcome).__name__}: {outcome}", outcome)


def rotation(rng: random.Random, scheduler: Scheduler, found: Found, folder: Path) -> Story:
    """A caller's own source of tokens goes from an old token to a new one, and then the old one is revoked."""
    server = _TokenServer(scheduler, {"old-token", "new-token"})
    held = ["old-token"]
    tokens = _Tokens(rng, scheduler, found, server)
    credentials = scripted(lambda: held[0], server, Clock())

    def rotate() -> None:
        scheduler.wait_a_while()
        held[0] = "new-token"
        scheduler.wait_a_while()
        server.valid.discard("old-token")

    callers = [functools.partial(tokens.call, credentials) for _ in range(THREADS - 1)]
    return [*callers, rotate], lambda: None, tokens.check


def mixture(rng: random.Random, scheduler: Scheduler, found: Found, folder: Path) -> Story:
    """A source gives each call any of several tokens, and some of them are refused. A good one never is."""
    good, bad = ["good-1", "good-2"], ["revoked-1", "revoked-2"]
    server = _TokenServer(scheduler, set(good))
    server.refusal = rng.choice((400, 401, 403))
    tokens = _Tokens(rng, scheduler, found, server)
    credentials = scripted(lambda: rng.choice(good + bad), server, Clock())

    def call() -> None:
        for _ in range(2):
            with contextlib.suppress(GeminiSyncError):
                tokens.call(credentials)

    return [call] * rng.randint(2, THREADS), lambda: None, tokens.check


def relogin(rng: random.Random, scheduler: Scheduler, found: Found, folder: Path) -> Story:
    """A login has ended; another program logs in meanwhile. A thread that begins after that gets a token."""
    server = _TokenServer(scheduler, set())
    server.ended = "old-refresh-token", rng.choice(("invalid_grant", "invalid_client", "invalid_client"))
    path = write_file(folder / "oauth_creds.json", left=-10, refresh_token="old-refresh-token")
    credentials = scripted(path, server, Clock())
    other = write_file(folder / "other.json", left=-10, refresh_token="new-refresh-token", access_token="other")
    written = []

    def log_in() -> None:
        scheduler.wait_a_while()
        os.replace(other, path)
        written.append(True)

    def fetch() -> None:
        for _ in range(2):
            may_fail = not written
            try:
                credentials.fetch(Call(sleep=lambda seconds: None))
            except GeminiSyncError as exc:
                if not may_fail:
                    found(f"a thread with a new login got {type(exc).__name__}", exc)

    return [*[fetch] * (THREADS - 1), log_in], lambda: None, lambda outcomes: None


def revocation(rng: random.Random, scheduler: Scheduler, found: Found, folder: Path) -> Story:
    """The token in the file is revoked, although its time is not over. One refresh serves all."""
    server = _TokenServer(scheduler, set())
    path = write_file(folder / "oauth_creds.json", left=3000)
    tokens = _Tokens(rng, scheduler, found, server)
    credentials = scripted(path, server, Clock())

    def check(outcomes: list[Any]) -> None:
        tokens.check(outcomes)
        if server.refreshes != 1:
            found(f"one token that was refused led to {server.refreshes} refreshes")

    callers = rng.randint(2, THREADS)
    return [functools.partial(tokens.call, credentials) for _ in range(callers)], lambda: None, check
