"""A lock between processes for a file that they change; the lock is on a file beside it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from io import FileIO
from typing import Any, Optional

_POLL_SECONDS = 0.05
# Also what Windows says of a part of a file that another process has locked.
_TAKEN = frozenset((errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK))

# Both kinds belong to the open file, so two threads keep each other out as well. Each ends with its process.
if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextlib.contextmanager
def locked(path: str, seconds: float, sleep: Callable[[float], Any]) -> Iterator[None]:
    """Hold the lock for the file ``path``. It keeps out the processes and threads that use this function as well.

    ``sleep`` waits for a part of ``seconds``, and ends the wait by an error of its own.

    Raises:
        BlockingIOError: others held the lock for ``seconds``.
        OSError: there can be no lock, because the folder may not be written or its file system has none.
    """
    folder, name = os.path.split(os.path.realpath(path))
    beside = os.path.join(folder, f".{name}.lock")
    left = seconds
    while (file := _take(beside)) is None:
        if left <= 0:
            raise BlockingIOError(errno.EAGAIN, "another process holds the lock", beside)
        sleep(_POLL_SECONDS)
        left -= _POLL_SECONDS  # counted, because a clock of a test may stand still
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(beside)  # Windows keeps it, because it is open
            _unlock(file.fileno())  # a forked child may have the file open still


def _take(beside: str) -> Optional[FileIO]:
    """The open file whose lock was taken; None if others have it."""
    file = FileIO(beside, "a", opener=_open_ours)
    try:
        _lock(file.fileno())
        if os.path.samestat(os.fstat(file.fileno()), os.stat(beside)):
            return file
    except FileNotFoundError:
        pass
    except OSError as exc:
        if exc.errno not in _TAKEN:
            file.close()
            raise
    # Others have the lock, or they had it and have removed this file.
    file.close()
    return None


def _open_ours(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)
