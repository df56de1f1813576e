"""Loads and saves cassette files; several processes may save to the same file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, Optional, Union

from gemini_sync.testing.cassette.document import error, parse
from gemini_sync.testing.cassette.foreign import read_foreign
from gemini_sync.testing.cassette.reading import is_own, read
from gemini_sync.testing.cassette.values import Cassette, CassetteError
from gemini_sync.testing.cassette.writing import dumps

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

AnyPath = Union[str, "os.PathLike[str]"]


def load(path: AnyPath) -> Cassette:
    """The cassette in a file of ours, of vcrpy, or of the recorder of ``responses``.

    Raises:
        CassetteError: the file is missing, broken, cut off, or of a newer format.
    """
    data = read_bytes(path)
    if data is None:
        raise error(os.fspath(path), None, "there is no such file. Record it first")
    return loads(data, path)


def loads(data: bytes, path: AnyPath) -> Cassette:
    """The cassette in ``data``; ``path`` names it in errors."""
    name = os.fspath(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise error(name, data[: exc.start].count(b"\n") + 1, "this is no UTF-8 text") from exc
    document = parse(text, name)
    return read(document, text, name) if is_own(document) else read_foreign(document, name)


def read_bytes(path: AnyPath) -> Optional[bytes]:
    """The content of a file; None if there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CassetteError(f"The cassette {os.fspath(path)} cannot be read: {exc.strerror}.") from exc


def save(cassette: Cassette, path: AnyPath) -> None:
    """Write a cassette in one step: a reader sees the old file or the new one.

    Raises:
        CassetteError: it cannot be written, or what was written would not read as the same exchanges.
    """
    name = os.fspath(path)
    text = dumps(cassette)
    data = text.encode()
    if loads(data, path).exchanges != cassette.exchanges:
        raise CassetteError(f"The cassette {name} was not saved, because it would not replay the same. Report this.")
    try:
        os.makedirs(os.path.dirname(os.path.abspath(name)), exist_ok=True)
        _replace(os.path.realpath(name), data)
    except OSError as exc:
        raise CassetteError(f"The cassette {name} cannot be written: {exc.strerror}.") from exc


def _replace(target: str, data: bytes) -> None:
    folder, name = os.path.split(target)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode_of(target))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _mode_of(target: str) -> int:
    """The mode of the file that is replaced; that of any new file if there is none."""
    with contextlib.suppress(OSError):
        return os.stat(target).st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextlib.contextmanager
def locked(path: AnyPath) -> Iterator[None]:
    """Hold the lock between processes that belongs to a cassette: a file beside it, which is removed at the end."""
    name = os.fspath(path)
    lock = os.path.join(os.path.dirname(os.path.abspath(name)), f".{os.path.basename(name)}.lock")
    try:
        os.makedirs(os.path.dirname(lock), exist_ok=True)
        file = _lock_file(lock)
    except OSError as exc:
        raise CassetteError(f"The lock {lock} of the cassette cannot be taken: {exc.strerror}.") from exc
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes no open file; the next recording uses it again
                os.unlink(lock)


def _lock_file(lock: str) -> Any:
    while True:
        file = open(lock, "ab")  # noqa: SIM115 (the caller closes it)
        try:
            if sys.platform == "win32":
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX)
            # Its last holder may have removed it since we opened it, and another process may hold a new one.
            if os.path.exists(lock) and os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()
