"""A route of the emulator: the requests it received, and the script of its answers and failures."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Callable

from gemini_sync.testing.emulator.answers import ParsedRequest, ScriptedAnswer
from gemini_sync.testing.emulator.faults import Fault, make_fault
from gemini_sync.testing.emulator.messages import Recorded


@dataclass(eq=False)
class Step:
    """One scripted answer or fault. ``left`` counts requests (None: all), and ``model`` restricts it (None: any)."""

    model: str | None
    left: int | None
    before: Callable[[], object] | None
    answer: ScriptedAnswer | None = None
    fault: Fault | None = None

    def suits(self, request: ParsedRequest, *, refused: bool) -> bool:
        if self.model not in (None, request.name):
            return False
        return self.answer is None or (not refused and (request.generates or self.answer.literal))


class Route:
    """One route of an emulator: ``requests`` holds what came, ``answer`` and ``fail`` script what comes back.

    Steps with ``times=n`` are used in the order given; each is used by the first requests that it suits. A request
    that is refused, because of a wrong key for example, uses a fault but no answer. If no step with ``times=n`` suits
    a request, the standing steps (``times=None``) decide, until ``reset()``. There is at most one standing answer and
    one standing fault for each ``model``: a new one replaces the old one, and a new standing answer also removes the
    standing fault. A fault damages the standing answer: ``answer(body=…)`` then ``fail("cut", at=17)`` cuts that body.

    ``before`` is a function without arguments. The server thread calls it for each request, after the request is
    recorded and before it is answered. ``models`` are the models that this route serves; if it is None, the
    emulator's ``models`` are served.
    """

    def __init__(self, name: str, changed: threading.Condition) -> None:
        self.name = name
        self.requests: list[Recorded] = []
        self.before: Callable[[], object] | None = None
        self.models: Collection[str] | None = None
        self._changed = changed  # guards requests, _queue, _answers and _faults; notified at each request
        self._queue: list[Step] = []
        self._answers: dict[str | None, Step] = {}
        self._faults: dict[str | None, Step] = {}

    def answer(
        self,
        *,
        times: int | None = None,
        model: str | None = None,
        before: Callable[[], object] | None = None,
        **fields: Any,
    ) -> None:
        """Script an answer; ``fields`` are those of ``ScriptedAnswer``. ``before`` is called as the request arrives.

        Raises TypeError for an unknown field. Raises ValueError for fields that contradict each other, for fields that
        this route cannot answer with, and for ``times`` below 1.
        """
        answer = ScriptedAnswer(**fields)
        if self.name not in ("oauth", "api_key") and not answer.literal:
            raise ValueError(f"the route {self.name} answers with body=… or json=…")
        self._add(Step(model, times, before, answer=answer))

    def fail(
        self,
        kind: int | str,
        *,
        times: int | None = 1,
        model: str | None = None,
        before: Callable[[], object] | None = None,
        **arguments: Any,
    ) -> None:
        """Script a failure. ``kind`` is an HTTP status or the name of a function in ``faults`` that gets ``arguments``.

        Raises ValueError for an unknown kind or ``times`` below 1, TypeError for arguments that the kind does not take.
        """
        self._add(Step(model, times, before, fault=make_fault(kind, **arguments)))

    def _add(self, step: Step) -> None:
        if step.left is not None and step.left < 1:
            raise ValueError(f"times is at least 1, or None for always, not {step.left}")
        with self._changed:
            if step.left is not None:
                self._queue.append(step)
            elif step.fault is not None:
                self._faults[step.model] = step
            else:
                self._answers[step.model] = step
                self._faults.pop(step.model, None)

    def reset(self) -> None:
        """Forget everything that is scripted, and keep the recorded requests."""
        with self._changed:
            self.before = None
            self._queue.clear()
            self._answers.clear()
            self._faults.clear()

    def wait_for(self, count: int, timeout: float = 10.0) -> bool:
        """Block until ``count`` requests are recorded; False if fewer came within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.requests) >= count, timeout)

    def take(self, request: ParsedRequest, *, refused: bool) -> tuple[Step | None, ScriptedAnswer | None]:
        """The step for a request, and the answer to send or to damage: the step's own, or else the standing one."""
        with self._changed:
            suiting = [step for step in self._queue if step.suits(request, refused=refused)]
            standing = [
                step
                for steps in (self._faults, self._answers)
                for step in (steps.get(request.name), steps.get(None))
                if step is not None and step.suits(request, refused=refused)
            ]
            step = next(iter(suiting + standing), None)
            if step is not None and step.left is not None:
                step.left -= 1
                if not step.left:
                    self._queue.remove(step)
        answers = (found.answer for found in (step, *standing) if found is not None and found.answer is not None)
        return step, next(answers, None)
