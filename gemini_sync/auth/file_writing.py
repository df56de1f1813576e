"""Writes a file that other programs read: at once by a rename, or in place under a backup where that is refused."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable
from io import FileIO
from typing import Any, Optional

from gemini_sync.secret import conceal

# A scanner or another reader on Windows has the file open for a moment. Other refusals stay, and cost these pauses.
_RENAME_PAUSES_SECONDS = (0.02, 0.05, 0.1)
# A file that is mounted alone, a folder that may not be written, an owner that cannot be kept. If the file itself may
# not be written either, writing it in place is refused as well.
_REFUSALS = frozenset(
    (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY, errno.EINVAL, errno.ENOTSUP)
)
# Some file systems know no fsync. The file is written all the same.
_NO_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.ENOSYS))

# A program that empties the file and then writes it does both within this time.
_OTHERS_WRITE_SECONDS = (0.005, 0.015, 0.03, 0.2, 0.0)
# No save takes as long; an older file is left over from a process that was killed.
_LEFT_OVER_SECONDS = 600.0
_OURS = ".gemini-sync."

_IsWhole = Callable[[bytes], bool]
_Sleep = Callable[[float], Any]


def replace_file(
    target: str, before: bytes, data: bytes, is_whole: _IsWhole, sleep: _Sleep
) -> Optional[os.stat_result]:
    """Put ``data`` in the place of ``before``, the content of ``target``, with mode 0600; return the file's status.

    If ``target`` has another content by now, it keeps that, and the result is None. ``is_whole`` tells a content from
    one that another program has not written to its end.

    Raises:
        OSError: it could not be written; it is left as it is.
    """
    _remove_left_over(target)
    try:
        return _rename_over(target, before, data, is_whole, sleep)
    except OSError as exc:
        if exc.errno not in _REFUSALS:
            raise
    return _write_in_place(target, before, data)


def _rename_over(
    target: str, before: bytes, data: bytes, is_whole: _IsWhole, sleep: _Sleep
) -> Optional[os.stat_result]:
    file, temporary = _file_beside(target, ".tmp")
    try:
        with file:
            _write(file, data)
            current = os.stat(target)
            if hasattr(os, "fchown") and current.st_uid != os.geteuid():
                os.fchown(file.fileno(), current.st_uid, current.st_gid)  # for root: the file keeps its owner
            status = os.fstat(file.fileno())
        for pause in (*_RENAME_PAUSES_SECONDS, None):
            with open(target, "rb", buffering=0) as replaced:
                # The second look is the last thing before the rename. It also keeps a symbolic link, which target is if
                # the link could not be resolved.
                if replaced.read() != before or not _is_at(target, replaced):
                    return None
                try:
                    os.replace(temporary, target)
                except OSError as exc:
                    if pause is None or exc.errno not in _REFUSALS:
                        raise
                else:
                    temporary = ""
                    theirs = None if replaced.closed else _written_since(replaced, before, is_whole, sleep)
                    if theirs is None:
                        return status
                    _rename_over(target, data, theirs, is_whole, sleep)
                    return None
            sleep(pause)
        return None
    finally:
        _remove(temporary)


def _is_at(path: str, file: FileIO) -> bool:
    status = os.fstat(file.fileno())
    if os.name == "nt":
        file.close()  # there, a file that is open cannot be replaced
    return os.path.samestat(os.lstat(path), status)


def _written_since(file: FileIO, before: bytes, is_whole: _IsWhole, sleep: _Sleep) -> Optional[bytes]:
    """What another program wrote into ``file``, which it opened before the rename; None if it did not."""
    for number, pause in enumerate(_OTHERS_WRITE_SECONDS):
        file.seek(0)
        content: bytes = conceal(file.read())
        if content != before and is_whole(content):
            return content
        if content == before and number:  # it has had the time to begin
            return None
        sleep(pause)
    return None


def _write_in_place(target: str, before: bytes, data: bytes) -> Optional[os.stat_result]:
    """Write over the content of ``target``. Until that is done, a file beside it holds the old content, if it can."""
    with open(target, "r+b", buffering=0) as file:
        if file.read() != before:
            return None
        backup = ""
        try:
            with contextlib.suppress(OSError):
                copy, backup = _file_beside(target, ".bak")
                with copy:
                    _write(copy, before)
            _overwrite(file, data)
        except BaseException:  # also if Ctrl-C comes
            _overwrite(file, before)  # if this fails, the backup stays
            _remove(backup)
            raise
        _remove(backup)
        if hasattr(os, "fchmod"):
            with contextlib.suppress(OSError):
                os.fchmod(file.fileno(), 0o600)
        return os.fstat(file.fileno())


def _overwrite(file: FileIO, data: bytes) -> None:
    file.seek(0)
    _write(file, data)
    file.truncate()


def _write(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
    try:
        os.fsync(file.fileno())
    except OSError as exc:
        if exc.errno not in _NO_SYNC:
            raise


def _file_beside(target: str, suffix: str) -> tuple[FileIO, str]:
    """A new file in the folder of ``target``, with mode 0600, and its path."""
    folder, name = os.path.split(target)
    descriptor, path = tempfile.mkstemp(prefix=f".{name}{_OURS}", suffix=suffix, dir=folder)
    return open(descriptor, "wb", buffering=0), path


def _remove_left_over(target: str) -> None:
    """Remove what saves of ours that were killed have left beside ``target``, because it holds tokens."""
    folder, name = os.path.split(target)
    is_ours = re.compile(re.escape(f".{name}{_OURS}") + r"[a-z0-9_]{8}\.(?:tmp|bak)").fullmatch
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in filter(lambda entry: is_ours(entry.name), entries):
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and time.time() - status.st_mtime > _LEFT_OVER_SECONDS:
                _remove(entry.path)


def _remove(path: str) -> None:
    if path:
        with contextlib.suppress(OSError):  # it would hide the error that led here
            os.unlink(path)
