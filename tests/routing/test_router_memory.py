"""The router keeps no chunk that it has handed over, because a chunk may hold megabytes of an image."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest

from gemini_sync.config import Timeouts
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.request import Request
from gemini_sync.network.cancelling import Call
from gemini_sync.routing.router import Router
from gemini_sync.services.base import OpenStream
from tests.adapter_kit import ask, chunk


class Raw(dict):  # type: ignore[type-arg]
    """A dict that allows weak references."""


class Watching:
    """A service that notes, before each later chunk, whether the first one is still in memory."""

    def __init__(self) -> None:
        self.first_is_there: list[bool] = []

    def open(self, request: Request, call: Call) -> OpenStream:
        raw = Raw(chunk("one").raw)
        return Chunk(raw), self._rest(weakref.ref(raw))

    def _rest(self, first: weakref.ref[Raw]) -> Iterator[Chunk]:
        for text, finish in (("two", None), ("three", "STOP")):
            self.first_is_there.append(first() is not None)
            yield chunk(text, finish)

    def count_tokens(self, request: Request, call: Call) -> int:
        raise AssertionError("no count was asked for")


@pytest.mark.parametrize("route", ["oauth", "api_key"])
def test_first_chunk__is_freed_while_the_stream_goes_on(route: str) -> None:
    service = Watching()
    assert list(Router({route: service}).stream(ask(), Timeouts())) == ["one", "two", "three"]
    assert service.first_is_there == [False, False]
