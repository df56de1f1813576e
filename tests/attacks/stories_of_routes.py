"""Stories about the routing state: calls whose OAuth fails, resets, probes."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from gemini_sync.config import Timeouts
from gemini_sync.errors import GeminiSyncError
from gemini_sync.messages.request import Request
from gemini_sync.network.cancelling import Call
from gemini_sync.routing.events import FallbackEvent
from gemini_sync.routing.router import Router
from gemini_sync.services.base import API_KEY, OAUTH, OpenStream
from tests.adapter_kit import ask, chunk, forbidden, not_found, unavailable
from tests.attacks.scheduler import THREADS, Found, Scheduler, Story


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
        new = now.standing.keys() - before.standing.keys() - {None}
        self._flips += [(API_KEY, str(model).split("/")[1]) for model in new]

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
