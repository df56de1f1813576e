"""A google-auth ``Credentials`` object as a source of tokens."""

from __future__ import annotations

import importlib
from datetime import datetime, timezone
from functools import partial
from typing import Any

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.errors import CERTIFICATE_VERIFY_FAILED, ConfigError, GeminiSyncError, RefreshError, ends_the_call
from gemini_sync.network.cancelling import Call
from gemini_sync.network.deadlines import Clock
from gemini_sync.network.error_mapping import map_error
from gemini_sync.network.sessions import borrowed_session
from gemini_sync.redaction import redacted_excerpt

_ANSWER_SECONDS = 20.0


class GoogleAuthSource:
    """A google-auth ``Credentials`` object, read only by the thread that refreshes.

    google-auth sets the token first and its expiry later. Another thread could read a new token with an old expiry.
    """

    def __init__(self, credentials: Any, clock: Clock) -> None:
        self._credentials, self._clock = credentials, clock
        self._token = self._read()

    def current(self, call: Call) -> AccessToken:
        return self._token

    def refresh(self, call: Call, used_up: AccessToken, *, quick: bool = False) -> AccessToken:
        token = self._read()
        # The application itself may have refreshed its credentials.
        if token.access_token == self._token.access_token or self._clock() >= token.refresh_from:
            self._refresh(call)
            token = self._read()
            if token.expires_at is not None:
                token = token._replace(lifetime=max(0.0, token.expires_at - self._clock()))
        if self._clock() >= token.usable_until:
            raise RefreshError("The google-auth credentials hold no usable access token after their refresh.")
        self._token = token
        return token

    def _read(self) -> AccessToken:
        for _ in range(3):  # If the token changes while we read, keep the last token with the expiry read beside it.
            access_token, expiry = self._credentials.token, getattr(self._credentials, "expiry", None)
            if self._credentials.token == access_token:
                break
        if not isinstance(expiry, datetime):
            return AccessToken(access_token or "")
        if expiry.tzinfo is None:  # google-auth's own times are in UTC
            expiry = expiry.replace(tzinfo=timezone.utc)
        return AccessToken(access_token or "", expiry.timestamp())

    def _refresh(self, call: Call) -> None:
        try:
            requests = importlib.import_module("google.auth.transport.requests")
        except ImportError as exc:
            raise ConfigError("Refreshing google-auth credentials needs google-auth: pip install google-auth.") from exc
        errors = []
        with borrowed_session(call, _ANSWER_SECONDS, "The token that google-auth asked for") as session:
            session.max_redirects = 0  # a redirect would carry the refresh token along
            # A variable, because Request.__del__ closes the session, which must not happen while we close it.
            request = requests.Request(session)
            try:
                self._credentials.refresh(partial(request, timeout=_ANSWER_SECONDS))
            except Exception as exc:
                errors.append(self._error_for(exc, call))
        # Raised outside of the except block: google-auth's error quotes the whole answer and must not be its context.
        # Raised from a list: a variable would keep the error, its traceback and so the callers' frames alive.
        if errors:
            raise errors.pop()

    def _error_for(self, exc: Exception, call: Call) -> GeminiSyncError:
        mapped = map_error(exc, call, str(getattr(self._credentials, "token_uri", "")))
        if isinstance(mapped, ConfigError) or mapped.reason == CERTIFICATE_VERIFY_FAILED or ends_the_call(mapped):
            return mapped
        names = ("token", "refresh_token", "client_secret")
        secrets = [str(getattr(self._credentials, name, None) or "") for name in names]
        answer = exc.args[1] if len(exc.args) > 1 and isinstance(exc.args[1], dict) else {}
        said = redacted_excerpt(str(exc.args[0]) if exc.args else "no reason given", secrets).rstrip(".")
        if type(exc).__name__ == "TransportError" or getattr(exc, "retryable", False):
            step = "Check the network and proxies, or try again later."
        else:
            step = "Log in again, or check the scopes and rights of these credentials."
        reason = answer.get("error_subtype") or answer.get("error")
        return RefreshError(
            f"google-auth could not refresh its credentials: {type(exc).__name__}: {said}. {step}",
            reason=redacted_excerpt(reason, secrets) if isinstance(reason, str) else None,
        )
