"""The credentials that the emulator accepts: the API key, the OAuth client and the tokens."""

from __future__ import annotations

import json
import os
import pathlib
import threading
import urllib.parse
from typing import Callable

from gemini_sync.testing.emulator.messages import Recorded, Refused, Response, json_response, oauth_error, refusal

_REFRESH_TOKEN = "emulator-refresh-token-"  # each refresh token begins with it
_SCOPE = "https://www.googleapis.com/auth/cloud-platform openid"


class Accounts:
    """The accepted credentials. ``clock`` (seconds since the epoch) decides when a token expires."""

    def __init__(self, *, key: str, client_id: str, client_secret: str, clock: Callable[[], float]) -> None:
        self.key = key
        self.client_id = client_id
        self.client_secret = client_secret
        self.token_lifetime: float = 3599
        self.token_prefix = ""  # each new access token begins with it
        self.rotates_refresh_tokens = False
        self._clock = clock
        self._lock = threading.Lock()  # guards _expiry, _refresh_tokens and _issued
        self._expiry: dict[str, float] = {}
        self._refresh_tokens: set[str] = set()
        self._issued = 0

    def issue_token(self, expires_in: float = 3600) -> str:
        """A new access token that expires after that many seconds of the clock."""
        with self._lock:
            self._issued += 1
            token = f"{self.token_prefix}emulator-access-token-{self._issued}"
            self._expiry[token] = self._clock() + expires_in
        return token

    def issue_refresh_token(self) -> str:
        """A new refresh token; it is accepted until it is revoked."""
        with self._lock:
            self._issued += 1
            token = f"{_REFRESH_TOKEN}{self._issued}"
            self._refresh_tokens.add(token)
        return token

    def revoke(self, token: str) -> None:
        """Accept an access or refresh token no longer."""
        with self._lock:
            self._expiry.pop(token, None)
            self._refresh_tokens.discard(token)

    def revoke_all(self) -> None:
        """Accept none of the tokens issued so far."""
        with self._lock:
            self._expiry.clear()
            self._refresh_tokens.clear()

    def write_credentials(
        self, path: str | os.PathLike[str], *, expires_in: float = 3600, style: str = "gemini-cli"
    ) -> pathlib.Path:
        """Write a credentials file with new tokens; see ``Emulator.write_credentials``."""
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
        with open(os.open(target, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8", errors="replace") as file:
            if _is_of_others(file.read()):
                raise FileExistsError(f"{target} is not a file that the emulator wrote. Name another file.")
            target.chmod(0o600)
            file.seek(0)
            file.truncate()
            file.write(json.dumps(content, indent=2))
        return target

    def check_key(self, request: Recorded) -> None:
        """Raise Refused unless the API key is the only credential and is in its header."""
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
        """Raise Refused unless the request carries an access token that is issued and not expired."""
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
            raise refusal(400, "The emulator accepts no credential in a URL, because URLs end up in logs.")

    def check_grant(self, request: Recorded) -> None:
        """Raise Refused unless the OAuth client asks for a new access token with a refresh token that is accepted."""
        form = _form(request)
        grant = form.get("grant_type", "")
        if grant != "refresh_token":
            raise _oauth_refusal(400, "unsupported_grant_type", f"Invalid grant_type: {grant}")
        if form.get("client_id") != self.client_id:
            raise _oauth_refusal(401, "invalid_client", "The OAuth client was not found.")
        if form.get("client_secret") != self.client_secret:
            raise _oauth_refusal(401, "invalid_client", "The provided client secret is invalid.")
        with self._lock:
            known = form.get("refresh_token") in self._refresh_tokens
        if not known:
            raise _unknown_refresh_token()

    def grant(self, request: Recorded) -> Response:
        """The token endpoint's response: a new access token that expires after ``token_lifetime`` seconds.

        With ``rotates_refresh_tokens`` also a new refresh token. The old one is accepted no longer, and of two requests
        with it the second one is refused.
        """
        content = {
            "expires_in": self.token_lifetime,
            "scope": _SCOPE,
            "token_type": "Bearer",
            "id_token": "emulator-id-token",
        }
        if self.rotates_refresh_tokens:
            with self._lock:
                used = _form(request).get("refresh_token", "")
                if used not in self._refresh_tokens:
                    raise _unknown_refresh_token()
                self._refresh_tokens.remove(used)
            content["refresh_token"] = self.issue_refresh_token()
        return json_response({"access_token": self.issue_token(self.token_lifetime), **content})


def _is_of_others(text: str) -> bool:
    """True if a file with this text may hold a login that the emulator did not write."""
    try:
        content = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return True
    token = content.get("refresh_token", "") if isinstance(content, dict) else None
    return content != {} and not (isinstance(token, str) and token.startswith(_REFRESH_TOKEN))


def _form(request: Recorded) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(request.body.decode("latin-1"), keep_blank_values=True))


def _unknown_refresh_token() -> Refused:
    return _oauth_refusal(400, "invalid_grant", "Token has been expired or revoked.")


def _oauth_refusal(code: int, error: str, description: str) -> Refused:
    return Refused(json_response(oauth_error(error, description), code))
