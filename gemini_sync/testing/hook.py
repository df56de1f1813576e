"""Listens to ``HTTPAdapter.send``, which every request of the requests library passes."""

from __future__ import annotations

import threading
from typing import Any, Callable, Protocol

from requests.adapters import HTTPAdapter


class Listener(Protocol):
    """What hears of each request of this process."""

    def carry(self, send: Callable[[], Any], request: Any) -> Any:
        """Call ``send`` and return the response that it gives."""


_lock = threading.Lock()  # guards _listeners and _original, and HTTPAdapter.send itself
_listeners: tuple[Listener, ...] = ()
_original: Any = None


def listen(listener: Listener) -> None:
    """Let ``listener`` carry all requests from now on, also those of sessions that exist already."""
    global _listeners, _original
    with _lock:
        if not _listeners and HTTPAdapter.send is not _send:
            _original = HTTPAdapter.send
            HTTPAdapter.send = _send  # type: ignore[method-assign,assignment]
        _listeners = (*_listeners, listener)


def stop_listening(listener: Listener) -> None:
    global _listeners
    with _lock:
        _listeners = tuple(other for other in _listeners if other is not listener)
        # If a mock has come in between, it would put our function back later; without listeners that does nothing.
        if not _listeners and HTTPAdapter.send is _send:
            HTTPAdapter.send = _original  # type: ignore[method-assign]


def _send(adapter: Any, request: Any, *arguments: Any, **named: Any) -> Any:
    send: Callable[[], Any] = lambda: _original(adapter, request, *arguments, **named)  # noqa: E731
    for listener in _listeners:
        send = _carried(listener, send, request)
    return send()


def _carried(listener: Listener, send: Callable[[], Any], request: Any) -> Callable[[], Any]:
    return lambda: listener.carry(send, request)
