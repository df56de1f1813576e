"""The credentials of the OAuth route: one token for all threads, refreshed when it has to be."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple, Optional, Protocol, Union

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.file_source import FileSource
from gemini_sync.auth.google_auth import GoogleAuthSource
from gemini_sync.auth.single_flight import SingleFlight
from gemini_sync.auth.sources import CallableSource, Source
from gemini_sync.config import Endpoints, OAuthClient
from gemini_sync.environment import DEFAULT_CREDENTIALS_PATH, credentials_path_from, oauth_client_from
from gemini_sync.errors import ConfigError, CredentialsError, GeminiSyncError, ends_the_call
from gemini_sync.interruptions import raise_interruption
from gemini_sync.network.cancelling import Call
from gemini_sync.network.deadlines import Clock
from gemini_sync.network.transport import Transport
from gemini_sync.redaction import redact_text, redacted_excerpt

_log = logging.getLogger(__name__)

_FAILURE_STANDS_SECONDS = 1.0  # until then it is raised again without another try
_EARLY_PAUSE_SECONDS = 30.0  # after an early refresh that failed
_REMEMBERED_REFUSALS = 64


class TokenSource(Protocol):
    """Any source of access tokens of your own; accepted wherever a credentials path is."""

    def token(self) -> str:
        """An access token that is valid now; called once per request, by any thread."""

    def invalidate(self, token: str) -> None:
        """The server refused ``token``, so give another one from now on. Several threads may report the same token."""


#: A credentials file, a callable, a TokenSource, or a google-auth ``Credentials`` object (Any: no type is shared).
CredentialsLike = Union[str, "os.PathLike[str]", "Callable[[], str]", TokenSource, Any]


class _Failure(NamedTuple):
    """When the refresh of ``token`` failed, and why."""

    at: float
    token: AccessToken
    error: GeminiSyncError


class Credentials:
    """The access token of one login, for all threads.

    Shortly before the token becomes unusable, one thread refreshes it and the others go on with it. If it is unusable,
    all threads wait for one refresh and share its outcome.
    """

    def __init__(
        self, source: Source, *, clock: Clock = time.time, on_invalidate: Optional[Callable[[str], None]] = None
    ) -> None:
        self._source, self._clock, self._on_invalidate = source, clock, on_invalidate
        self._single_flight: SingleFlight[AccessToken] = SingleFlight()
        # Tokens that the server refused. They stay after a refresh, because a thread that asked the source earlier may
        # still have one. Each use is atomic, so there is no lock.
        self._refused: set[str] = set()
        # The leader of the single flight sets these two, so there is no lock.
        self._failure: Optional[_Failure] = None
        self._early_failure_at = -math.inf

    def fetch(self, call: Call) -> AccessToken:
        """A token that is usable now, refreshed if needed.

        Raises:
            CredentialsError: the credentials are missing, corrupt, or lack something (``RefreshError``: the token
                endpoint gave no token).
            ConfigError: refreshing takes an OAuth client, or google-auth, that is not there.
            TransportError: the token endpoint's certificate could not be verified.
            DeadlineExceeded, StreamInterrupted: the ``total`` deadline of ``call`` passed, or it was cancelled.
        """
        token = self._source.current(call)
        if self._clock() < token.refresh_from and token.access_token not in self._refused:
            return token
        if self._is_usable(token) and self._is_due(token):
            token = self._refresh_early(call, token)
        if not self._is_usable(token):
            token = self._single_flight.run(call, lambda: self._refresh(call))
            if token.access_token in self._refused:  # another thread got a 401 for it before this refresh ended
                token = self._single_flight.run(call, lambda: self._refresh(call))
        return token

    def token(self) -> str:
        """An access token that is usable now; raises as ``fetch``."""
        return self.fetch(Call().start()).access_token

    def invalidate(self, access_token: str) -> None:
        """The server refused this very token (401): the next ``fetch`` gives another one, if there is one.

        Raises:
            CredentialsError: the ``invalidate`` of the caller's own ``TokenSource`` failed.
        """
        if len(self._refused) >= _REMEMBERED_REFUSALS:
            self._refused.pop()
        self._refused.add(access_token)
        if self._on_invalidate is not None:
            try:
                self._on_invalidate(access_token)
            except Exception as exc:
                raise_interruption(exc)
                said = redacted_excerpt(str(exc), [access_token])
                raise CredentialsError(f"The token source failed: {type(exc).__name__}: {said}") from exc

    def forget_failure(self) -> None:
        """The next ``fetch`` tries again, even if the last one failed a moment ago."""
        self._failure = None

    def _is_usable(self, token: AccessToken) -> bool:
        return self._clock() < token.usable_until and token.access_token not in self._refused

    def _is_due(self, token: AccessToken) -> bool:
        return self._clock() >= token.refresh_from and not self._is_within(_EARLY_PAUSE_SECONDS, self._early_failure_at)

    def _is_within(self, seconds: float, since: float) -> bool:
        return 0 <= self._clock() - since < seconds  # below 0 if the clock was set back

    def _refresh(self, call: Call, *, early: bool = False) -> AccessToken:
        """Refresh the token, unless another thread has just done it. Only one thread at a time runs this."""
        token = self._source.current(call)
        usable = self._is_usable(token)
        if usable and not (early and self._is_due(token)):
            return token
        failure = self._failure
        if failure and failure.token == token and self._is_within(_FAILURE_STANDS_SECONDS, failure.at):
            raise copy.copy(failure.error)
        refused = self._refused.copy()
        try:
            refreshed = self._source.refresh(call, token, quick=usable)
        except GeminiSyncError as exc:
            if usable and not ends_the_call(exc):
                self._early_failure_at = self._clock()
            elif not ends_the_call(exc):
                self._failure = _Failure(self._clock(), token, copy.copy(exc))
            raise
        if refreshed.access_token in refused:
            self._refused.discard(refreshed.access_token)  # the source gave the same token once more
        return refreshed

    def _refresh_early(self, call: Call, token: AccessToken) -> AccessToken:
        """Refresh early, unless another thread is already doing it. A failure only logs a warning."""
        try:
            return self._single_flight.run_if_free(lambda: self._refresh(call, early=True)) or token
        except GeminiSyncError as exc:
            if ends_the_call(exc):
                raise
            left = (token.expires_at or 0.0) - self._clock()
            _log.warning(
                "The access token was not refreshed ahead of its expiry and serves for %.0f s more: %s", left, exc
            )
            return token


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
        source: as ``GeminiDualAdapter(oauth_creds_path=…)``.
        oauth_client: refreshes the tokens of files that name no client.
        persist: False writes nothing to the file.
        clock: gives the seconds since the epoch.

    Raises:
        ConfigError: ``source`` is not one.
    """
    if isinstance(source, (str, os.PathLike)):
        path, url = _path(source), endpoints.token
        file = FileSource(path, transport=transport, url=url, client=oauth_client, persist=persist, clock=clock)
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
        raise ConfigError("oauth_creds_path is empty. Give the path of a credentials file, or leave the argument out.")
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
        creds_path = credentials_path_from(os.environ) or DEFAULT_CREDENTIALS_PATH
    client = oauth_client or oauth_client_from(os.environ)
    with closing(Transport()) as transport:
        return credentials_for(creds_path, transport=transport, oauth_client=client, endpoints=endpoints).token()
