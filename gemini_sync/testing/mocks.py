"""Puts the players between the requests library and the network, together with the mocks of ``responses``.

A mock of the user's may be active around a player, or inside its block. Either way its registered responses win, and
the players are asked about what it has none for.
"""

from __future__ import annotations

import threading
from typing import Any, Optional, Protocol

import responses
from requests.adapters import HTTPAdapter

from gemini_sync.network.cancelling import Call


class _Player(Protocol):
    def can_answer(self, request: Any) -> bool: ...

    def answer(self, request: Any) -> Any: ...

    def refuse(self, request: Any, others: str = "") -> Exception: ...


_lock = threading.Lock()  # guards what follows, and the patches
_players: tuple[_Player, ...] = ()
_mock: Optional[_OwnMock] = None
_find_match: Any = None
_sleep: Any = None


def add_player(player: _Player) -> None:
    """Let ``player`` answer requests from now on; the newest player is asked first."""
    global _players, _mock, _find_match, _sleep
    with _lock:
        if not _players:
            _find_match, _sleep = responses.RequestsMock._find_match, Call.sleep
            responses.RequestsMock._find_match = _find_match_or_player  # type: ignore[method-assign,assignment]
            Call.sleep = _sleep_not  # type: ignore[method-assign,assignment]
            _mock = _OwnMock(HTTPAdapter.send)
            _mock.start()
        _players = (player, *_players)


def remove_player(player: _Player) -> None:
    global _players, _mock
    with _lock:
        _players = tuple(other for other in _players if other is not player)
        if not _players and _mock is not None:
            _mock.stop()
            _mock.reset()
            _mock = None
            responses.RequestsMock._find_match = _find_match  # type: ignore[method-assign]
            Call.sleep = _sleep  # type: ignore[method-assign]


class _OwnMock(responses.RequestsMock):
    """The mock that is active as long as there is a player; it has no responses of its own.

    Args:
        around: what carried the requests before.
    """

    def __init__(self, around: Any) -> None:
        ask: Any = self._ask_around
        super().__init__(assert_all_requests_are_fired=False, real_adapter_send=ask)
        self._around = around
        # Only mocks may be asked: anything else, such as a recorder, would reach the network.
        self.has_mock_around = str(getattr(around, "__module__", "")).partition(".")[0] == "responses"

    def _ask_around(self, adapter: Any, request: Any, **named: Any) -> Any:
        return self._around(adapter, request, **named)


def _find_match_or_player(mock: Any, request: Any) -> Any:
    match, reasons = _find_match(mock, request)
    if match is None:
        player = next((player for player in _players if player.can_answer(request)), None)
        if player is not None:
            return _Answer(request, player), reasons
        if isinstance(mock, _OwnMock) and mock.has_mock_around:
            return responses.PassthroughResponse(request.method, request.url), reasons
        if _players and not mock.passthru_prefixes:  # with a prefix the user lets some requests through
            return _Refusal(request, _players[0], mock.registered()), reasons
    return match, reasons


class _Answer(responses.BaseResponse):
    """The answer of a player to one request."""

    def __init__(self, request: Any, player: _Player) -> None:
        super().__init__(request.method, request.url)
        self._player = player

    def get_response(self, request: Any) -> Any:
        return self._player.answer(request)


class _Refusal(_Answer):
    def __init__(self, request: Any, player: _Player, registered: Any) -> None:
        super().__init__(request, player)
        self._registered = registered

    def get_response(self, request: Any) -> Any:
        others = "".join(f"\n  - {mock.method} {getattr(mock.url, 'pattern', mock.url)}" for mock in self._registered)
        raise self._player.refuse(request, f"\nNor do the mocks of responses:{others}" if others else "")


def _sleep_not(call: Any, seconds: float) -> None:
    """A pause before another try: the answer to that is there already. A clock of a test's own still hears of it."""
    _sleep(call, seconds if getattr(call, "_sleep", None) is not None else 0.0)
