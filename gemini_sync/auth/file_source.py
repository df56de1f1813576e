"""A credentials file as a source of tokens. Other programs use the same file, so it is read again when it changes."""

from __future__ import annotations

import hashlib
import logging
import shlex
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from gemini_sync.auth import credentials_file, token_endpoint
from gemini_sync.auth.access_token import AccessToken, hide_fields
from gemini_sync.auth.credentials_file import FileContent
from gemini_sync.config import OAuthClient
from gemini_sync.errors import ConfigError, CredentialsError, RefreshError
from gemini_sync.fork import register_after_fork
from gemini_sync.interruptions import raise_interruption
from gemini_sync.network.cancelling import Call
from gemini_sync.network.deadlines import Clock
from gemini_sync.network.transport import Transport

_log = logging.getLogger(__name__)


@hide_fields
class Cached(NamedTuple):
    """The tokens in use, and what the file said when it was last read; they differ until refreshed tokens are saved."""

    token: AccessToken
    refresh_token: Optional[str]
    content: FileContent


class FileSource:
    """A credentials file that other programs use, too. Tokens in memory serve only while the login is the same."""

    def __init__(
        self, path: str, *, transport: Transport, url: str, client: Optional[OAuthClient], persist: bool, clock: Clock
    ) -> None:
        self._path, self._transport, self._url, self._client = path, transport, url, client
        self._persist, self._clock = persist, clock
        # Guards _cached, which is replaced as a whole, and _warned. Reentrant, because a signal handler may run in the
        # thread that holds it.
        self._lock = threading.RLock()
        self._cached: Optional[Cached] = None
        self._warned: set[str] = set()
        register_after_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def current(self, call: Call) -> AccessToken:
        return self._up_to_date(call).token

    def _up_to_date(self, call: Call) -> Cached:
        cached = self._cached
        if cached and cached.content.settled and cached.content.version == credentials_file.file_version(self._path):
            return cached
        return self._read(call)

    def _read(self, call: Call) -> Cached:
        return self._adopt(credentials_file.read(self._path, call))

    def _adopt(self, content: FileContent) -> Cached:
        """Use the tokens of ``content``, unless the login is the same and the token in memory is better.

        Another thread may have read the file later and adopted that. Then the next call sees that the version of
        ``content`` is not the version of the file, and reads it again.
        """
        if content.exposed:
            self._warn_once("Other users can read %s. Run: chmod 600 %s", self._path, shlex.quote(self._path))
        with self._lock:
            cached = self._cached
            if cached is not None and cached.content.login == content.login:
                adopted = cached._replace(content=content)
            else:
                login = _digest(content.refresh_token or content.access_token or "")
                token = AccessToken(content.access_token or "", content.expires_at, login)
                if cached is not None and cached.refresh_token and cached.refresh_token == content.refresh_token:
                    is_over = self._clock() >= token.usable_until
                    is_unsaved = cached.token.access_token != cached.content.access_token
                    if is_over or is_unsaved:
                        token = max(cached.token, token, key=lambda each: each.usable_until)
                adopted = Cached(token, content.refresh_token, content)
            self._cached = adopted
        return adopted

    def refresh(self, call: Call, used_up: AccessToken, *, quick: bool = False) -> AccessToken:
        cached = self._up_to_date(call)
        if self._replaces(cached.token, used_up):
            return cached.token
        try:
            return self._exchange(call, cached, quick)
        except RefreshError as exc:
            if exc.reason not in token_endpoint.LOGIN_ENDED:
                raise
            # Another program may have refreshed, or logged in, while our request was on its way.
            reread = self._read(call)
            if self._replaces(reread.token, cached.token):
                return reread.token
            if reread.refresh_token == cached.refresh_token:
                raise
        return self._exchange(call, reread, quick)

    def _replaces(self, token: AccessToken, used_up: AccessToken) -> bool:
        return token.access_token != used_up.access_token and self._clock() < token.usable_until

    def _exchange(self, call: Call, cached: Cached, quick: bool) -> AccessToken:
        client = cached.content.client or self._client
        if cached.refresh_token is None:
            raise CredentialsError(
                f"The access token in {self._path} is over, and there is no refresh_token beside it. "
                f"{credentials_file.LOG_IN}"
            )
        if client is None:
            raise ConfigError(
                f"The access token in {self._path} is over, and refreshing it takes the OAuth client that it was "
                "obtained with. Give oauth_client=, or set GEMINI_OAUTH_CLIENT_ID and GEMINI_OAUTH_CLIENT_SECRET for "
                "from_env(), get_access_token() and the command line; make one in the Google Cloud console (APIs & "
                "Services, Credentials, OAuth client ID, type 'Desktop app') and log in with it. An access "
                "token that is still valid works without one.",
                reason="OAUTH_CLIENT_REQUIRED",
            )
        answer = token_endpoint.refresh(self._transport, self._url, cached.refresh_token, client, call, quick=quick)
        refresh_token = answer.refresh_token or cached.refresh_token
        expires_at = self._clock() + answer.lifetime
        token = AccessToken(answer.access_token, expires_at, _digest(refresh_token), answer.lifetime)
        refreshed = Cached(token, refresh_token, cached.content)
        with self._lock:
            self._cached = refreshed
        changes = {
            **answer.fields,
            "access_token": answer.access_token,
            "refresh_token": refresh_token,
            "expiry_date": int(expires_at * 1000),
        }
        return self._save(call, refreshed, changes)

    def _save(self, call: Call, refreshed: Cached, changes: Mapping[str, Any]) -> AccessToken:
        """Write the refreshed tokens to the file. Returns the token to use: the file's, if it has another login now."""
        content = refreshed.content
        if not self._persist or not content.writable:
            return refreshed.token
        try:
            saved = credentials_file.update(self._path, content.refresh_token, changes, call)
        except CredentialsError as exc:
            _log.info("The refreshed access token was not saved: %s", exc)  # the next call raises this error
            return refreshed.token
        except OSError as exc:
            raise_interruption(exc)
            self._warn_once("The refreshed access token stays in memory: %s: %s", self._path, exc.strerror or exc)
            return refreshed.token
        token = self._adopt(saved).token
        return token if self._clock() < token.usable_until else refreshed.token

    def _warn_once(self, message: str, *arguments: object) -> None:
        with self._lock:
            known = message in self._warned
            self._warned.add(message)
        if not known:
            _log.warning(message, *arguments)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:16]
