"""Knows REST response JSON: the view of one chunk, and the typed values in it; knows no stream."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from gemini_sync.errors import ProtocolError
from gemini_sync.messages.rest_json import text_of


@dataclass(frozen=True)
class Usage:
    """Token counts; None where the server gave none. ``raw`` is its usageMetadata."""

    prompt_token_count: Optional[int] = None
    candidates_token_count: Optional[int] = None
    thoughts_token_count: Optional[int] = None
    cached_content_token_count: Optional[int] = None
    total_token_count: Optional[int] = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class FunctionCall:
    """A call the model wants made; ``id`` goes back in the functionResponse where it is not None."""

    name: str
    args: Mapping[str, Any]
    id: Optional[str] = None


@dataclass(frozen=True)
class Blob:
    """Inline data, decoded to bytes."""

    mime_type: str
    data: bytes = field(repr=False)


def usage(raw: Any) -> Optional[Usage]:
    """The typed form of a usageMetadata dict; None where it is none."""
    if not isinstance(raw, dict):
        return None

    def count(name: str) -> Optional[int]:
        value = raw.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    return Usage(
        count("promptTokenCount"),
        count("candidatesTokenCount"),
        count("thoughtsTokenCount"),
        count("cachedContentTokenCount"),
        count("totalTokenCount"),
        raw,
    )


def candidate_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Candidate 0 of a GenerateContentResponse; an empty dict where there is none."""
    candidates = raw.get("candidates")
    if isinstance(candidates, list):
        for candidate in candidates:
            if isinstance(candidate, dict) and not candidate.get("index"):
                return candidate
    return {}


def parts_of(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def text_in(parts: list[dict[str, Any]], *, thought: bool) -> str:
    """The answer text among ``parts``, or that of the thoughts."""
    texts = (part.get("text") for part in parts if bool(part.get("thought")) is thought)
    return "".join(text for text in texts if isinstance(text, str))


def function_calls(parts: list[dict[str, Any]]) -> tuple[FunctionCall, ...]:
    calls = [part["functionCall"] for part in parts if isinstance(part.get("functionCall"), dict)]
    return tuple(
        FunctionCall(
            text_of(call.get("name")) or "",
            call["args"] if isinstance(call.get("args"), dict) else {},
            text_of(call.get("id")),
        )
        for call in calls
    )


def inline_data(parts: list[dict[str, Any]]) -> tuple[Blob, ...]:
    """The inline data among ``parts``; raises ``ProtocolError`` where it is not base64."""
    blobs = [part["inlineData"] for part in parts if isinstance(part.get("inlineData"), dict)]
    return tuple(Blob(text_of(blob.get("mimeType")) or "", _decode(blob.get("data"))) for blob in blobs)


def _decode(data: Any) -> bytes:
    if not isinstance(data, str):
        return b""
    if "-" in data or "_" in data:  # proto JSON admits both alphabets of base64
        data = data.replace("-", "+").replace("_", "/")
    padding = len(data[-2:]) - len(data[-2:].rstrip("="))
    missing = -len(data) % 4
    try:
        decoded = binascii.a2b_base64(data + "=" * missing if missing else data)
        # It skips what is no base64, as all do that need no copy of a text of many megabytes; the length tells.
        whole = len(decoded) == (len(data) - padding) * 3 // 4 and (len(data) - padding) % 4 != 1
    except ValueError:  # binascii.Error is one
        whole = False
    if not whole:
        raise ProtocolError(f"Expected base64 in inlineData, came {len(data)} characters that are not.")
    return decoded


class Chunk:
    """A read-only view over one decoded event; each property is computed when asked for.

    Attributes:
        raw: the GenerateContentResponse dict (unwrapped on the OAuth route).
        envelope: the event as it came (on the API-key route the same dict).
    """

    __slots__ = ("_envelope", "_raw")

    def __init__(self, raw: dict[str, Any], envelope: Optional[dict[str, Any]] = None) -> None:
        self._raw = raw
        self._envelope = envelope

    @property
    def raw(self) -> dict[str, Any]:
        return self._raw

    @property
    def envelope(self) -> dict[str, Any]:
        return self._raw if self._envelope is None else self._envelope

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The parts of candidate 0, as they came."""
        return parts_of(candidate_of(self._raw))

    @property
    def text(self) -> str:
        """The answer text in it, without thoughts."""
        return text_in(self.parts, thought=False)

    @property
    def thoughts(self) -> str:
        """The thought summaries in it."""
        return text_in(self.parts, thought=True)

    @property
    def function_calls(self) -> tuple[FunctionCall, ...]:
        return function_calls(self.parts)

    @property
    def inline_data(self) -> tuple[Blob, ...]:
        """Its inline data, decoded; raises ``ProtocolError`` where that is not base64."""
        return inline_data(self.parts)

    @property
    def finish_reason(self) -> Optional[str]:
        return text_of(candidate_of(self._raw).get("finishReason"))

    @property
    def finish_message(self) -> Optional[str]:
        return text_of(candidate_of(self._raw).get("finishMessage"))

    @property
    def usage(self) -> Optional[Usage]:
        return usage(self._raw.get("usageMetadata"))

    @property
    def grounding_metadata(self) -> Optional[dict[str, Any]]:
        value = candidate_of(self._raw).get("groundingMetadata")
        return value if isinstance(value, dict) else None

    @property
    def citations(self) -> list[dict[str, Any]]:
        metadata = candidate_of(self._raw).get("citationMetadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        # Vertex and older versions of the API say "citations".
        sources = metadata.get("citationSources", metadata.get("citations"))
        return sources if isinstance(sources, list) else []

    @property
    def safety_ratings(self) -> list[dict[str, Any]]:
        ratings = candidate_of(self._raw).get("safetyRatings")
        return ratings if isinstance(ratings, list) else []

    @property
    def prompt_feedback(self) -> Optional[dict[str, Any]]:
        feedback = self._raw.get("promptFeedback")
        return feedback if isinstance(feedback, dict) else None

    @property
    def model_version(self) -> Optional[str]:
        return text_of(self._raw.get("modelVersion"))

    @property
    def response_id(self) -> Optional[str]:
        return text_of(self._raw.get("responseId"))

    @property
    def trace_id(self) -> Optional[str]:
        return text_of(self.envelope.get("traceId"))

    def __reduce__(self) -> Any:
        return Chunk, (self._raw, self._envelope)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chunk) and self.envelope == other.envelope

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Chunk(text={self.text!r}, finish_reason={self.finish_reason!r}, parts={len(self.parts)})"
