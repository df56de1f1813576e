"""Knows what a token at hand is, and the sources that bring their own: a callable, google-auth; knows no file."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import Any, NamedTuple, Optional, Protocol

from gemini_sync.config import check_secret
from gemini_sync.errors import ConfigError, CredentialsError, GeminiSyncError, RefreshError, ends_the_call
from gemini_sync.network.deadlines import Call, Clock
from gemini_sync.network.error_mapping import map_error
from gemini_sync.network.sessions import borrowed_session
from gemini_sync.redaction import redacted_excerpt

# google-auth refreshes 225 s ahead; a token that lives shorter than an hour has its windows shortened alike.
_USUAL_LIFETIME_SECONDS = 3600.0
_ADVISORY_SECONDS = 225.0
_MANDATORY_SECONDS = 30.0
_GOOGLE_AUTH_SECONDS = 20.0


class Token(NamedTuple):
    """An access token.

    Attributes:
        access_token: goes into ``Authorization: Bearer``.
        expires_at: seconds since the epoch, or None where that is not known.
        identity: differs where other credentials took over; tells nothing of them.
    """

    access_token: str
    expires_at: Optional[float]
    identity: str = ""

    def __repr__(self) -> str:
        return object.__repr__(self)  # tells no secret


class Held(NamedTuple):
    """A token at hand, and from when on (seconds since the epoch) it should be, and must be, replaced."""

    token: Token
    advisory_at: float
    mandatory_at: float


def hold(token: Token, lifetime: float = _USUAL_LIFETIME_SECONDS) -> Held:
    """``token`` with windows that suit its ``lifetime`` in seconds."""
    if token.expires_at is None:
        return Held(token, math.inf, math.inf)
    share = min(1.0, lifetime / _USUAL_LIFETIME_SECONDS)
    return Held(token, token.expires_at - share * _ADVISORY_SECONDS, token.expires_at - share * _MANDATORY_SECONDS)


class Seen(Protocol):
    """What a source has at hand; ``version`` differs where something else took over."""

    @property
    def held(self) -> Optional[Held]: ...

    @property
    def version(self) -> object: ...


class Source(Protocol):
    """Where tokens come from; ``look`` is called by any number of threads, ``renew`` by one at a time."""

    def look(self, call: Call) -> Seen:
        """What is at hand, without a request."""

    def renew(self, call: Call, spent: Optional[Held], *, quick: bool = False) -> Token:
        """Another token than ``spent``; ``quick`` where the caller could also do without."""


class Snapshot(NamedTuple):
    """The plain ``Seen``."""

    held: Optional[Held]
    version: object = None


class CallableSource:
    """A function that returns an access token; it is called for each call, and how long a token lasts is its affair."""

    def __init__(self, function: Callable[[], str]) -> None:
        self._function = function

    def look(self, call: Call) -> Snapshot:
        return Snapshot(hold(self.renew(call, None)))

    def renew(self, call: Call, spent: Optional[Held], *, quick: bool = False) -> Token:
        try:
            given = self._function()
        except GeminiSyncError:
            raise
        except Exception as exc:
            raise CredentialsError(
                f"The token source failed: {type(exc).__name__}: {redacted_excerpt(str(exc))}"
            ) from exc
        try:
            return Token(check_secret(given, "What the token source gave"), None)
        except ConfigError as exc:
            raise CredentialsError(str(exc)) from exc


class GoogleAuthSource:
    """A google-auth ``Credentials`` object, which only the renewing thread reads.

    Its attributes are set one after the other: another thread could read a new token with an old expiry.
    """

    def __init__(self, credentials: Any, clock: Clock) -> None:
        self._credentials, self._clock = credentials, clock
        self._snapshot = Snapshot(self._read())

    def look(self, call: Call) -> Snapshot:
        return self._snapshot

    def renew(self, call: Call, spent: Optional[Held], *, quick: bool = False) -> Token:
        held, before = self._read(), self._snapshot.held
        theirs = held is not None and (before is None or held.token != before.token)  # refreshed by somebody else
        if held is None or not theirs or self._clock() >= held.advisory_at:
            self._refresh(call)
            held = self._read(fresh=True)
        if held is None or self._clock() >= held.mandatory_at:
            raise RefreshError("The google-auth credentials hold no usable access token after their refresh.")
        self._snapshot = Snapshot(held)
        return held.token

    def _read(self, *, fresh: bool = False) -> Optional[Held]:
        for _ in range(3):  # a token that is another one at each look goes with the expiry that was seen with it
            access_token, expiry = self._credentials.token, getattr(self._credentials, "expiry", None)
            if self._credentials.token == access_token:
                break
        if not access_token:
            return None
        if not isinstance(expiry, datetime):
            return hold(Token(access_token, None))
        # google-auth's are naive, in UTC.
        expires_at = (expiry if expiry.tzinfo else expiry.replace(tzinfo=timezone.utc)).timestamp()
        lifetime = max(0.0, expires_at - self._clock()) if fresh else _USUAL_LIFETIME_SECONDS
        return hold(Token(access_token, expires_at), lifetime)

    def _refresh(self, call: Call) -> None:
        try:
            requests = importlib.import_module("google.auth.transport.requests")
        except ImportError as exc:
            raise ConfigError("Refreshing google-auth credentials needs google-auth: pip install google-auth.") from exc
        with borrowed_session(call, _GOOGLE_AUTH_SECONDS, "The token that google-auth asked for") as session:
            session.max_redirects = 0  # the refresh token would go along
            try:
                self._credentials.refresh(partial(requests.Request(session), timeout=_GOOGLE_AUTH_SECONDS))
            except Exception as exc:
                error = self._refresh_error(exc, call)
            else:
                return
        # Not raised from google-auth's: those quote the server's whole answer.
        raise error

    def _refresh_error(self, exc: Exception, call: Call) -> GeminiSyncError:
        mapped = map_error(exc, call, str(getattr(self._credentials, "token_uri", "")))
        if mapped.reason == "CERTIFICATE_VERIFY_FAILED" or ends_the_call(mapped):
            return mapped
        names = ("token", "refresh_token", "client_secret")
        secrets = [str(getattr(self._credentials, name, None) or "") for name in names]
        answer = exc.args[1] if len(exc.args) > 1 and isinstance(exc.args[1], dict) else {}
        said = redacted_excerpt(str(exc.args[0]) if exc.args else "no reason given", secrets).rstrip(".")
        reason = answer.get("error_subtype") or answer.get("error")
        return RefreshError(
            f"google-auth could not refresh its credentials: {type(exc).__name__}: {said}. "
            "Log in again, or check what these credentials need.",
            reason=redacted_excerpt(reason, secrets) if isinstance(reason, str) else None,
        )
