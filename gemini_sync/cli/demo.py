"""The command ``demo``, which shows the fallback on an emulator."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gemini_sync.adapter import GeminiDualAdapter
from gemini_sync.config import Endpoints, OAuthClient
from gemini_sync.errors import GeminiSyncError
from gemini_sync.network.sessions import default_session
from gemini_sync.routing.events import FallbackEvent, notify_stderr
from gemini_sync.testing.emulator import Emulator, default_text

if TYPE_CHECKING:
    import requests

_PROMPT = "Why is the sky blue?"
_PACE_SECONDS = 0.05


class DemoFailed(GeminiSyncError):
    """A step of the demo did not go as expected."""


def run(write: Callable[[str], object]) -> None:
    """Run the four steps; ``write`` gets their story and the answers, standard error the line of the adapter.

    All requests stay on loopback, and all files in a temporary folder. No real credentials, home or proxy is used.

    Raises:
        DemoFailed: a step did not go as expected.
    """
    flips: list[FallbackEvent] = []

    def on_fallback(event: FallbackEvent) -> None:
        flips.append(event)
        notify_stderr(event)

    with tempfile.TemporaryDirectory(prefix="gemini-sync-demo-") as folder, Emulator() as emulator:
        for route in (emulator.oauth, emulator.api_key):
            route.answer(pace=_PACE_SECONDS)
        path = emulator.write_credentials(Path(folder) / "oauth_creds.json")
        good = path.read_bytes()
        with GeminiDualAdapter(
            emulator.key,
            path,
            oauth_client=OAuthClient(emulator.client_id, emulator.client_secret),
            endpoints=Endpoints(**emulator.urls),
            on_fallback=on_fallback,
            session_factory=_direct_session,
        ) as adapter:

            def ask(story: str, route: str, count: int) -> None:
                write(f"\n{story}\n\n")
                with adapter.stream(_PROMPT) as reply:
                    for text in reply:
                        write(text)
                active = adapter.fallback_active
                write(f"\n\n   served by: {reply.route}   fallback_active: {active}\n")
                if reply.text != default_text(_PROMPT):
                    raise DemoFailed(f"Step {story[0]} of the demo failed: the text is not the whole answer.")
                if (reply.route, active, len(flips)) != (route, route != "oauth", count):
                    raise DemoFailed(
                        f"Step {story[0]} of the demo failed: expected route {route!r} after {count} fallbacks, but "
                        f"{reply.route!r} answered after {len(flips)}, with fallback_active {active}."
                    )

            ask("1. Both routes are set up, and the OAuth credentials are good.", "oauth", 0)
            path.write_text("{ this is no JSON")
            ask("2. The credentials file is now corrupt, on purpose. Watch standard error.", "api_key", 1)
            path.write_bytes(good)
            ask("3. The credentials file is repaired. The API key stays in use.", "api_key", 1)
            adapter.reset()
            ask("4. adapter.reset() is the only way back.", "oauth", 1)
    write("\nAll four steps went as expected.\n")


def _direct_session() -> requests.Session:
    session = default_session()
    session.trust_env = False  # a proxy of the environment cannot reach the loopback of this machine
    return session
