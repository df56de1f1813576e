"""A program that forks while a stream is running, connections are idle and a thread holds every lock of the adapter."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemini_sync.testing.emulator import Emulator, default_text
from tests.adapter_kit import Rig

_LOCKS = (type(threading.Lock()), type(threading.RLock()))


def locks_in(thing: Any, seen: set[int]) -> list[Any]:
    """Every lock in the attributes of ``thing``, and in the objects of this package that it refers to."""
    found: list[Any] = []
    for value in vars(thing).values():
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, _LOCKS):
            found.append(value)
        elif isinstance(value, dict):
            found += [lock for item in value.values() if _is_ours(item) for lock in locks_in(item, seen)]
        elif _is_ours(value):
            found += locks_in(value, seen)
    return found


def _is_ours(value: Any) -> bool:
    return type(value).__module__.startswith("gemini_sync.") and hasattr(value, "__dict__")


@contextlib.contextmanager
def held(locks: list[Any]) -> Iterator[None]:
    """Another thread holds all ``locks``, so that this thread cannot take a reentrant one either."""
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            taken.set()
            release.wait(30)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert taken.wait(10)
    yield
    release.set()
    holder.join(10)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator, Rig(emulator, Path(folder)) as rig:
        adapter = rig.adapter()
        replies = [adapter.stream(f"Parent {number}") for number in range(2)]
        begun = [next(reply) for reply in replies]
        rest = "".join(replies.pop())  # leaves an idle connection
        assert begun.pop() + rest == default_text("Parent 1")
        locks = locks_in(adapter, set())
        assert len(locks) >= 3
        with held(locks):
            child = os.fork()
            if child == 0:
                reply = adapter.generate("Child")
                said = f"child: {reply.route}, {'' if adapter.fallback_active else 'not '}fallen back\n"
                os.write(1, said.encode() if reply.text == default_text("Child") else b"child: wrong text\n")
                os._exit(0)
            _, status = os.waitpid(child, 0)
        exact = begun.pop() + "".join(replies.pop()) == default_text("Parent 0")
        exact = exact and adapter.generate("Parent 2").text == default_text("Parent 2")
        sys.stdout.write(f"parent: {'both streams exact' if exact else 'wrong text'}\n")
        sys.stdout.write(f"connections: {emulator.connections_total}\n")
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
