"""Knows how a credentials file serves as a source of tokens that other programs share; knows no callers' queue."""

from __future__ import annotations

import hashlib
import logging
import threading
from typing import NamedTuple, Optional

from gemini_sync.auth import credentials_file as token_file
from gemini_sync.auth.credentials_file import Login, Signature, Stored
from gemini_sync.auth.sources import Held, Token, hold
from gemini_sync.auth.token_endpoint import LOGIN_ENDED, Refreshed, refresh
from gemini_sync.config import OAuthClient
from gemini_sync.errors import ConfigError, CredentialsError, RefreshError
from gemini_sync.fork import register_after_fork
from gemini_sync.network.deadlines import Call, Clock
from gemini_sync.network.transport import Transport

_log = logging.getLogger(__name__)


class _FileSnapshot(NamedTuple):
    """What is in use, and the file it came from.

    Attributes:
        signature: of the file as last read or written; None where it could change without showing.
        on_file: what it said.
        refresh_token, held: the tokens in use, which are others than the file's where they could not be saved.
    """

    signature: Optional[Signature]
    on_file: Login
    refresh_token: Optional[str]
    held: Optional[Held]

    def __repr__(self) -> str:
        return object.__repr__(self)  # tells no secret

    @property
    def version(self) -> Login:
        return self.on_file

    @property
    def unsaved(self) -> bool:
        """True where the token in use is one the file did not say: a refreshed one."""
        return self.held is not None and self.held.token.access_token != self.on_file.access_token


class FileSource:
    """A credentials file, shared with whatever other program writes it: the file is the truth, memory comes second."""

    def __init__(
        self,
        path: str,
        *,
        transport: Transport,
        url: str,
        client: Optional[OAuthClient],
        persist: bool,
        clock: Clock,
    ) -> None:
        self._path, self._transport, self._url, self._client = path, transport, url, client
        self._persist, self._clock = persist, clock
        # Guards _snapshot, replaced whole, and _warned. Reentrant for the sake of signal handlers.
        self._lock = threading.RLock()
        self._snapshot: Optional[_FileSnapshot] = None
        self._warned: set[str] = set()
        register_after_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def look(self, call: Call) -> _FileSnapshot:
        snapshot = self._snapshot
        if snapshot is not None and snapshot.signature == token_file.signature(self._path):
            return snapshot
        return self._read(call)

    def _read(self, call: Call) -> _FileSnapshot:
        while True:
            before = self._snapshot
            taken = self._take_in(token_file.read(self._path, call), before)
            if taken is not None:
                return taken

    def _take_in(self, stored: Stored, before: Optional[_FileSnapshot]) -> Optional[_FileSnapshot]:
        """Make what the file says ours, except where it is behind what we hold of the same login.

        None where another thread has replaced ``before`` since: this reading may be older than that one's.
        """
        if stored.exposed:
            self._warn_once("Other users can read %s. Run: chmod 600 %s", self._path, self._path)
        login, signature = stored.login, stored.signature if stored.settled else None
        with self._lock:
            ours = self._snapshot
            if ours is not before:
                return None
            if ours is not None and ours.on_file == login:
                taken = ours._replace(signature=signature)
            else:
                held = _held(login)
                if ours is not None and ours.refresh_token is not None and ours.refresh_token == login.refresh_token:
                    spent = held is None or self._clock() >= held.mandatory_at
                    held = _fresher(held, ours.held) if spent or ours.unsaved else held
                taken = _FileSnapshot(signature, login, login.refresh_token, held)
            if taken == ours:
                return ours  # the very one, so that whoever reads the same overtakes nobody
            self._snapshot = taken
        return taken

    def renew(self, call: Call, spent: Optional[Held], *, quick: bool = False) -> Token:
        ours = self.look(call)
        if ours.held is not None and self._is_usable(ours.held, spent):
            return ours.held.token
        try:
            return self._refresh(call, ours, quick)
        except RefreshError as exc:
            if exc.reason not in LOGIN_ENDED:
                raise
            theirs = self._read(call)
            if theirs.held is not None and self._is_usable(theirs.held, ours.held):
                return theirs.held.token
            if theirs.refresh_token == ours.refresh_token:
                raise
        return self._refresh(call, theirs, quick)

    def _is_usable(self, held: Held, spent: Optional[Held]) -> bool:
        other = spent is None or held.token.access_token != spent.token.access_token
        return other and self._clock() < held.mandatory_at

    def _refresh(self, call: Call, ours: _FileSnapshot, quick: bool) -> Token:
        client = ours.on_file.client or self._client
        if ours.refresh_token is None:
            raise CredentialsError(
                f"The access token in {self._path} is over, and there is no refresh_token beside it. Log in again."
            )
        if client is None:
            raise ConfigError(
                f"The access token in {self._path} is over, and refreshing it takes the OAuth client that it was "
                "obtained with. Set GEMINI_OAUTH_CLIENT_ID and GEMINI_OAUTH_CLIENT_SECRET, or give oauth_client=; make "
                "one in the Google Cloud console (APIs & Services, Credentials, OAuth client ID, type 'Desktop app') "
                "and log in with it. An access token that is still valid works without one.",
                reason="OAUTH_CLIENT_REQUIRED",
            )
        answer = refresh(self._transport, self._url, ours.refresh_token, client, call, quick=quick)
        refresh_token = answer.refresh_token or ours.refresh_token
        token = Token(answer.access_token, self._clock() + answer.lifetime, _digest(refresh_token))
        with self._lock:
            self._snapshot = ours._replace(refresh_token=refresh_token, held=hold(token, answer.lifetime))
        return self._save(call, ours.on_file, refresh_token, token, answer)

    def _save(self, call: Call, on_file: Login, refresh_token: str, token: Token, answer: Refreshed) -> Token:
        """Write ``token`` to the file; the token to use, which is theirs where another login took over meanwhile."""
        if not self._persist or not on_file.writable or token.expires_at is None:
            return token
        changes = {
            **answer.fields,
            "access_token": token.access_token,
            "refresh_token": refresh_token,
            "expiry_date": int(token.expires_at * 1000),
        }
        try:
            stored = token_file.update(self._path, on_file.refresh_token, changes, call)
        except CredentialsError as exc:
            _log.info("The refreshed access token was not saved: %s", exc)  # the next look at the file raises it
            return token
        except OSError as exc:
            self._warn_once("The refreshed access token stays in memory: %s: %s", self._path, exc.strerror or exc)
            return token
        taken = self._take_in(stored, self._snapshot)
        held = taken and taken.held
        return held.token if held is not None and self._clock() < held.mandatory_at else token

    def _warn_once(self, message: str, *arguments: object) -> None:
        with self._lock:
            known = message in self._warned
            self._warned.add(message)
        if not known:
            _log.warning(message, *arguments)


def _held(login: Login) -> Optional[Held]:
    if login.access_token is None:
        return None
    return hold(Token(login.access_token, login.expires_at, _digest(login.refresh_token or login.access_token)))


def _fresher(theirs: Optional[Held], ours: Optional[Held]) -> Optional[Held]:
    if theirs is None or ours is None:
        return ours or theirs
    same = theirs.token.access_token == ours.token.access_token
    return ours if same or theirs.mandatory_at < ours.mandatory_at else theirs


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:16]
