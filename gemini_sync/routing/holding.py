"""Holds back the first chunks of a stream until one has content, because another try is possible until then."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

from gemini_sync.messages.call_record import CallRecord
from gemini_sync.messages.chunks import Chunk, has_content
from gemini_sync.messages.request import Request
from gemini_sync.services.base import OpenStream

# So many chunks are held back, and so much JSON in them. If there is still no content, the stream counts as begun.
_MOST_CHUNKS, _MOST_CHARACTERS = 100, 2**20

#: The first chunks of a stream, of which only the last may have content, and an iterator over the rest.
HeldStream = tuple[deque[Chunk], Generator[Chunk, None, None]]


def hold(stream: OpenStream, request: Request, record: CallRecord) -> HeldStream:
    """Read on until a chunk has content. Thoughts count if the request asks for them, or if the caller sees chunks.

    An error of the stream comes out as it is, because the caller has seen nothing of it. The stream is closed then.
    """
    thoughts, size = record.shows_thoughts or request.asks_for_thoughts, 0
    held, rest = deque(stream[:1]), stream[1]
    try:
        while not has_content(held[-1], thoughts=thoughts):
            size += _size(held[-1])
            if len(held) >= _MOST_CHUNKS or size > _MOST_CHARACTERS:
                break
            chunk = next(rest, None)
            if chunk is None:  # a stream that ends without content is one to show as it came
                break
            held.append(chunk)
        return held, rest
    except BaseException:  # Ctrl-C as well
        rest.close()
        raise


def _size(chunk: Chunk) -> int:
    try:
        return len(repr(chunk.envelope))
    except RecursionError:  # it is nested deeper than Python's stack, so it is measured as too large
        return _MOST_CHARACTERS + 1
