"""The emulator as one object: its attributes are those of its parts."""

from __future__ import annotations

import pytest

from gemini_sync.testing.emulator import Emulator

ACCOUNTS = ("key", "client_id", "client_secret", "token_lifetime")
SERVICE = ("models", "project", "tier", "allowed_tiers", "ineligible_tiers", "onboarding_polls")


@pytest.mark.parametrize(
    ("part", "name"), [*(("accounts", name) for name in ACCOUNTS), *(("service", name) for name in SERVICE)]
)
def test_attribute__is_kept_in_a_part(part, name):
    emulator, value = Emulator(), object()
    assert getattr(emulator, name) is getattr(getattr(emulator, part), name)
    setattr(emulator, name, value)
    assert getattr(emulator, name) is getattr(getattr(emulator, part), name) is value


def test_urls__empty_until_the_start():
    emulator = Emulator()
    assert (emulator.url, emulator.urls) == ("", {})
    with emulator:
        assert emulator.urls == {
            "gemini": emulator.url,
            "code_assist": emulator.url,
            "token": emulator.url + "/token",
        }
