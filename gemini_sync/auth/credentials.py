"""Knows how all threads share one OAuth token: when it is refreshed, by whom, and who waits; knows no route."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Optional, Protocol, Union

from gemini_sync.auth.file_source import FileSource
from gemini_sync.auth.single_flight import SingleFlight
from gemini_sync.auth.sources import CallableSource, GoogleAuthSource, Held, Source
from gemini_sync.auth.sources import Token as Token
from gemini_sync.config import Endpoints, OAuthClient
from gemini_sync.environment import credentials_path_from, oauth_client_from
from gemini_sync.errors import ConfigError, CredentialsError, GeminiSyncError, ends_the_call
from gemini_sync.network.deadlines import Call, Clock
from gemini_sync.network.transport import Transport
from gemini_sync.redaction import redact_text, redacted_excerpt

_log = logging.getLogger(__name__)

_FAILURE_STANDS_SECONDS = 1.0
_NEXT_TRY_AHEAD_SECONDS = 30.0
_REMEMBERED_REFUSALS = 64


class TokenSource(Protocol):
    """Any source of access tokens of your own; accepted wherever a credentials path is."""

    def token(self) -> str:
        """An access token that is valid now; called once per request, by any thread."""

    def invalidate(self, token: str) -> None:
        """The server refused ``token``: give another one from now on; several threads may say so of the same one."""


#: A credentials file, a callable, a TokenSource, or a google-auth ``Credentials`` object (Any: no type is shared).
CredentialsLike = Union[str, "os.PathLike[str]", "Callable[[], str]", TokenSource, Any]


class _Failure(NamedTuple):
    at: float
    version: object
    error: GeminiSyncError

    def stands(self, now: float, version: object) -> bool:
        return self.version == version and 0 <= now - self.at < _FAILURE_STANDS_SECONDS


class Credentials:
    """The access token of one login, for all threads.

    In the advisory window before its expiry one thread refreshes it while the others go on with it; in the mandatory
    window all wait for the one refresh in flight and share its outcome.
    """

    def __init__(
        self, source: Source, *, clock: Clock = time.time, on_invalidate: Optional[Callable[[str], None]] = None
    ) -> None:
        self._source, self._clock, self._on_invalidate = source, clock, on_invalidate
        self._flight: SingleFlight[Token] = SingleFlight()
        # Tokens the server refused; they stay after a renewal, for a thread that looked at the source before it may
        # hold one still. Each use is atomic, so there is no lock.
        self._refused: set[str] = set()
        # Both are set by the thread that leads the flight only.
        self._failure: Optional[_Failure] = None
        self._ahead_failed_at = -math.inf

    def fetch(self, call: Call) -> Token:
        """A token that is usable now, refreshed where need be.

        Raises:
            CredentialsError: the credentials are missing, corrupt, or lack something (``RefreshError``: the token
                endpoint gave no token).
            ConfigError: refreshing takes an OAuth client, or google-auth, that is not there.
            TransportError: the token endpoint's certificate could not be verified.
            DeadlineExceeded, StreamInterrupted: the ``total`` deadline of ``call`` passed, or it was cancelled.
        """
        held = self._source.look(call).held
        if held is None or not self._is_usable(held):
            token = self._flight.run(call, lambda: self._renew(call))
            if token.access_token in self._refused:  # by another thread, while its flight was still in the air
                token = self._flight.run(call, lambda: self._renew(call))
            return token
        if self._is_due(held):
            return self._ahead(call, held)
        return held.token

    def token(self) -> str:
        """An access token that is usable now; raises as ``fetch``."""
        return self.fetch(Call().start()).access_token

    def invalidate(self, access_token: str) -> None:
        """The server refused this very token (401): the next ``fetch`` gives another one, where there is one.

        Raises:
            CredentialsError: a ``TokenSource`` of the caller's failed at this.
        """
        if len(self._refused) >= _REMEMBERED_REFUSALS:
            self._refused.pop()
        self._refused.add(access_token)
        if self._on_invalidate is not None:
            try:
                self._on_invalidate(access_token)
            except Exception as exc:
                said = redacted_excerpt(str(exc), [access_token])
                raise CredentialsError(f"The token source failed: {type(exc).__name__}: {said}") from exc

    def forget_failure(self) -> None:
        """The next ``fetch`` tries anew, however short ago the last one failed."""
        self._failure = None

    def _is_usable(self, held: Held) -> bool:
        return self._clock() < held.mandatory_at and held.token.access_token not in self._refused

    def _is_due(self, held: Held) -> bool:
        now = self._clock()
        return now >= held.advisory_at and not 0 <= now - self._ahead_failed_at < _NEXT_TRY_AHEAD_SECONDS

    def _renew(self, call: Call) -> Token:
        """What one thread does for all that need another token."""
        seen = self._source.look(call)
        if seen.held is not None and self._is_usable(seen.held):
            return seen.held.token
        failure = self._failure
        if failure is not None and failure.stands(self._clock(), seen.version):
            raise copy.copy(failure.error)
        refused = self._refused.copy()
        try:
            token = self._source.renew(call, seen.held)
        except GeminiSyncError as exc:
            if not ends_the_call(exc):
                self._failure = _Failure(self._clock(), seen.version, copy.copy(exc))
            raise
        if token.access_token in refused:
            self._refused.discard(token.access_token)  # the same one, given anew
        return token

    def _ahead(self, call: Call, held: Held) -> Token:
        """Another token ahead of time where nobody is at it yet; a failure costs nothing but a warning."""
        try:
            return self._flight.run_if_free(lambda: self._renew_ahead(call)) or held.token
        except GeminiSyncError as exc:
            if ends_the_call(exc):
                raise
            left = (held.token.expires_at or 0.0) - self._clock()
            _log.warning(
                "The access token was not refreshed ahead of its expiry and serves for %.0f s more: %s", left, exc
            )
            return held.token if self._is_usable(held) else self.fetch(call)

    def _renew_ahead(self, call: Call) -> Token:
        held = self._source.look(call).held
        if held is None or not self._is_usable(held):
            return self._renew(call)
        if not self._is_due(held):
            return held.token
        try:
            return self._source.renew(call, held, quick=True)
        except GeminiSyncError as exc:
            if not ends_the_call(exc):
                self._ahead_failed_at = self._clock()
            raise


def credentials_for(
    source: CredentialsLike,
    *,
    transport: Transport,
    oauth_client: Optional[OAuthClient],
    endpoints: Endpoints,
    persist: bool = True,
    clock: Clock = time.time,
) -> Credentials:
    """The credentials behind ``source``; nothing is read yet.

    Args:
        source: the path of a credentials file (the Gemini CLI's, or gcloud's ``authorized_user``), a callable that
            returns an access token, a ``TokenSource``, or a google-auth ``Credentials`` object.
        oauth_client: refreshes the tokens of files that name no client.
        persist: False writes nothing to the file.
        clock: gives the seconds since the epoch.

    Raises:
        ConfigError: ``source`` is none of these.
    """
    if isinstance(source, (str, os.PathLike)):
        file = FileSource(
            _path(source),
            transport=transport,
            url=endpoints.token,
            client=oauth_client,
            persist=persist,
            clock=clock,
        )
        return Credentials(file, clock=clock)
    token, invalidate = getattr(source, "token", None), getattr(source, "invalidate", None)
    if callable(token) and callable(invalidate):
        return Credentials(CallableSource(token), clock=clock, on_invalidate=invalidate)
    if hasattr(source, "token") and callable(getattr(source, "refresh", None)):
        return Credentials(GoogleAuthSource(source, clock), clock=clock)
    if callable(source):
        return Credentials(CallableSource(source), clock=clock)
    raise ConfigError(
        "oauth_creds_path must be the path of a credentials file, a callable returning an access token, an object with "
        f"token() and invalidate(token), or a google-auth Credentials object, not {type(source).__name__}."
    )


def _path(source: Union[str, os.PathLike[str]]) -> str:
    path = os.fsdecode(source)
    if not path.strip():
        raise ConfigError("oauth_creds_path is empty. Give the path of a credentials file, or None for no OAuth route.")
    if path.lstrip().startswith("{") or redact_text(path) != path:
        raise ConfigError("oauth_creds_path holds credentials. Give the path of a file that holds them, or a callable.")
    return os.path.abspath(os.path.expanduser(path))


def get_access_token(
    creds_path: Optional[CredentialsLike] = None,
    *,
    oauth_client: Optional[OAuthClient] = None,
    endpoints: Endpoints = Endpoints(),
) -> str:
    """An access token that is usable now; a refreshed one is saved to the file.

    Args:
        creds_path: as ``GeminiDualAdapter(oauth_creds_path=…)``; None takes ``GOOGLE_APPLICATION_CREDENTIALS``, else
            ``~/.gemini/oauth_creds.json``.
        oauth_client: None takes ``GEMINI_OAUTH_CLIENT_ID`` and ``GEMINI_OAUTH_CLIENT_SECRET``.

    Raises:
        CredentialsError, ConfigError, TransportError: as ``Credentials.fetch``.
    """
    if creds_path is None:
        creds_path = credentials_path_from(os.environ)
    transport = Transport()
    try:
        credentials = credentials_for(
            creds_path,
            transport=transport,
            oauth_client=oauth_client or oauth_client_from(os.environ),
            endpoints=endpoints,
        )
        return credentials.token()
    finally:
        transport.close()
