"""What a source of tokens is, and a callable as a source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.config import check_secret
from gemini_sync.errors import ConfigError, CredentialsError, GeminiSyncError
from gemini_sync.interruptions import raise_interruption
from gemini_sync.network.cancelling import Call
from gemini_sync.redaction import redacted_excerpt

_GIVE_TOKEN = "Let it return the access token alone, without 'Bearer' before it."


class Source(Protocol):
    """Where access tokens come from. Any number of threads call ``current``; only one at a time calls ``refresh``."""

    def current(self, call: Call) -> AccessToken:
        """The token at hand, usable or not, without a request; an empty one if there is none."""

    def refresh(self, call: Call, used_up: AccessToken, *, quick: bool = False) -> AccessToken:
        """A token to use instead of ``used_up``; ``quick`` asks for one short try, because ``used_up`` still serves."""


class CallableSource:
    """A function that returns an access token. It is called for each request and looks after the expiry itself."""

    def __init__(self, function: Callable[[], str]) -> None:
        self._function = function

    def current(self, call: Call) -> AccessToken:
        try:
            given = self._function()
        except GeminiSyncError:
            raise
        except Exception as exc:
            raise_interruption(exc)
            said = redacted_excerpt(str(exc))
            raise CredentialsError(f"The token source failed: {type(exc).__name__}: {said}") from exc
        try:
            return AccessToken(check_secret(given, "What the token source gave", _GIVE_TOKEN))
        except ConfigError as exc:
            raise CredentialsError(str(exc)) from exc

    def refresh(self, call: Call, used_up: AccessToken, *, quick: bool = False) -> AccessToken:
        return self.current(call)
