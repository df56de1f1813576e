"""Looks for what a process still holds after a round: connections, threads, descriptors, memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import statistics
import threading
import time
from pathlib import Path

from gemini_sync.testing.emulator import Emulator
from tests.attacks.kit import Teller, descriptors

_SETTLE_SECONDS = 10.0
_GROWTH = 1.1  # of memory, from the third quarter of the rounds to the last one; an allocator takes it in steps


class Leaks:
    """What the process holds after each round."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._threads, self._descriptors = threading.active_count(), descriptors()
        self.memory: list[float] = []
        self.objects: list[float] = []

    def look(self, tell: Teller) -> None:
        gc.collect()
        if not self._emulator.wait_closed(_SETTLE_SECONDS):
            tell.found("connections are open at the end", str(self._emulator.connections_open), "round")
        self._emulator.clear()
        for what, count, most in (
            ("threads", threading.active_count, self._threads),
            ("descriptors", descriptors, self._descriptors),
        ):
            ends = time.monotonic() + _SETTLE_SECONDS
            while count() > most and time.monotonic() < ends:
                time.sleep(0.01)
            if count() > most:
                tell.found(f"{what} are left at the end", f"{count()} instead of {most}", "round")
        gc.collect()
        self.objects.append(len(gc.get_objects()))
        self.memory.append(_memory())

    def compare(self, tell: Teller) -> None:
        """Memory has to be level in the second half; before, the allocator and the pools fill up."""
        quarter = len(self.memory) // 4
        if quarter < 2:
            return
        for what, values in (("bytes of memory", self.memory), ("objects", self.objects)):
            before = statistics.median(values[-2 * quarter : -quarter])
            after = statistics.median(values[-quarter:])
            if after > before * _GROWTH:
                tell.found(f"{what} grow", f"{values}", "all rounds")
            tell.count(f"{what} early", int(before))
            tell.count(f"{what} late", int(after))


def _memory() -> float:
    """The bytes of this process in memory; 0 if the system does not tell."""
    if not os.path.exists("/proc/self/statm"):
        return 0.0
    with contextlib.suppress(AttributeError, OSError):  # the allocator of the system may keep what Python has freed
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
