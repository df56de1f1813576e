"""The one line that people see of a fallback."""

from __future__ import annotations

import dataclasses

import pytest

from gemini_sync.routing.events import FallbackEvent
from gemini_sync.services.base import API_KEY, OAUTH


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            FallbackEvent(OAUTH, API_KEY, "AuthError: 401", ValueError(), 0),
            "gemini-sync: OAuth failed (AuthError: 401); the API key serves the rest of this session. "
            "To go back, fix this, then call reset().",
        ),
        (
            FallbackEvent(OAUTH, API_KEY, "404", ValueError(), 0, model="m"),
            "gemini-sync: OAuth does not serve model m (404); the API key serves it from now on.",
        ),
        (
            FallbackEvent(API_KEY, OAUTH, "a probe succeeded", None, 0),
            "gemini-sync: the API key hands back to OAuth: a probe succeeded; OAuth serves from now on.",
        ),
        (
            FallbackEvent(OAUTH, API_KEY, "403", ValueError(), 0, model="m", link="https://x.example/fix"),
            "gemini-sync: OAuth does not serve model m (403); the API key serves it from now on. See https://x.example/fix",
        ),
        (
            FallbackEvent(
                OAUTH, API_KEY, "See https://x.example", ValueError(), 0, model="m", link="https://x.example"
            ),
            "gemini-sync: OAuth does not serve model m (See https://x.example); the API key serves it from now on.",
        ),
        (
            FallbackEvent("one", "two", "a\nb\x1b[31mc", None, 0),
            "gemini-sync: one hands back to two: a b [31mc; two serves from now on.",
        ),
    ],
)
def test_event__str_is_one_visible_line(event: FallbackEvent, line: str) -> None:
    assert str(event) == line
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.reason = "other"  # type: ignore[misc]
