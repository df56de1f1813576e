"""Tests of the access token as a value."""

from __future__ import annotations

import math

import pytest

from gemini_sync.auth.access_token import AccessToken


def test_times__of_a_token_without_expiry_never_come() -> None:
    token = AccessToken("kit-access")
    assert (token.refresh_from, token.usable_until) == (math.inf, math.inf)


@pytest.mark.parametrize("expires_at", [None, 1e12])
def test_times__of_an_empty_token_are_past(expires_at: float) -> None:
    token = AccessToken("", expires_at)
    assert (token.refresh_from, token.usable_until) == (-math.inf, -math.inf)


@pytest.mark.parametrize(
    ("lifetime", "early", "unusable"), [(7200, 225, 30), (3600, 225, 30), (360, 22.5, 3), (0, 0, 0)]
)
def test_times__are_nearer_to_the_expiry_of_a_short_life(lifetime: float, early: float, unusable: float) -> None:
    token = AccessToken("kit-access", 10_000.0, lifetime=lifetime)
    assert (token.refresh_from, token.usable_until) == (10_000.0 - early, 10_000.0 - unusable)


def test_repr__shows_no_field() -> None:
    token = AccessToken("kit-canary", 10_000.0, "kit-canary")
    assert "canary" not in f"{token!r} {token}"
