"""Runs threads in thousands of orders over the routing state, the token, and the search for the project.

Run as ``python -m tests.attacks.interleavings``. A job is ``STORY:NUMBER``: the number seeds what the threads do and
in which order their lines run, so the same job comes out the same way each time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import gemini_sync
from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.credentials import Credentials
from gemini_sync.config import Endpoints, Timeouts
from gemini_sync.errors import AuthError, GeminiSyncError, RefreshError
from gemini_sync.messages.request import Request
from gemini_sync.network.cancelling import Call
from gemini_sync.network.exchange import Answer
from gemini_sync.routing.events import FallbackEvent
from gemini_sync.routing.router import Router
from gemini_sync.services.base import API_KEY, OAUTH, OpenStream, with_token
from gemini_sync.services.project import Projects
from tests.adapter_kit import ask, chunk, forbidden, not_found, unavailable
from tests.attacks.kit import Teller, Work, arguments, chosen, finish, run_jobs
from tests.attacks.scheduler import Scheduler
from tests.auth.credentials_kit import Clock, scripted, write_file

THREADS = 4
_PACKAGE = os.path.dirname(gemini_sync.__file__)
_FOLDERS = tuple(os.path.join(_PACKAGE, name) + os.sep for name in ("routing", "auth", "services"))
_FILES = (os.path.join(_PACKAGE, "network", "cancelling.py"), os.path.join(_PACKAGE, "retrying.py"))

Found = Callable[..., None]
#: Prepares one schedule: what its threads do, what is looked at before each line, and what is checked at the end.
Story = tuple[list[Callable[[], Any]], Callable[[], object], Callable[[list[Any]], object]]


def traced(file: str) -> bool:
    return file.startswith(_FOLDERS) or file in _FILES


# -- the routing state


class _Service:
    """A service that answers or fails at random, and remembers the generation at which each thread asked it."""

    def __init__(self, route: str, world: _Routes) -> None:
        self.route, self._world = route, world

    def open(self, request: Request, call: Call) -> OpenStream:
        world = self._world
        world.asked_at.setdefault(world.scheduler.number(), world.now().choice.generation)
        world.scheduler.pause()
        call.check()
        if self.route == OAUTH and world.rng.random() < world.failing:
            raise world.rng.choice(world.errors)()
        return chunk("by"), self._rest(call)

    def _rest(self, call: Call) -> Any:
        self._world.scheduler.pause()
        call.check()
        if self.route == OAUTH and self._world.rng.random() < self._world.breaking:
            raise forbidden()
        yield chunk(f" {self.route}", "STOP")

    def count_tokens(self, request: Request, call: Call) -> int:
        return 1


class _Routes:
    """Threads that call, reset and cancel; the state is looked at before each line, so that no flip is missed."""

    def __init__(self, rng: random.Random, scheduler: Scheduler, found: Found, sticky_for: Optional[float]) -> None:
        self.rng, self.scheduler, self._found = rng, scheduler, found
        self.failing, self.breaking = rng.choice((0.5, 0.9, 1.0)), rng.choice((0.0, 0.3))
        self.errors: tuple[Callable[[], GeminiSyncError], ...] = (forbidden, forbidden, not_found, unavailable)
        self.asked_at: dict[int, int] = {}  # the generation at which each thread first asked OAuth in its call
        self.events: list[FallbackEvent] = []
        self._seconds = 0.0
        self.router = Router(
            {route: _Service(route, self) for route in (OAUTH, API_KEY)},
            sticky_for=sticky_for,
            on_fallback=self._tell,
            clock=self._clock,
            sleep=lambda seconds: scheduler.pause(),
        )
        self._flips: list[tuple[str, Optional[str]]] = []  # each change of the state: where to, and the model
        self._seen = self.now()

    def now(self) -> Any:
        return self.router._state.snapshot

    def _clock(self) -> float:
        self._seconds += 0.1
        return self._seconds

    def _tell(self, event: FallbackEvent) -> None:
        self.scheduler.pause()
        self.events.append(event)

    def fall_back(self) -> None:
        errors, self.errors = self.errors, (forbidden,)
        failing, self.failing = self.failing, 1.0
        list(self.router.stream(ask("model-a"), Timeouts()))
        self.watch()
        self.errors, self.failing = errors, failing / 2

    def watch(self) -> None:
        before, now = self._seen, self.now()
        if now is before:
            return
        self._seen = now
        if now.choice.generation < before.choice.generation:
            self._found("the generation went back")
        if now.reason != "reset()" and now.choice.route != before.choice.route:
            self._flips.append((now.choice.route, None))
            if self.asked_at.get(self.scheduler.number(), 0) < before.choice.generation:
                self._found("an outcome of an older generation was counted")
        self._flips += [(API_KEY, model.split("/")[1]) for model in now.models if model not in before.models]

    def works(self) -> list[Callable[[], Any]]:
        rng = self.rng
        return [
            functools.partial(self._act, [rng.choice(self._acts()) for _ in range(rng.randint(1, 2))])
            for _ in range(rng.randint(2, THREADS))
        ]

    def _acts(self) -> list[Callable[[], Any]]:
        return [self._call, self._call, self._call, self._cancel, self._reset]

    def _act(self, acts: list[Callable[[], Any]]) -> None:
        for act in acts:
            act()

    def _call(self) -> None:
        self.asked_at.pop(self.scheduler.number(), None)
        reply = self.router.stream(ask(self.rng.choice(("model-a", "model-b"))), Timeouts())
        try:
            text = "".join(reply)
        except GeminiSyncError:
            text = reply.text
            if text not in ("", "by"):
                self._found(f"a call that failed has the text {text!r}")
        else:
            if text != f"by {reply.route}":
                self._found(f"a call that ended well has the text {text!r} of {reply.route}")

    def _reset(self) -> None:
        self.scheduler.wait_a_while()
        self.router.reset()

    def _cancel(self) -> None:
        reply = self.router.stream(ask("model-a"), Timeouts())
        self.asked_at.pop(self.scheduler.number(), None)
        with contextlib.suppress(GeminiSyncError):
            next(reply)
            reply.cancel()
            list(reply)

    def check(self, outcomes: list[Any]) -> None:
        told = sorted((event.to_route, str(event.model)) for event in self.events)
        made = sorted((route, str(model)) for route, model in self._flips)
        if told != made:
            self._found(f"{len(made)} flips were made and {len(told)} told")
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self._found(f"a thread got {type(outcome).__name__}: {outcome}", outcome)


def routes(rng: random.Random, scheduler: Scheduler, found: Found, folder: Path) -> Story:
    """Calls whose OAuth fails now and then, cancelled calls, probes, resets."""
    world = _Routes(rng, scheduler, found, rng.choice((None, 0.3, 1.0)))
    return world.works(), world.watch, world.check


def probes(rng: random.Random, scheduler: Scheduler, found: Found, folder: Path) -> Story:
    """The same, but the first threads find that OAuth has failed a while ago and may be probed."""
    world = _Routes(rng, scheduler, found, 0.2)
    world.fall_back()
    return world.works(), world.watch, world.check


# -- the token


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


STORIES = {story.__name__: story for story in (routes, probes, refreshes, rotation, mixture, relogin, revocation)}


# -- the tool


@contextlib.contextmanager
def bench() -> Iterator[Work]:
    """A worker process: a scheduler and a folder for credentials files."""
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        scheduler = Scheduler(THREADS, traced)

        def work(job: str, tell: Teller) -> None:
            name = job.partition(":")[0]
            rng = random.Random(job)

            def found(kind: str, error: Optional[BaseException] = None) -> None:
                lines = (
                    traceback.format_stack()
                    if error is None
                    else traceback.format_exception(None, error, error.__traceback__)
                )
                tell.found(kind, "".join(line for line in lines if _PACKAGE in line or error is not None), name)

            tell.at(name)
            with scheduler.locks():
                works, watch, check = STORIES[name](rng, scheduler, found, Path(folder))
                outcomes = scheduler.run(rng, works, watch)
                deadlock = scheduler.deadlock
                if deadlock is None:
                    check(outcomes)
                    scheduler.run(rng, works[:1])  # alone, it waits for no other thread
            tell.count("schedules")
            tell.count(f"of {name}")
            if deadlock is not None:
                tell.found("deadlock", deadlock, name)
            elif scheduler.deadlock is not None:
                tell.found("a lock is taken at the end", scheduler.deadlock, name)

        yield work


def main() -> int:
    parser = arguments(__doc__, count=10_000)
    parser.add_argument("--stories", nargs="+", choices=STORIES, default=list(STORIES), help="default: all")
    given, started = parser.parse_args(), time.monotonic()
    share = -(-given.count // len(given.stories))
    first = given.seed * 1_000_000
    jobs = chosen((f"{story}:{first + number}" for story in given.stories for number in range(share)), given)
    report = run_jobs(jobs, bench, seconds=given.seconds, processes=given.processes, chunk=500)
    return report.show("interleavings", time.monotonic() - started)


if __name__ == "__main__":
    finish(main())
