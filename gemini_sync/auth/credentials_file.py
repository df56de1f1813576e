"""Knows the credential files of the Gemini CLI and of gcloud, read and changed while others write; knows no network."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from gemini_sync.config import OAuthClient, check_secret
from gemini_sync.errors import ConfigError, CredentialsError
from gemini_sync.network.deadlines import Call

# The Gemini CLI truncates the file and writes it anew, without a lock: what does not parse is read again for 250 ms.
# The pause is no divisor of a round period, so that a regular writer is not met at the same moment each time.
_TORN_READS = 36
_TORN_PAUSE_SECONDS = 0.007
_LARGEST_BYTES = 2**20
# Time stamps of files advance in steps of up to 10 ms; a file changed again within one looks unchanged.
_SETTLED_NANOSECONDS = 50_000_000
_REPLACE_TRIES = 3
_LOG_IN = "Log in anew, for example with 'gcloud auth application-default login', or name another file."

#: mtime in nanoseconds, size in bytes, inode: changes whenever the file does.
Signature = tuple[int, int, int]


class Login(NamedTuple):
    """What a file says; ``expires_at`` in seconds since the epoch, ``writable`` where it is ours to update."""

    access_token: Optional[str]
    expires_at: Optional[float]
    refresh_token: Optional[str]
    client: Optional[OAuthClient]
    writable: bool

    def __repr__(self) -> str:
        return object.__repr__(self)  # tells no secret


class Stored(NamedTuple):
    """A file as it was at one moment.

    Attributes:
        settled: False where a further change could leave ``signature`` as it is.
        exposed: True where users other than the owner can read the file.
    """

    login: Login
    document: Mapping[str, Any]
    signature: Signature
    settled: bool
    exposed: bool

    def __repr__(self) -> str:
        return object.__repr__(self)  # tells no secret


def signature(path: str) -> Signature:
    """What tells one state of the file from another, for one system call.

    Raises:
        CredentialsError: there is no file, or it cannot be reached.
    """
    return _signature(_stat(path))


def _signature(status: os.stat_result) -> Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _stat(path: str) -> os.stat_result:
    try:
        status = os.stat(path)
    except FileNotFoundError as exc:
        raise CredentialsError(f"There is no credentials file {path}. {_LOG_IN}") from exc
    except (OSError, ValueError) as exc:
        raise _unreadable(path, exc) from exc
    if not stat.S_ISREG(status.st_mode):
        raise CredentialsError(f"The credentials file {path} is not a file. {_LOG_IN}")
    return status


def _unreadable(path: str, exc: Exception) -> CredentialsError:
    why = getattr(exc, "strerror", None) or str(exc)
    return CredentialsError(f"The credentials file {path} cannot be read: {why}. {_LOG_IN}")


def read(path: str, call: Call) -> Stored:
    """The file, read again for up to 250 ms while it is empty or torn (waiting with ``call.sleep``).

    Raises:
        CredentialsError: it is missing, unreadable, not JSON, or lacks what it needs; the message names the path only.
        StreamInterrupted, DeadlineExceeded: from ``call.sleep``.
    """
    for reads_left in reversed(range(_TORN_READS)):
        _stat(path)  # opening what is not a file might block
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                data = file.read(_LARGEST_BYTES)
        except OSError as exc:
            raise _unreadable(path, exc) from exc
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as exc:
            problem = str(exc)
        else:
            return _stored(path, document, status)
        if reads_left:
            call.sleep(_TORN_PAUSE_SECONDS)
    # Not raised from the JSON error: that one carries the whole text of the file.
    raise CredentialsError(f"The credentials file {path} is not valid JSON: {problem}. {_LOG_IN}")


def _stored(path: str, document: Any, status: os.stat_result) -> Stored:
    settled = abs(time.time_ns() - status.st_mtime_ns) > _SETTLED_NANOSECONDS
    exposed = os.name == "posix" and bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    return Stored(_login(path, document), document, _signature(status), settled, exposed)


def _login(path: str, document: Any) -> Login:
    """The login in a document; which program's file it is, its content tells."""
    if not isinstance(document, dict):
        raise CredentialsError(f"The credentials file {path} holds no JSON object. {_LOG_IN}")
    kind = document.get("type") or ""
    if kind not in ("", "authorized_user"):
        raise CredentialsError(
            f"The credentials file {path} is of the type {kind!r:.40}. Give oauth_creds_path a google-auth Credentials "
            "object instead of the path, such as google.auth.load_credentials_from_file() returns "
            "(pip install google-auth)."
        )
    access_token, refresh_token, client_id, client_secret = (
        _secret(path, document, name) for name in ("access_token", "refresh_token", "client_id", "client_secret")
    )
    if access_token is None and refresh_token is None:
        raise CredentialsError(f"The credentials file {path} has neither access_token nor refresh_token. {_LOG_IN}")
    client = OAuthClient(client_id, client_secret) if client_id and client_secret else None
    return Login(access_token, _expires_at(document.get("expiry_date")), refresh_token, client, not kind)


def _secret(path: str, document: Mapping[str, Any], name: str) -> Optional[str]:
    if document.get(name) in (None, ""):
        return None
    try:
        return check_secret(document[name], name)
    except ConfigError as exc:
        raise CredentialsError(f"The credentials file {path} cannot be used: {exc}") from exc


def _expires_at(milliseconds: Any) -> Optional[float]:
    """``expiry_date`` in seconds; None, unknown, for what is no number: then the server says when it is over."""
    try:
        seconds = float(milliseconds) / 1000
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def update(path: str, refresh_token: Optional[str], changes: Mapping[str, Any], call: Call) -> Stored:
    """Put ``changes`` into the file, other fields kept, where it still holds ``refresh_token``; else leave it alone.

    The file is read again first and replaced at once, by a temporary file in the same folder with mode 0600; of a
    symbolic link the target is. Returns what the file holds then, ours or theirs.

    Raises:
        CredentialsError: it went missing or unreadable meanwhile; it is left as it is.
        OSError: it could not be written; it is left as it is.
        StreamInterrupted, DeadlineExceeded: from ``call.sleep``.
    """
    for _ in range(_REPLACE_TRIES):
        stored = read(path, call)
        if stored.login.refresh_token != refresh_token:
            return stored
        document = {**stored.document, **changes}
        status = _replace(os.path.realpath(path), document, stored.signature)
        if status is not None:
            return _stored(path, document, status)
    raise BlockingIOError("another program keeps changing it")


def _replace(target: str, document: Mapping[str, Any], expected: Signature) -> Optional[os.stat_result]:
    """Write ``document`` in place of ``target``; None, nothing done, where that is no longer in the expected state."""
    folder, name = os.path.split(target)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.flush()
            os.fsync(descriptor)
            current = os.stat(target)
            if hasattr(os, "fchown") and current.st_uid != os.geteuid():
                os.fchown(descriptor, current.st_uid, current.st_gid)  # as root: it stays its owner's file
            status = os.fstat(descriptor)
        if _signature(current) != expected:
            return None
        os.replace(temporary, target)
        temporary = ""
        return status
    finally:
        if temporary:
            with contextlib.suppress(OSError):  # whatever went wrong before is what counts
                os.unlink(temporary)
