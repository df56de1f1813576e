"""Who may call: the API key, the OAuth client and the tokens, and the token endpoint; no models, no sockets."""

from __future__ import annotations

import json
import os
import pathlib
import threading
import urllib.parse
from typing import Callable

from gemini_sync.testing.emulator.rpc import Refused, oauth_error, refusal
from gemini_sync.testing.emulator.wire import Recorded, Response, json_response

_SCOPE = "https://www.googleapis.com/auth/cloud-platform openid"


class Accounts:
    """The credentials that are good here; `clock` (seconds since the epoch) decides when a token expires."""

    def __init__(self, *, key: str, client_id: str, client_secret: str, clock: Callable[[], float]) -> None:
        self.key = key
        self.client_id = client_id
        self.client_secret = client_secret
        self.token_lifetime: float = 3599
        self._clock = clock
        self._lock = threading.Lock()  # guards _expiry, _refresh_tokens and _issued
        self._expiry: dict[str, float] = {}
        self._refresh_tokens: set[str] = set()
        self._issued = 0

    def issue_token(self, expires_in: float = 3600) -> str:
        """A new access token, good for that many seconds (of the emulator's clock)."""
        with self._lock:
            self._issued += 1
            token = f"emulator-access-token-{self._issued}"
            self._expiry[token] = self._clock() + expires_in
        return token

    def issue_refresh_token(self) -> str:
        """A new refresh token, good until it is revoked."""
        with self._lock:
            self._issued += 1
            token = f"emulator-refresh-token-{self._issued}"
            self._refresh_tokens.add(token)
        return token

    def revoke(self, token: str) -> None:
        """Make an access or refresh token worthless."""
        with self._lock:
            self._expiry.pop(token, None)
            self._refresh_tokens.discard(token)

    def revoke_all(self) -> None:
        """Make every token issued so far worthless."""
        with self._lock:
            self._expiry.clear()
            self._refresh_tokens.clear()

    def write_credentials(
        self, path: str | os.PathLike[str], *, expires_in: float = 3600, style: str = "gemini-cli"
    ) -> pathlib.Path:
        """Write a credentials file (mode 0600) with new tokens; missing folders are made.

        `style` is "gemini-cli" (with an access token that lives `expires_in` seconds; no client id in it)
        or "authorized_user" (gcloud's: client id and secret, no access token). Raises ValueError for another.
        """
        refresh_token = self.issue_refresh_token()
        if style == "gemini-cli":
            content: dict[str, object] = {
                "access_token": self.issue_token(expires_in),
                "refresh_token": refresh_token,
                "scope": _SCOPE,
                "token_type": "Bearer",
                "id_token": "emulator-id-token",
                "expiry_date": int((self._clock() + expires_in) * 1000),
            }
        elif style == "authorized_user":
            content = {
                "type": "authorized_user",
                "client_id": self.client_id,
                "client_secret": self.client_secret,
                "refresh_token": refresh_token,
            }
        else:
            raise ValueError(f"style is 'gemini-cli' or 'authorized_user', not {style!r}")
        target = pathlib.Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=0o600)
        target.chmod(0o600)
        target.write_text(json.dumps(content, indent=2))
        return target

    def check_key(self, request: Recorded) -> None:
        """Raise Refused unless the request carries the API key, in its header and nowhere else."""
        self._check_single(request)
        if request.headers.get("x-goog-api-key") != self.key:
            raise refusal(
                400,
                "API key not valid. Please pass a valid API key.",
                reason="API_KEY_INVALID",
                domain="googleapis.com",
                metadata={"service": "generativelanguage.googleapis.com"},
            )

    def check_bearer(self, request: Recorded) -> None:
        """Raise Refused unless the request carries an access token that is known and not expired."""
        self._check_single(request)
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        with self._lock:
            expiry = self._expiry.get(token) if kind.lower() == "bearer" else None
        if expiry is None or self._clock() >= expiry:
            raise refusal(
                401,
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or "
                "other valid authentication credential. See "
                "https://developers.google.com/identity/sign-in/web/devconsole-project.",
                headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/", error="invalid_token"'},
            )

    def _check_single(self, request: Recorded) -> None:
        if "x-goog-api-key" in request.headers and "Authorization" in request.headers:
            raise refusal(400, "Multiple authentication credentials received. Please pass only one.")
        if request.query.keys() & {"key", "access_token"}:
            raise refusal(400, "The emulator takes no credential in a URL: URLs end up in logs.")

    def check_grant(self, request: Recorded) -> None:
        """Raise Refused unless this is a refresh by the right client of a refresh token that is good."""
        form = dict(urllib.parse.parse_qsl(request.body.decode("latin-1"), keep_blank_values=True))
        grant = form.get("grant_type", "")
        if grant != "refresh_token":
            raise _refused(400, "unsupported_grant_type", f"Invalid grant_type: {grant}")
        if form.get("client_id") != self.client_id:
            raise _refused(401, "invalid_client", "The OAuth client was not found.")
        if form.get("client_secret") != self.client_secret:
            raise _refused(401, "invalid_client", "The provided client secret is invalid.")
        with self._lock:
            known = form.get("refresh_token") in self._refresh_tokens
        if not known:
            raise _refused(400, "invalid_grant", "Token has been expired or revoked.")

    def grant(self) -> Response:
        """The token endpoint's answer: a new access token that lives `token_lifetime` seconds."""
        answer = {
            "access_token": self.issue_token(self.token_lifetime),
            "expires_in": self.token_lifetime,
            "scope": _SCOPE,
            "token_type": "Bearer",
            "id_token": "emulator-id-token",
        }
        return json_response(answer)


def _refused(code: int, error: str, description: str) -> Refused:
    return Refused(json_response(oauth_error(error, description), code))
