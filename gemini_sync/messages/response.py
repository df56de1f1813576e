"""One chunk of a response, and the typed values in its JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from gemini_sync.errors import ProtocolError
from gemini_sync.messages.rest_json import dict_of, list_of, text_of


@dataclass(frozen=True)
class Usage:
    """Token counts. A count is None if the server gave none. ``raw`` is the server's usageMetadata."""

    prompt_token_count: Optional[int] = None
    candidates_token_count: Optional[int] = None
    thoughts_token_count: Optional[int] = None
    cached_content_token_count: Optional[int] = None
    total_token_count: Optional[int] = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class FunctionCall:
    """A call that the model asks for. If ``id`` is not None, the functionResponse must repeat it."""

    name: str
    args: Mapping[str, Any]
    id: Optional[str] = None


@dataclass(frozen=True)
class Blob:
    """Inline data, decoded to bytes."""

    mime_type: str
    data: bytes = field(repr=False)


def usage(raw: Any) -> Optional[Usage]:
    """The typed form of a usageMetadata dict, or None if it is no dict."""
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
    """Candidate 0 of a GenerateContentResponse, or an empty dict if there is none."""
    candidates = raw.get("candidates")
    if isinstance(candidates, list):
        for candidate in candidates:
            if isinstance(candidate, dict) and not candidate.get("index"):
                return candidate
    return {}


def parts_of(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a candidate, as they came."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def text_in(parts: list[dict[str, Any]], *, thought: bool) -> str:
    """The answer text among ``parts``, or the text of the thoughts."""
    texts = (part.get("text") for part in parts if bool(part.get("thought")) is thought)
    return "".join(text for text in texts if isinstance(text, str))


def function_calls(parts: list[dict[str, Any]]) -> tuple[FunctionCall, ...]:
    calls = [part["functionCall"] for part in parts if isinstance(part.get("functionCall"), dict)]
    return tuple(
        FunctionCall(text_of(call.get("name")) or "", dict_of(call.get("args")), text_of(call.get("id")))
        for call in calls
    )


def inline_data(parts: list[dict[str, Any]]) -> tuple[Blob, ...]:
    """The inline data among ``parts``. Raises ``ProtocolError`` if some of it is not base64."""
    blobs = [part["inlineData"] for part in parts if isinstance(part.get("inlineData"), dict)]
    return tuple(Blob(text_of(blob.get("mimeType")) or "", _decode(blob.get("data"))) for blob in blobs)


def _decode(data: Any) -> bytes:
    if not isinstance(data, str):
        return b""
    # Proto JSON allows both alphabets of base64, with and without padding.
    standard = data.replace("-", "+").replace("_", "/") + "=" * (-len(data) % 4)
    try:
        return base64.b64decode(standard, validate=True)
    except ValueError as exc:
        raise ProtocolError(f"Expected base64 in inlineData, came {len(data)} characters that are not.") from exc


class Chunk:
    """A read-only view of one decoded event. It computes each property when you ask for it.

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
        """The answer text in this chunk, without thoughts."""
        return text_in(self.parts, thought=False)

    @property
    def thoughts(self) -> str:
        """The thought summaries in this chunk."""
        return text_in(self.parts, thought=True)

    @property
    def function_calls(self) -> tuple[FunctionCall, ...]:
        return function_calls(self.parts)

    @property
    def inline_data(self) -> tuple[Blob, ...]:
        """The inline data, decoded to bytes. Raises ``ProtocolError`` if some of it is not base64."""
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
        metadata = dict_of(candidate_of(self._raw).get("citationMetadata"))
        # Vertex and older versions of the API call the field "citations".
        return list_of(metadata.get("citationSources", metadata.get("citations")))

    @property
    def safety_ratings(self) -> list[dict[str, Any]]:
        return list_of(candidate_of(self._raw).get("safetyRatings"))

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
        name = self.envelope.get("traceId")
        return name if isinstance(name, str) and name else None

    def __reduce__(self) -> Any:
        return Chunk, (self._raw, self._envelope)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chunk) and self.envelope == other.envelope

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Chunk(text={self.text!r}, finish_reason={self.finish_reason!r}, parts={len(self.parts)})"
