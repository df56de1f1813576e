"""Bodies that are small on the wire and large behind it, and what they cost."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import Any, Optional

from gemini_sync import GeminiSyncError, Reply, StreamInterrupted
from tests.wire.support import drain

MIB = 2**20


def times(piece: bytes, size: int) -> bytes:
    """``piece`` again and again, ``size`` bytes in all or a little more."""
    return piece * (size // len(piece) + 1)


def packed(body: bytes, encoding: str = "gzip") -> dict[str, Any]:
    """What makes the emulator answer with ``body`` as one compressed piece."""
    data = gzip.compress(body, 1) if encoding == "gzip" else zlib.compress(body, 1)
    return {"body": data, "headers": {"Content-Encoding": encoding}, "pieces": len(data)}


def drained(reply: Reply) -> tuple[list[str], Optional[GeminiSyncError], int]:
    """The texts of ``reply``, what went wrong with the stream, and the peak of the memory in bytes."""
    tracemalloc.start()
    try:
        texts, error = drain(reply)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    cause = error.__cause__ if isinstance(error, StreamInterrupted) and not error.cancelled else error
    assert cause is None or isinstance(cause, GeminiSyncError)
    return texts, cause, peak
