"""Raises an error at a chosen point of a call, as a signal handler would, and finds the locks that are left."""

from __future__ import annotations

import dis
import gc
import os
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

from gemini_sync.testing.emulator import Emulator

_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_NOT_FOLLOWED = (type, types.ModuleType, types.FrameType, types.CodeType, threading.Thread, Emulator)
_HERE = os.path.dirname(__file__)  # these tools are not interrupted themselves


class Injector:
    """A trace function that counts points, and raises ``error`` at the one with the number ``at``.

    Args:
        everywhere: True if each bytecode boundary is a point.
    """

    def __init__(self, at: int, error: BaseException, tell: Callable[[str], None], everywhere: bool = False) -> None:
        self._at, self._tell, self._everywhere = at, tell, everywhere
        self._error: Optional[BaseException] = error
        self.points = 0
        self.stack: Optional[str] = None
        self.in_finalizer = False

    def run(self, work: Callable[[], object]) -> Optional[BaseException]:
        """What ``work`` raised, or None."""
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            work()
        except BaseException as exc:
            return exc
        finally:
            sys.settrace(before)
        return None

    def _call(self, frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.startswith(_HERE):
            return None
        frame.f_trace = self._opcode  # Python 3.13 takes notice of the next line only if this is set
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._opcode

    def _opcode(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "opcode" and (self._everywhere or frame.f_lasti in _signal_points(frame.f_code)):
            self.points += 1
            if self.points == self._at:
                sys.settrace(None)
                self.stack = _stack(frame)
                self.in_finalizer = _is_in_finalizer(frame)
                self._tell(_place(frame))
                error, self._error = self._error, None  # its traceback would keep the frames of the call
                raise error
        return self._opcode


def _stack(frame: Any) -> str:
    """The calls that led to ``frame`` from these tools, one a line."""
    lines = []
    while frame is not None and not frame.f_code.co_filename.startswith(_HERE):
        lines.append(
            f"    {'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{frame.f_lineno} {frame.f_code.co_name}"
        )
        frame = frame.f_back
    return "\n".join(reversed(lines))


def _is_in_finalizer(frame: Any) -> bool:
    """True if ``io.IOBase.__del__`` has led to ``frame``: it ignores errors of ``close()`` and does not even tell."""
    while frame is not None and frame.f_back is not None:
        name, caller = frame.f_code.co_name, frame.f_back
        if name in ("close", "closed", "flush") and name not in caller.f_code.co_names:
            return True
        frame = caller
    return False


def _place(frame: Any) -> str:
    """The line of ``frame``, and our own function that it was called from."""
    code, ours = frame.f_code, frame
    while ours is not None and "gemini_sync" not in ours.f_code.co_filename:
        ours = ours.f_back
    place = f"{'/'.join(Path(code.co_filename).parts[-2:])}:{frame.f_lineno} {code.co_name}"
    if ours is not None and ours is not frame:
        place += f", from {Path(ours.f_code.co_filename).name}:{ours.f_lineno} {ours.f_code.co_name}"
    return place


_points_of: dict[int, tuple[frozenset[int], types.CodeType]] = {}  # by the id of the code, whose hash is slow


def _signal_points(code: types.CodeType) -> frozenset[int]:
    """The offsets in ``code`` before which this Python looks for signals."""
    known = _points_of.get(id(code))
    if known is None:
        known = _points_of[id(code)] = frozenset(_find_points(code)), code
    return known[0]


def _find_points(code: types.CodeType) -> Iterator[int]:
    instructions = list(dis.get_instructions(code))
    for before, after in zip([None, *instructions], instructions):
        if sys.version_info < (3, 11):  # it looks at more places than these, but not between a call and its end
            if before is None or before.opname.startswith(("CALL_", "JUMP_ABSOLUTE", "POP_JUMP", "YIELD_")):
                yield after.offset
        elif before is not None and before.opname in ("RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX"):
            yield after.offset
        if after.opname == "JUMP_BACKWARD":
            yield after.argval


def locks_of(*roots: Any) -> Iterator[tuple[str, Any]]:
    """Every lock that can be reached from ``roots`` through attributes, containers, methods and closures."""
    seen, todo = {id(root) for root in roots}, deque((type(root).__name__, root) for root in roots)
    while todo:
        path, current = todo.popleft()
        if isinstance(current, _LOCKS):
            yield path, current
            continue
        if isinstance(current, types.FunctionType):
            found: list[Any] = [*(current.__closure__ or ()), *(current.__defaults__ or ())]
        else:
            found = gc.get_referents(current)
        for value in found:
            if id(value) not in seen and not isinstance(value, _NOT_FOLLOWED):
                seen.add(id(value))
                name = type(value).__name__
                todo.append((path if name in ("dict", "cell", "tuple", "method") else f"{path} > {name}", value))
