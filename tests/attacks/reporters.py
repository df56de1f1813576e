"""What the standard library, rich and sentry-sdk report of an error, with the variables of each frame."""

from __future__ import annotations

import functools
import io
import json
import traceback
from collections.abc import Iterator
from typing import Any, ClassVar

import rich.console
import rich.traceback
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport
from sentry_sdk.utils import event_from_exception

KEY, CLIENT_SECRET, ID_TOKEN = "canary+api/Key=1", "canary+client/Secret=2", "canary+id/Token=3"
#: What emulated credentials begin with. Their values are not known before a test has run.
CANARIES = (KEY, CLIENT_SECRET, ID_TOKEN, "emulator-access-token", "emulator-refresh-token", "canary")


class MemoryTransport(Transport):
    """Keeps the events that sentry-sdk would send."""

    events: ClassVar[list[Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.events += filter(None, [envelope.get_event()])


@functools.lru_cache(maxsize=1)
def _client() -> sentry_sdk.Client:
    # Without its integrations, because these change the standard library for all tests.
    return sentry_sdk.Client("http://public@127.0.0.1/1", transport=MemoryTransport, default_integrations=False)


def sentry_event(error: BaseException) -> Any:
    """The event that sentry-sdk makes of ``error``. It takes local variables along by default."""
    client = _client()
    event, hint = event_from_exception(error, client_options=client.options)
    client.capture_event(event, hint)
    return MemoryTransport.events.pop()


def with_rich(error: BaseException) -> str:
    """What rich shows, with all of each variable; without the lines of code, because to colour them takes long."""
    trace = rich.traceback.Traceback.extract(
        type(error), error, error.__traceback__, show_locals=True, locals_max_length=1000, locals_max_string=1_000_000
    )
    for frame in (frame for stack in trace.stacks for frame in stack.frames):
        frame.filename = f"<{frame.filename}>"  # code without a file
    file = io.StringIO()
    rich.console.Console(file=file, width=200).print(rich.traceback.Traceback(trace, show_locals=True))
    return file.getvalue()


def reports(error: BaseException) -> dict[str, str]:
    """What each reporter shows of ``error``."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return {
        "str": str(error),
        "repr": repr(error),
        "traceback": "".join(told.format()),
        "rich": with_rich(error),
        "sentry": json.dumps(sentry_event(error), default=repr, ensure_ascii=False),
    }


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """``error`` and all errors that it leads to."""
    todo, seen = [error], set()
    while todo:
        current = todo.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            todo += [current.__cause__, current.__context__]
            yield current


def leaks(texts: dict[str, str]) -> list[tuple[str, str]]:
    """Which of ``texts`` holds which canary."""
    return [(name, canary) for name, text in texts.items() for canary in CANARIES if canary.lower() in text.lower()]
