"""A route's memory: what it was asked, and what it was told to answer; it knows no sockets."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Callable

from gemini_sync.testing.emulator.answers import Answer, Call
from gemini_sync.testing.emulator.faults import Fault, make_fault
from gemini_sync.testing.emulator.wire import Recorded


@dataclass(eq=False)
class Step:
    """One scripted answer or fault, for how many requests (None: for all), of which model (None: of any)."""

    model: str | None
    left: int | None
    before: Callable[[], object] | None
    answer: Answer | None = None
    fault: Fault | None = None

    def suits(self, call: Call, *, refused: bool) -> bool:
        if self.model not in (None, call.name):
            return False
        return self.answer is None or (not refused and (call.generates or self.answer.literal))


class Route:
    """One route of an emulator: `requests` holds what came, `answer` and `fail` say what happens to the next.

    Steps with `times=n` are used up in the order given, each by the first requests that it suits; a request
    that is refused (a wrong key, say) uses up no answer, but does use up a fault. Below them lie a standing
    answer and a standing fault (`times=None`), the latest of each, until `reset()`; a standing answer lifts
    a standing fault. A fault damages the standing answer: `answer(body=…)` then `fail("cut", at=17)` cuts
    that body. `before` is a hook called without arguments in the server thread for each request, once it is
    recorded and before anything is answered. `models` are the models served here (None: what the emulator's
    `models` says).
    """

    def __init__(self, name: str, changed: threading.Condition) -> None:
        self.name = name
        self.requests: list[Recorded] = []
        self.before: Callable[[], object] | None = None
        self.models: Collection[str] | None = None
        self._changed = changed  # guards requests, _queue, _answers and _faults; told of each request
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
        """Script an answer; `fields` are those of `Answer`. `before` is called as the request arrives.

        Raises TypeError for an unknown field, ValueError for fields that contradict each other or make no
        answer of this route, and for `times` below 1.
        """
        answer = Answer(**fields)
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
        """Script a failure: an HTTP status, or the name of a kind in `faults`, whose arguments follow.

        Raises ValueError for an unknown kind or `times` below 1, TypeError for arguments it does not take.
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
        """Forget everything that was scripted; what was recorded stays."""
        with self._changed:
            self.before = None
            self._queue.clear()
            self._answers.clear()
            self._faults.clear()

    def wait_for(self, count: int, timeout: float = 10.0) -> bool:
        """Block until that many requests are recorded; False after `timeout` seconds without them."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.requests) >= count, timeout)

    def take(self, call: Call, *, refused: bool) -> tuple[Step | None, Answer | None]:
        """The step that a request gets, and the answer it is about: its own, or the standing one it damages."""
        with self._changed:
            suiting = [step for step in self._queue if step.suits(call, refused=refused)]
            standing = [
                step
                for steps in (self._faults, self._answers)
                for step in (steps.get(call.name), steps.get(None))
                if step is not None and step.suits(call, refused=refused)
            ]
            step = next(iter(suiting + standing), None)
            if step is not None and step.left is not None:
                step.left -= 1
                if not step.left:
                    self._queue.remove(step)
        answers = (found.answer for found in (step, *standing) if found is not None and found.answer is not None)
        return step, next(answers, None)
