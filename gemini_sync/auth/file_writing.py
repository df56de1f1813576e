"""Writes a file that other programs read: at once by a rename, or in place under a backup where that is refused."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from io import FileIO
from typing import Any, Optional

# A scanner or another reader on Windows has the file open for a moment. Other refusals stay, and cost these pauses.
_RENAME_PAUSES_SECONDS = (0.02, 0.05, 0.1)
# A file that is mounted alone, a folder that may not be written, an owner that cannot be kept. If the file itself may
# not be written either, writing it in place is refused as well.
_REFUSALS = frozenset(
    (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY, errno.EINVAL, errno.ENOTSUP)
)
# Some file systems know no fsync. The file is written all the same.
_NO_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.ENOSYS))

_IsCurrent = Callable[[os.stat_result], bool]
_Sleep = Callable[[float], Any]


def replace_file(target: str, data: bytes, is_current: _IsCurrent, sleep: _Sleep) -> Optional[os.stat_result]:
    """Put ``data`` in the place of the content of ``target``, with mode 0600, and return the file's status.

    If ``is_current`` says of the status of ``target`` that it is another one by now, do nothing and return None.

    Raises:
        OSError: it could not be written; it is left as it is.
    """
    try:
        return _rename_over(target, data, is_current, sleep)
    except OSError as exc:
        if exc.errno not in _REFUSALS:
            raise
    return _write_in_place(target, data, is_current)


def _rename_over(target: str, data: bytes, is_current: _IsCurrent, sleep: _Sleep) -> Optional[os.stat_result]:
    file, temporary = _file_beside(target, ".tmp")
    try:
        with file:
            _write(file, data)
            current = os.stat(target)
            if hasattr(os, "fchown") and current.st_uid != os.geteuid():
                os.fchown(file.fileno(), current.st_uid, current.st_gid)  # for root: the file keeps its owner
            status = os.fstat(file.fileno())
        pauses = iter(_RENAME_PAUSES_SECONDS)
        while is_current(current):
            try:
                os.replace(temporary, target)
                temporary = ""
                return status
            except OSError as exc:
                pause = next(pauses, None)
                if pause is None or exc.errno not in _REFUSALS:
                    raise
                sleep(pause)
            current = os.stat(target)
        return None
    finally:
        _remove(temporary)


def _write_in_place(target: str, data: bytes, is_current: _IsCurrent) -> Optional[os.stat_result]:
    """Write over the content of ``target``. Until that is done, a file beside it holds the old content, if it can."""
    with open(target, "r+b", buffering=0) as file:
        if not is_current(os.fstat(file.fileno())):
            return None
        before, backup = file.read(), ""
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
    descriptor, path = tempfile.mkstemp(prefix=f".{name}.", suffix=suffix, dir=folder)
    return open(descriptor, "wb", buffering=0), path


def _remove(path: str) -> None:
    if path:
        with contextlib.suppress(OSError):  # it would hide the error that led here
            os.unlink(path)
