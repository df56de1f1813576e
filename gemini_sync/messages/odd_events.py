"""What is read from events that are not simply one chunk with one text: errors, arrays, pings, half characters."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable
from typing import Any, Optional

from gemini_sync.errors import UNREADABLE_ANSWER, ProtocolError
from gemini_sync.messages.api_errors import api_error, find_error
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.half_characters import HalfCharacters
from gemini_sync.messages.rest_json import dict_of, int_of
from gemini_sync.messages.sse import BareJsonEvent, Event
from gemini_sync.redaction import EXCERPT_CHARACTERS, beginning, redacted_excerpt, redacted_name

_log = logging.getLogger(__name__)

#: Stands for the value of an event that is no JSON, or has white space around it.
UNDECODED = object()
_ERROR_CHARACTERS = 2**20  # as of an error that is a whole answer
_MOST_WARNINGS = 100  # of one stream
_CHUNK_FIELDS = ("candidates", "promptFeedback", "usageMetadata")


class OddEvents:
    """Reads the odd events of one stream.

    Attributes:
        halves: the halves of characters that wait for their other half.
    """

    def __init__(self, envelope: Optional[str], secrets: Collection[str]) -> None:
        self._envelope, self._secrets = envelope, secrets
        self._position, self._skipped = 0, 0
        self._began, self._finished = False, False  # True after a chunk, and after a finish reason
        self.halves = HalfCharacters()

    def read(self, event: Event, decoded: Any, position: int, finished: bool) -> Iterable[Chunk]:
        """The chunks in ``event``.

        Args:
            decoded: the JSON value of the event, or ``UNDECODED``.
            position: its number, from 1.
            finished: True if a finish reason has come in an event that was not odd.

        Raises:
            ApiError: the event reports an error.
            ProtocolError: it is nothing that we know, and no finish reason came before it.
        """
        data = event.data
        self._position, self._finished = position, self._finished or finished
        if decoded is UNDECODED:
            if not data.strip():
                return self._skip()  # a sign of life, like a comment
            try:
                decoded = json.loads(data)
            except (ValueError, RecursionError):
                decoded = UNDECODED  # not chained: the error of the JSON library holds the text
            if decoded is UNDECODED:
                return self._no_object(event, "JSON", f"{len(data)} characters", data.strip() == "[DONE]")
        if isinstance(decoded, list) and decoded and all(isinstance(item, dict) for item in decoded):
            # A gateway has dropped alt=sse, so the chunks come in an array.
            return (chunk for item in decoded for chunk in self._chunk(item, data, bare=True))
        if isinstance(decoded, dict):
            return self._chunk(decoded, data, bare=isinstance(event, BareJsonEvent))
        return self._no_object(event, "a chunk", type(decoded).__name__, decoded is None)

    def end(self) -> list[Chunk]:
        """The chunk for halves whose other half never came, or none."""
        return [Chunk({"candidates": [{"content": content}]}) for content in self.halves.left_over()]

    def _chunk(self, decoded: dict[str, Any], data: str, bare: bool) -> list[Chunk]:
        error = find_error(decoded)
        if error is not None:
            if len(data) > _ERROR_CHARACTERS:
                decoded = {"error": _beginning_of(error)}
            raise api_error(None, decoded, secrets=self._secrets)
        inner = decoded if self._envelope is None else dict_of(decoded.get(self._envelope))
        if decoded.get("error") or (bare and not any(map(inner.get, _CHUNK_FIELDS))):
            kind = "an object outside the events" if bare else "an object with an odd error"
            raise self._error("a chunk", kind, data)
        if "\\" in data or self.halves.waiting:
            self.halves.mend(inner)
        chunk = Chunk(inner, None if self._envelope is None else decoded)
        self._began = True
        self._finished = self._finished or chunk.finish_reason is not None
        return [chunk]

    def _no_object(self, event: Event, expected: str, came: str, harmless: bool) -> list[Chunk]:
        """Pass over an event that is no JSON object, or raise an error that shows its words."""
        if not (harmless or self._finished or event.event not in ("message", "error")):
            raise self._error(expected, came, event.data)
        if self._skipped < _MOST_WARNINGS:
            words, kind = redacted_excerpt(event.data, self._secrets), redacted_name(event.event, self._secrets)
            _log.warning("ignored event %d of a stream (%s): %r", self._position, kind, words)
        return self._skip()

    def _skip(self) -> list[Chunk]:
        self._skipped += 1
        return []

    def _error(self, expected: str, came: str, data: str) -> ProtocolError:
        is_json, is_first = expected != "JSON", self._position - self._skipped == 1 and not self._began
        return ProtocolError(
            f"Event {self._position} is {'no chunk' if is_json else 'not JSON'}: expected "
            f"{'a JSON object' if is_json else 'a chunk'}, came {came}: {redacted_excerpt(data, self._secrets)!r}.",
            # Broken JSON may come whole the next time, but another format stays. After a chunk nothing is sent again.
            reason=UNREADABLE_ANSWER if is_json and is_first else None,
        )


def _beginning_of(error: dict[str, Any]) -> dict[str, Any]:
    """What is read of an error that is too large: its code and status, and the beginning of its message."""
    code, status, message = map(error.get, ("code", "status", "message"))
    return {
        "code": int_of(code),
        "status": status if isinstance(status, str) and len(status) <= EXCERPT_CHARACTERS else int_of(status),
        "message": beginning(message) if isinstance(message, str) else "The server sent a huge error without a message",
    }
