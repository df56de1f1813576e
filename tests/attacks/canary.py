"""Lets a hostile server answer on both routes, and looks for its words in all that people see of it.

Run it by ``python -m tests.attacks.canary``. No credential, no control character and nothing over 20 kB may come out.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import sentry_sdk

from gemini_sync import Endpoints, GeminiDualAdapter, GeminiSyncError, OAuthClient, Retry
from gemini_sync.cli import main as command_line
from gemini_sync.network.cancelling import Call
from gemini_sync.testing.emulator import Emulator
from tests.attacks.hostile import ANSWERS, Hostile, script_of
from tests.attacks.reporters import CLIENT_SECRET, KEY, MemoryTransport, leaks, reports
from tests.wire.raw_server import RawServer

MOST_BYTES = 20_000
ROUTES = ("oauth", "api_key")
_ATTRIBUTES = ("code", "status", "reason", "retry_after", "link", "trace_id", "route", "attempts")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Stage:
    """What one answer is given to: a folder with credentials, the server of the hostile answer, a good emulator."""

    def __init__(self, hostile: Hostile, folder: Path, emulator: Emulator, url: str) -> None:
        self._hostile, self._emulator, self._url = hostile, emulator, url
        left = -60 if hostile.at == "token" else 3600
        self.path = emulator.write_credentials(folder / "oauth_creds.json", expires_in=left)

    def settings(self, route: str, **changes: Any) -> dict[str, Any]:
        urls = dict(self._emulator.urls)
        if route == "api_key":
            urls["gemini"] = self._url
        else:
            urls["token" if self._hostile.at == "token" else "code_assist"] = self._url
        return {
            "api_key": KEY,
            "oauth_creds_path": None if route == "api_key" else self.path,
            "oauth_client": OAuthClient(self._emulator.client_id, CLIENT_SECRET),
            "project": None if self._hostile.at == "project" else "a-project",
            "endpoints": Endpoints(**urls),
            "retry": Retry(max_attempts=1),
            "sleep": lambda seconds: None,
            **changes,
        }

    def error(self, route: str) -> tuple[Optional[GeminiSyncError], str]:
        """The error of a call on one route alone, and how the reply and the state of the adapter look."""
        alone = {"api_key": None} if route == "oauth" else {}
        with GeminiDualAdapter(**self.settings(route, **alone)) as adapter:
            reply, caught = adapter.stream("Hi"), None
            try:
                for _ in reply:
                    continue
            except GeminiSyncError as exc:
                caught = exc
                del exc
            return caught, f"{reply!r} {reply.attempts!r} {adapter.route_status()!r} {adapter!r}"

    def visible(self, route: str) -> str:
        """What a person sees: the line of a flip, or what the command line writes to a terminal."""
        seen = Terminal()
        with mock.patch.object(sys, "stderr", seen), mock.patch.object(sys, "stdout", Terminal()) as output:
            if route == "oauth":
                with GeminiDualAdapter(**self.settings(route)) as adapter, contextlib.suppress(GeminiSyncError):
                    adapter.generate("Hi")
            variables = {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": self.settings("api_key")["endpoints"].gemini}
            with mock.patch.dict(os.environ, {**variables, "HOME": "/nowhere"}), mock.patch.object(Call, "sleep"):
                if route == "api_key":
                    command_line(["ask", "Hi"])
            return seen.getvalue() + output.getvalue()


@contextlib.contextmanager
def logged() -> Iterator[io.StringIO]:
    """All that is logged, by libraries as well."""
    text = io.StringIO()
    handler, root = logging.StreamHandler(text), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from strings_in(item)
    elif isinstance(value, str):
        yield value


def controls_in(text: str) -> list[str]:
    """The characters of ``text`` that a terminal obeys or that nobody sees; lines may end."""
    return sorted({c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")})


def problems(surface: str, text: str) -> list[str]:
    found = [f"{surface} holds {canary}" for _, canary in leaks({surface: text})]
    found += [f"{surface} holds {controls!a}" for controls in [controls_in(text)] if controls]
    size = len(text.encode("utf-8", "surrogatepass"))
    return found + ([f"{surface} has {size} bytes"] if size > MOST_BYTES else [])


def surfaces(hostile: Hostile, route: str) -> Iterator[tuple[str, str]]:
    """What comes out of one answer on one route, by the place where it comes out."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        emulator = stack.enter_context(Emulator(key=KEY, client_secret=CLIENT_SECRET))
        server = stack.enter_context(RawServer(script_of(hostile)))
        log = stack.enter_context(logged())
        stage = Stage(hostile, folder, emulator, server.url)
        error, state = stage.error(route)
        yield "state", state
        yield "visible line", stage.visible(route)
        if error is not None:
            step: Any = error.__traceback__
            while not step.tb_frame.f_globals["__name__"].startswith("gemini_sync"):
                step = step.tb_next
            error.__traceback__ = step  # the frames above are those of this tool
            shown = reports(error)
            event = json.loads(shown.pop("sentry"))
            yield from shown.items()
            yield from (("sentry", text) for text in strings_in(event))
            yield "attributes", repr({name: getattr(error, name) for name in _ATTRIBUTES})
        yield from (("log", line) for line in log.getvalue().split("\n"))
        for event in MemoryTransport.events:  # which sentry-sdk has made of log records by itself
            yield from (("sentry of a log record", text) for text in strings_in(event))
        MemoryTransport.events.clear()


def main(*names: str) -> int:
    """Run the answers of these names, or all; with sentry-sdk as its users set it up."""
    sentry_sdk.init("http://public@127.0.0.1/1", transport=MemoryTransport)
    looked, found = 0, []
    for name in names or ANSWERS:
        for route in ROUTES:
            for surface, text in surfaces(ANSWERS[name], route):
                looked += 1
                found += [f"{name}, {route}: {problem}" for problem in problems(surface, text)]
    print(f"{len(names or ANSWERS)} hostile answers, 2 routes: looked at {looked} texts")
    print(*found, f"{len(found)} problems", sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
