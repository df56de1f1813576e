"""Chunks and replies as the tests of this folder make them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Optional, Union

from gemini_sync.errors import GeminiSyncError
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.reply import Reply


def chunk(*parts: Any, envelope: Optional[dict[str, Any]] = None, usage: Any = None, **candidate: Any) -> Chunk:
    """A chunk whose candidate 0 has these parts. A string is a text part."""
    content = {"role": "model", "parts": [{"text": part} if isinstance(part, str) else part for part in parts]}
    metadata = {} if usage is None else {"usageMetadata": usage}
    return Chunk({"candidates": [{"content": content, **candidate}], **metadata}, envelope)


STOP = chunk("b", finishReason="STOP")


def feedback(**fields: Any) -> Chunk:
    """A chunk about the prompt."""
    return Chunk({"promptFeedback": fields})


def reply_of(*items: Union[Chunk, BaseException], **options: Any) -> Reply:
    """A reply whose stream yields the chunks and raises the error among ``items``."""

    def stream() -> Generator[Chunk, None, None]:
        for item in items:
            if isinstance(item, BaseException):
                raise item
            yield item

    return Reply(stream(), **options)


def end_of(reply: Reply) -> Optional[GeminiSyncError]:
    """The error at the end of the text, or None."""
    try:
        for _ in reply:
            continue
    except GeminiSyncError as exc:
        return exc
    return None
