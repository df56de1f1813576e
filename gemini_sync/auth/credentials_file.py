"""The credentials files of the Gemini CLI, gcloud and google-auth: reading and changing them while others write."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple, Optional

from gemini_sync.auth.access_token import hide_fields
from gemini_sync.auth.file_writing import replace_file
from gemini_sync.config import OAuthClient, check_secret
from gemini_sync.errors import ConfigError, CredentialsError
from gemini_sync.interruptions import raise_interruption
from gemini_sync.network.cancelling import Call

# The Gemini CLI truncates the file and then writes it, without a lock. So a file that does not parse is read again for
# 250 ms. 7 ms divides no round interval, so a program that writes regularly is not caught mid-write every time.
_TORN_READS = 36
_TORN_PAUSE_SECONDS = 0.007
_LARGEST_BYTES = 2**20
# Time stamps of files advance in steps of up to 10 ms. Two changes within one step look like one.
_SETTLED_NANOSECONDS = 50_000_000
_REPLACE_TRIES = 3
LOG_IN = (
    "Log in again with the program that writes this file, or name another file, such as the one that "
    "'gcloud auth application-default login' writes (it prints the path)."
)
# The types that google-auth loads.
_GOOGLE_TYPES = "service_account external_account external_account_authorized_user impersonated_service_account".split()

_GOOGLE_AUTH_FIELDS = ("token", "token_uri", "expiry", "token_expiry")

#: mtime in nanoseconds, size in bytes, inode: another one whenever the file has changed.
FileVersion = tuple[int, int, int]


@hide_fields
class FileContent(NamedTuple):
    """What a credentials file said at one moment.

    Attributes:
        expires_at: seconds since the epoch, or None if the file does not say.
        client: the OAuth client that the file names, or None.
        writable: True if refreshed tokens may be saved to the file.
        document: the whole file, decoded.
        settled: False if the file could still change without a new ``version``.
        exposed: True if users other than the owner can read the file.
    """

    access_token: Optional[str]
    expires_at: Optional[float]
    refresh_token: Optional[str]
    client: Optional[OAuthClient]
    writable: bool
    document: Mapping[str, Any]
    version: FileVersion
    settled: bool
    exposed: bool

    @property
    def login(self) -> tuple[object, ...]:
        """What differs if another login or other tokens are in the file."""
        return self.access_token, self.expires_at, self.refresh_token, self.client

    def is_of(self, status: os.stat_result) -> bool:
        return self.version == _version(status)


def file_version(path: str) -> FileVersion:
    """The present version of the file, for the price of one system call.

    Raises:
        CredentialsError: there is no file, or it cannot be reached.
    """
    return _version(_stat(path))


def _version(status: os.stat_result) -> FileVersion:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _stat(path: str) -> os.stat_result:
    try:
        status = os.stat(path)
    except FileNotFoundError as exc:
        raise CredentialsError(f"There is no credentials file {path}. {LOG_IN}") from exc
    except (OSError, ValueError) as exc:
        raise_interruption(exc)
        raise _unreadable(path, exc) from exc
    if not stat.S_ISREG(status.st_mode):
        raise CredentialsError(f"The credentials file {path} is not a file. Name a file.")
    return status


def _unreadable(path: str, exc: Exception) -> CredentialsError:
    why = getattr(exc, "strerror", None) or str(exc)
    return CredentialsError(
        f"The credentials file {path} cannot be read: {why}. Let this user read it, or name another file."
    )


def read(path: str, call: Call) -> FileContent:
    """Read the file, again and again for 250 ms if it is empty or half written (waiting with ``call.sleep``).

    Raises:
        CredentialsError: it is missing, unreadable, not JSON, or lacks what it needs; the message names the path only.
        StreamInterrupted, DeadlineExceeded: from ``call.sleep``.
    """
    for reads_left in reversed(range(_TORN_READS)):
        _stat(path)  # opening a pipe, say, might block
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                data = file.read(_LARGEST_BYTES)
        except OSError as exc:
            raise_interruption(exc)
            raise _unreadable(path, exc) from exc
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as exc:
            problem = str(exc)
        else:
            return _content(path, document, status)
        if reads_left:
            call.sleep(_TORN_PAUSE_SECONDS)
    # Not raised from the JSON error, which carries the whole text of the file.
    raise CredentialsError(f"The credentials file {path} is not valid JSON: {problem}. {LOG_IN}")


def _content(path: str, document: Any, status: os.stat_result) -> FileContent:
    if not isinstance(document, dict):
        raise CredentialsError(f"The credentials file {path} holds no JSON object. {LOG_IN}")
    kind = document.get("type") or ""  # gcloud's files name their type, those of the Gemini CLI do not
    if kind not in ("", "authorized_user"):
        step = (
            "Name it in GOOGLE_APPLICATION_CREDENTIALS, pip install google-auth, and give instead of the path: "
            "google.auth.default(['https://www.googleapis.com/auth/cloud-platform'])[0]"
        )
        raise CredentialsError(
            f"The credentials file {path} is of the type {kind!r:.40}. {step if kind in _GOOGLE_TYPES else LOG_IN}"
        )
    # google-auth's token.json names no type either. It belongs to the program that made it.
    is_google_auth = "expiry_date" not in document and any(name in document for name in _GOOGLE_AUTH_FIELDS)
    access_name = "token" if "token" in document else "access_token"
    access_token, refresh_token, client_id, client_secret = (
        _secret(path, document, name) for name in (access_name, "refresh_token", "client_id", "client_secret")
    )
    if access_token is None and refresh_token is None:
        raise _no_login(path, document)
    return FileContent(
        access_token,
        _expires_at(document),
        refresh_token,
        client=OAuthClient(client_id, client_secret) if client_id and client_secret else None,
        writable=not kind and not is_google_auth,
        document=document,
        version=_version(status),
        settled=abs(time.time_ns() - status.st_mtime_ns) > _SETTLED_NANOSECONDS,
        exposed=os.name == "posix" and bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)),
    )


def _no_login(path: str, document: Mapping[str, Any]) -> CredentialsError:
    if isinstance(document.get("installed"), dict):
        step = f"Log in with it: 'gcloud auth application-default login --client-id-file={path}'."
    elif isinstance(document.get("web"), dict):
        step = "Make an OAuth client of the type 'Desktop app', and log in with that one."
    else:
        return CredentialsError(f"The credentials file {path} has neither access_token nor refresh_token. {LOG_IN}")
    return CredentialsError(
        f"Expected a credentials file, came an OAuth client file: {path} names a program, and holds no login. "
        f"{step} Then name the file that the login writes."
    )


def _secret(path: str, document: Mapping[str, Any], name: str) -> Optional[str]:
    if document.get(name) in (None, ""):
        return None
    try:
        return check_secret(document[name], name, LOG_IN)
    except ConfigError as exc:
        raise CredentialsError(f"The credentials file {path} cannot be used: {exc}") from exc


def _expires_at(document: Mapping[str, Any]) -> Optional[float]:
    """When the access token expires; None if that cannot be read, because then a 401 tells that it has expired."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if document.get("expiry_date") is None:  # google-auth writes a date in UTC, oauth2client under the second name
            date = str(document.get("expiry") or document.get("token_expiry"))
            expiry = datetime.fromisoformat(date.replace("Z", "+00:00"))
            return (expiry if expiry.tzinfo else expiry.replace(tzinfo=timezone.utc)).timestamp()
        if math.isfinite(seconds := float(document["expiry_date"]) / 1000):
            return seconds
    return None


def update(path: str, refresh_token: Optional[str], changes: Mapping[str, Any], call: Call) -> FileContent:
    """Put ``changes`` into the file if it still holds ``refresh_token``; otherwise leave it alone.

    The file is read again first. If the path is a symbolic link, the target is replaced. Returns what the file says in
    the end.

    Raises:
        CredentialsError: it went missing or unreadable meanwhile; it is left as it is.
        OSError: it could not be written; it is left as it is.
        StreamInterrupted, DeadlineExceeded: from ``call.sleep``.
    """
    for _ in range(_REPLACE_TRIES):
        content = read(path, call)
        if content.refresh_token != refresh_token:
            return content
        document = {**content.document, **changes}
        data = json.dumps(document, indent=2).encode()
        status = replace_file(os.path.realpath(path), data, content.is_of, call.sleep)
        if status is not None:
            return _content(path, document, status)
    raise BlockingIOError("another program keeps changing it")
