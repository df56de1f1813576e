"""The canned answers: their names, the bytes that the server sends, and the text that a reader must find.

A reader asks for an answer by its name, which it sends as the name of the model.
"""

from __future__ import annotations

import base64
import functools
import json
from dataclasses import dataclass
from typing import Any

# Plain text. As in real answers, some pieces have characters beyond ASCII and an escape: here one in eight.
_PROSE = "The sky looks blue since air scatters short waves more than long ones. "
_PROSE_BEYOND_ASCII = "The sky\u2019s colour:\nair scatters \u201cshort\u201d waves more than it does long ones. "
_VARIED_EVENTS = 8
_USAGE_DETAILS = [{"modality": "TEXT", "tokenCount": 8}]
_MEDIA_TYPE = "image/png"


@dataclass(frozen=True)
class Answer:
    """One canned answer.

    Attributes:
        kind: ``"text"``, or ``"data"`` for base64 in inlineData.
        events: the number of events; the last has a finish reason. Above 10,000 it must be whole thousands.
        size: the characters of text, or of base64, in each event.
        pace: ``"burst"`` (all at once), ``"paced"`` (an event each millisecond) or ``"silent"`` (one event, then none).
    """

    kind: str
    events: int
    size: int
    pace: str = "burst"

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.events}-{self.size}-{self.pace}"

    @property
    def length(self) -> int:
        """How many characters of text, or decoded bytes, a reader must find."""
        return self.events * (self.size if self.kind == "text" else self.size * 3 // 4)


def answer_named(name: str) -> Answer:
    """The answer with this name; raises ValueError if the name is wrong."""
    kind, events, size, pace = name.split("-")
    return Answer(kind, int(events), int(size), pace)


@functools.lru_cache(maxsize=64)
def pieces(answer: Answer) -> list[str]:
    """The texts, or base64 strings, of the first events; later events repeat them in turn."""
    varied = min(answer.events, _VARIED_EVENTS)
    if answer.kind == "data":
        block = base64.b64encode(bytes(range(256)) * 192).decode()
        return [(block * (answer.size // len(block) + 1))[: answer.size]] * varied
    texts = [_PROSE_BEYOND_ASCII if number == 3 else _PROSE for number in range(varied)]
    return [(text[number:] + text * (answer.size // len(text) + 1))[: answer.size] for number, text in enumerate(texts)]


def text_of(answer: Answer) -> str:
    """The whole text of a text answer."""
    texts = pieces(answer)
    return "".join(texts[number % len(texts)] for number in range(answer.events))


def _event(answer: Answer, number: int, wrapped: bool) -> bytes:
    texts = pieces(answer)
    piece = texts[number % len(texts)]
    part = {"text": piece} if answer.kind == "text" else {"inlineData": {"mimeType": _MEDIA_TYPE, "data": piece}}
    candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}}
    if number == answer.events - 1:
        candidate["finishReason"] = "STOP"
    response: dict[str, Any] = {
        "candidates": [{**candidate, "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 8,
            "candidatesTokenCount": 12 * (number + 1),
            "totalTokenCount": 8 + 12 * (number + 1),
            "promptTokensDetails": _USAGE_DETAILS,
        },
        "modelVersion": "gemini-benchmark",
        "responseId": "wvTQaJzKH8-ZvdIPsK2iqAo",
    }
    if wrapped:
        response = {"response": response, "traceId": "d4c3b2a1f6e5"}
    return b"data: " + json.dumps(response, ensure_ascii=False).encode() + b"\r\n\r\n"


def framed(event: bytes) -> bytes:
    """``event`` as one HTTP chunk, as Google sends it."""
    return b"%x\r\n%s\r\n" % (len(event), event)


@functools.lru_cache(maxsize=64)
def framed_events(answer: Answer, wrapped: bool) -> list[bytes]:
    """The HTTP chunks of an answer; in a long answer a block of events repeats, to save memory."""
    if answer.events <= 10_000:
        return [framed(_event(answer, number, wrapped)) for number in range(answer.events)]
    block = b"".join(framed(_event(answer, number, wrapped)) for number in range(1000))
    last = b"".join(framed(_event(answer, answer.events - 1000 + number, wrapped)) for number in range(1000))
    return [block] * (answer.events // 1000 - 1) + [last]


def event_bytes(answer: Answer) -> int:
    """The size of the largest event, in bytes."""
    return max(len(_event(answer, number, wrapped=False)) for number in range(min(answer.events, _VARIED_EVENTS)))
