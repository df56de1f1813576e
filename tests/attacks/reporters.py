"""What the standard library, rich and sentry-sdk report of an error, with the variables of each frame."""

from __future__ import annotations

import io
import json
import traceback
from collections.abc import Iterator
from typing import Any

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

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.events += filter(None, [envelope.get_event()])


def sentry_event(error: BaseException) -> Any:
    """The event that sentry-sdk makes of ``error``. It takes local variables along by default."""
    transport = MemoryTransport()
    # Without its integrations, because these change the standard library for all tests.
    client = sentry_sdk.Client("http://nobody@127.0.0.1/1", transport=transport, default_integrations=False)
    event, hint = event_from_exception(error, client_options=client.options)
    client.capture_event(event, hint)
    client.close()
    return transport.events[0]


def with_rich(error: BaseException, **settings: Any) -> str:
    console = rich.console.Console(file=io.StringIO(), width=200)
    shown = rich.traceback.Traceback.from_exception(
        type(error), error, error.__traceback__, show_locals=True, **settings
    )
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def reports(error: BaseException) -> dict[str, str]:
    """What each reporter shows of ``error``."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return {
        "str": str(error),
        "repr": repr(error),
        "traceback": "".join(told.format()),
        "rich": with_rich(error),
        "rich in full": with_rich(error, locals_max_length=None, locals_max_string=None),
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
