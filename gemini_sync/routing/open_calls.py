"""The calls of an adapter that are under way, so that closing the adapter can end them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gemini_sync.errors import ConfigError
from gemini_sync.fork import register_after_fork
from gemini_sync.network.deadlines import Call


class OpenCalls:
    """A set of calls; once closed, it takes no further ones."""

    def __init__(self) -> None:
        self._closed = False
        # No lock: set.add, set.discard and set.copy are atomic. A lock could deadlock, because a signal handler or the
        # garbage collector may run in the thread that holds it.
        self._calls: set[Call] = set()
        register_after_fork(self)

    def after_fork(self) -> None:
        self._calls = set()  # these belong to threads of the parent process

    def check(self) -> None:
        """Raises ``ConfigError`` once closed."""
        if self._closed:
            raise ConfigError("The adapter is closed. Make a new one.")

    @contextmanager
    def include(self, call: Call) -> Iterator[None]:
        """Let ``close()`` cancel the call while it runs."""
        self._calls.add(call)
        try:
            # This check comes after the call was added: close() sets the flag first and looks at the calls second.
            if self._closed:
                call.cancel()
            yield
        finally:
            self._calls.discard(call)

    def close(self) -> None:
        """Cancel all calls. Idempotent."""
        self._closed = True
        for call in self._calls.copy():
            call.cancel()
