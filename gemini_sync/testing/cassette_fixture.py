"""What the fixture ``gemini_cassette`` of the pytest plugin does: which file a test has, and whether it records."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any, Optional

import pytest

from gemini_sync.testing.recorder import record
from gemini_sync.testing.replayer import replay

_REPLAYING = ("match", "pace", "allow_repeats", "scrub")
_RECORDING = ("scrub", "keep_headers")
_MOST_CHARACTERS = 150  # in a file name; systems allow 255 bytes


class CassetteFixture:
    """The cassette of one test, which is replayed or recorded.

    Args:
        mode: the option ``--gemini-record``.

    Attributes:
        records: True if the test is recorded.
        unused: after ``stop()``, a line for each exchange that the test did not ask for.
    """

    def __init__(self, item: pytest.Item, mode: str) -> None:
        marker = item.get_closest_marker("gemini_cassette")
        settings = dict(marker.kwargs) if marker else {}
        if (marker and marker.args) or not {*settings} <= {*_REPLAYING, *_RECORDING}:
            names = ", ".join(dict.fromkeys(_REPLAYING + _RECORDING))
            pytest.fail(f"the marker gemini_cassette takes {names} by name", pytrace=False)
        self._path, self._root = cassette_path(item), item.config.rootpath
        exists = os.path.exists(self._path)
        self.records = mode == "rewrite" or (mode == "once" and not exists)
        if not exists and not self.records:
            how = "Record it with your credentials: pytest --gemini-record=once"
            pytest.fail(f"There is no cassette {self._path}. {how}", pytrace=False)
        kept = _RECORDING if self.records else _REPLAYING
        self._settings: dict[str, Any] = {name: settings[name] for name in kept if name in settings}
        self._recorder: Optional[record] = None
        self._player: Optional[replay] = None
        self.unused: list[str] = []

    def start(self) -> Any:
        if self.records:
            self._recorder = record(self._path, **self._settings)
            return self._recorder.__enter__()
        self._player = replay(self._path, **self._settings)
        return self._player.__enter__()

    def stop(self, *, passed: bool) -> None:
        """End it; a test that did not pass has nothing saved and nothing told."""
        if self._recorder is not None:
            self._recorder.__exit__(None if passed else RuntimeError, None, None)
        if self._player is not None:
            self._player.__exit__(None, None, None)
            self.unused = self._lines(self._player) if passed else []

    @property
    def misses(self) -> list[Any]:
        """The errors of requests that nothing answered."""
        return [] if self._player is None else [*self._player.misses]

    def _lines(self, player: replay) -> list[str]:
        name, unused = os.path.relpath(self._path, self._root), [*map(id, player.unused)]
        numbered = enumerate(player.cassette.exchanges, 1)
        left = [(number, exchange.request) for number, exchange in numbered if id(exchange) in unused]
        return [f"{name}: exchange {number} ({sent.method} {sent.url})" for number, sent in left]


def cassette_path(item: pytest.Item) -> str:
    """Where the cassette of a test is, such as ``tests/test_app.test_hello.yaml``; parameters follow a hyphen."""
    names = [node.name for node in item.listchain() if isinstance(node, (pytest.Class, pytest.Item))]
    function, bracket, parameters = names[-1].partition("[")
    name = ".".join([item.path.stem, *names[:-1], function]) + (f"-{parameters[:-1]}" if bracket else "")
    name = re.sub(r"[^\w.,=+-]", lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), name)
    if len(name) > _MOST_CHARACTERS:
        name = f"{name[:_MOST_CHARACTERS]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return str(item.path.parent / f"{name}.yaml")
