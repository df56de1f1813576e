"""Prints the path of one call through the package: its calls, and how often it changes module and folder.

Run as ``python -m tests.call_path``. The calls go to the emulator: OAuth with cold caches and with warm ones, and an
API key with warm ones. The path is the sequence of calls of functions of the package outside ``testing``, in the thread
of the caller. The module changes if two neighbours in it are in different files, and the folder likewise. A call is
played several times and the shortest path is shown, because an answer that arrives in more pieces costs more calls.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gemini_sync
from gemini_sync import Endpoints, GeminiDualAdapter, OAuthClient
from gemini_sync.testing import Emulator

_PACKAGE = os.path.dirname(gemini_sync.__file__) + os.sep
_TESTING = _PACKAGE + "testing" + os.sep
_SETTLED_SECONDS = 60.0  # a file that changed a moment ago is read again, which a warm call does not do
_TIMES = 10

Steps = list[tuple[str, str]]


def _record(adapter: GeminiDualAdapter) -> tuple[Steps, int]:
    """The module and the function of each call, and how many of them come before the first chunk."""
    path: Steps = []

    def profile(frame: Any, event: str, argument: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(_PACKAGE) and not file.startswith(_TESTING):
            path.append((file[len(_PACKAGE) : -len(".py")], frame.f_code.co_name))

    sys.setprofile(profile)
    try:
        reply = adapter.stream("Hello")
        next(reply)
        to_first = len(path)
        for _ in reply:
            continue
    finally:
        sys.setprofile(None)
    return path, to_first


def _changes(places: Iterable[str]) -> int:
    found = list(places)
    return sum(before != after for before, after in zip(found, found[1:]))


def _show(title: str, adapters: Iterable[GeminiDualAdapter], list_all: bool) -> None:
    """Play one call on each of ``adapters``, and print the shortest path."""
    path, to_first = min(map(_record, adapters), key=lambda record: len(record[0]))
    print(title)
    for part, name in ((path[:to_first], "to the first chunk"), (path, "in all")):
        modules = [module for module, _ in part]
        changes = _changes(modules), _changes(map(os.path.dirname, modules))
        calls = f"{len(part):4} calls in {len(set(modules)):2} modules"
        print(f"  {name:<19}{calls},{changes[0]:4} changes of module,{changes[1]:4} of folder")
    if list_all:
        for number, (module, function) in enumerate(path):
            print(f"  {'*' if number == to_first - 1 else ' '} {module}.{function}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.call_path", description="The path of one call.")
    parser.add_argument("--list", action="store_true", help="print each call; a star marks the first chunk")
    list_all = parser.parse_args().list
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
        path = emulator.write_credentials(Path(folder, "oauth_creds.json"))
        written = path.stat().st_mtime
        os.utime(path, (written, written - _SETTLED_SECONDS))
        client, endpoints = OAuthClient(emulator.client_id, emulator.client_secret), Endpoints(**emulator.urls)
        with contextlib.ExitStack() as stack:
            oauth = [
                stack.enter_context(GeminiDualAdapter(None, path, oauth_client=client, endpoints=endpoints))
                for _ in range(_TIMES)
            ]
            by_key = stack.enter_context(GeminiDualAdapter(emulator.key, endpoints=endpoints))
            by_key.generate("Hello")
            _show("OAuth, cold", oauth, list_all)
            _show("OAuth, warm", oauth, list_all)
            _show("API key, warm", [by_key] * _TIMES, list_all)


if __name__ == "__main__":
    main()
