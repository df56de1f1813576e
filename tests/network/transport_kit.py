"""Transports without sockets, for tests: bodies in pieces, prepared answers, and an adapter that uses them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Optional

import requests
import urllib3
from requests.adapters import BaseAdapter

from gemini_sync import Endpoints, GeminiDualAdapter
from tests.wire.support import AT_ONCE

HOST = "https://gemini.example"
URL = f"{HOST}/v1beta/models/m:streamGenerateContent?alt=sse"


def mocked(**settings: Any) -> GeminiDualAdapter:
    """An adapter on the API-key route of ``HOST``."""
    return GeminiDualAdapter("a-key", model="m", **{"endpoints": Endpoints(gemini=HOST), "retry": AT_ONCE, **settings})


class Pieces(io.RawIOBase):
    """A body that arrives in pieces, without a socket; ``before`` is called before each."""

    def __init__(self, pieces: Iterable[bytes], before: Callable[[], object] = lambda: None) -> None:
        self._pieces, self._before = iter(pieces), before

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._before()
        piece = next(self._pieces, b"")
        buffer[: len(piece)] = piece
        return len(piece)

    def read1(self, size: int = -1) -> bytes:
        return self.read(65536) or b""


class Canned(BaseAdapter):
    """A caller's own transport adapter, without sockets; ``sent`` holds the options of each request."""

    def __init__(
        self,
        body: Callable[[], io.IOBase],
        status: int = 200,
        headers: Optional[Mapping[str, str]] = None,
    ) -> None:
        super().__init__()
        self._body, self._status = body, status
        self._headers = {"Content-Type": "text/event-stream", **(headers or {})}
        self.sent: list[dict[str, Any]] = []

    def send(self, request: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        self.sent.append(options)
        made = requests.Response()
        made.status_code, made.url, made.request = self._status, request.url, request
        made.headers.update(self._headers)
        made.raw = urllib3.HTTPResponse(self._body(), preload_content=False, headers=made.headers)
        return made

    def close(self) -> None:
        """Nothing to close."""

    def session(self) -> requests.Session:
        """A session on it."""
        made = requests.Session()
        made.mount("https://", self)
        return made


def endless(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece
