"""Errors that a signal handler raised in the middle of a call, told from those of the call itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

# Their frames are no signal handlers. A look at the variables of a frame would keep them alive (Python 3.12 and older).
_LIBRARIES = frozenset(
    {"gemini_sync", "requests", "urllib3", "http", "socket", "ssl", "socks", "threading", "tenacity"}
)
# Between frames of these may stand one of these, but they call no code of the caller's by themselves.
_BESIDE = _LIBRARIES.union(
    "contextlib functools json concurrent codecs encodings re tempfile os queue selectors email".split(),
    "gevent eventlet greenlet OpenSSL google idna".split(),
)


def causes_of(exc: BaseException) -> Iterator[BaseException]:
    """``exc`` and the errors it was made from; libraries keep them in args, attributes and ``__cause__``.

    Not those in ``__context__``: if the caller makes this call while it handles another error, that error is there.
    """
    seen: set[int] = set()
    todo: list[Any] = [exc]
    while todo:
        current = todo.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            kept = (getattr(current, name, None) for name in ("reason", "socket_err"))  # of urllib3 and of PySocks
            todo += [*current.args, *kept, current.__cause__]


def is_interruption(exc: BaseException) -> bool:
    """True if a signal handler raised ``exc``, such as the TimeoutError of a caller's own limit by SIGALRM.

    Its type says nothing, because a socket raises the same. But Python gives a handler the frame that it interrupts,
    and that frame stands before the handler's own in the traceback.
    """
    step = exc.__traceback__
    while step is not None and step.tb_next is not None:
        interrupted, step = step.tb_frame, step.tb_next
        frame = step.tb_frame
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _LIBRARIES:
            for value in frame.f_locals.values():
                given = value if type(value) is tuple else (value,)  # a handler may take its arguments as *args
                if any(item is interrupted for item in given):
                    return True
    return False


def interruption_in(exc: BaseException) -> Optional[BaseException]:
    """The error that a signal handler raised, ``exc`` itself or one that it was made from; else None."""
    # The last, because urllib3 raises its own errors with the traceback of the error that they were made from.
    return ([None, *filter(is_interruption, causes_of(exc))])[-1]


def raise_interruption(exc: BaseException) -> None:
    """If a signal handler raised ``exc``, or an error that ``exc`` was made from, raise that error as it is."""
    found = interruption_in(exc)
    if found is None:
        return
    context = found.__context__
    try:
        raise found
    finally:
        found.__context__ = context  # Python has set it to the error that is handled here
        del found, exc  # its traceback holds this frame


def is_of_libraries(exc: BaseException, *, wholly: bool) -> bool:
    """True if a library or this package raised ``exc``; with ``wholly``, if it also passed through no other code."""
    names, step = [], exc.__traceback__
    while step is not None:
        names.append(str(step.tb_frame.f_globals.get("__name__")).partition(".")[0])
        step = step.tb_next
    return all(name in _BESIDE for name in (names if wholly else names[-1:]))


def drop_frames(error: BaseException) -> None:
    """Take the tracebacks off ``error`` and the errors that it was made from.

    A reporter that shows the variables of the frames would show what a server said, unredacted. The traceback of an
    error that passed through code of the caller's stays.
    """
    seen: set[int] = set()
    todo: list[Optional[BaseException]] = [error]
    while todo:
        current = todo.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            todo += [current.__cause__, current.__context__]
            if is_of_libraries(current, wholly=True):
                current.__traceback__ = None
