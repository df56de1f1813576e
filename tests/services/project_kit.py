"""What the tests of projects share: the search for a project, and accounts without one."""

from __future__ import annotations

from typing import Any, Optional

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.config import Endpoints
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.services.project import Projects, load_code_assist
from gemini_sync.testing.emulator import Emulator
from tests.auth.credentials_kit import Slept

METADATA = {"ideType": "IDE_UNSPECIFIED", "platform": "PLATFORM_UNSPECIFIED", "pluginType": "GEMINI"}


def projects_of(emulator: Emulator, configured: Optional[str] = None) -> Projects:
    return Projects(Transport(), Endpoints(**emulator.urls), configured)


def find(emulator: Emulator, configured: Optional[str] = None, call: Optional[Call] = None) -> str:
    return projects_of(emulator, configured).project(
        call or Call(sleep=Slept()), AccessToken(emulator.issue_token(), None)
    )


def load(emulator: Emulator, own: Optional[str] = None) -> str:
    return load_code_assist(emulator.issue_token(), own, endpoints=Endpoints(**emulator.urls))


def newcomer(emulator: Emulator, *, polls: int = 0, **state: Any) -> None:
    emulator.tier, emulator.onboarding_polls = None, polls
    for name, value in state.items():
        assert hasattr(emulator, name)
        setattr(emulator, name, value)
