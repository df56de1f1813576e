"""One chunk of a response, and the typed values in its JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from gemini_sync.errors import ProtocolError
from gemini_sync.messages.rest_json import candidate_of, dict_of, enum_of, int_of, list_of, parts_of, text_of

# The finish reasons by their numbers. Google's two APIs mean the same only by these.
FINISH_REASONS = (None, "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER")


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
    return Usage(
        int_of(raw.get("promptTokenCount")),
        int_of(raw.get("candidatesTokenCount")),
        int_of(raw.get("thoughtsTokenCount")),
        int_of(raw.get("cachedContentTokenCount")),
        int_of(raw.get("totalTokenCount")),
        raw,
    )


def text_in(parts: list[dict[str, Any]], *, thought: bool) -> str:
    """The answer text among ``parts``, or the text of the thoughts."""
    texts = (part.get("text") for part in parts if bool(part.get("thought")) is thought)
    return "".join(text for text in texts if isinstance(text, str))


def function_calls(parts: list[dict[str, Any]]) -> tuple[FunctionCall, ...]:
    """The calls among ``parts``. A call without a name only goes on with another, so it is none.

    Raises:
        ProtocolError: a call, or its arguments, is not a JSON object.
    """
    calls = [_object(part["functionCall"], "functionCall") for part in parts if part.get("functionCall") is not None]
    return tuple(
        FunctionCall(call["name"], _object(call.get("args"), "functionCall.args"), text_of(call.get("id")))
        for call in calls
        if text_of(call.get("name"))
    )


def _object(value: Any, what: str) -> dict[str, Any]:
    """A JSON object, which may come as text. It is empty if ``value`` is not set."""
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise ProtocolError(f"Expected a JSON object in {what}, came {len(value)} characters of text.") from exc
    if isinstance(value, dict):
        return value
    if value in (None, ""):
        return {}
    raise ProtocolError(f"Expected a JSON object in {what}, came {type(value).__name__}.")


def inline_data(parts: list[dict[str, Any]]) -> tuple[Blob, ...]:
    """The inline data among ``parts``. Raises ``ProtocolError`` if some of it is not base64."""
    blobs = [_object(part["inlineData"], "inlineData") for part in parts if part.get("inlineData") is not None]
    return tuple(Blob(text_of(blob.get("mimeType")) or "", _decode(blob.get("data"))) for blob in blobs)


def _decode(data: Any) -> bytes:
    if data is None:
        return b""
    if not isinstance(data, str):
        raise ProtocolError(f"Expected base64 in inlineData, came {type(data).__name__}.")
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
        """The calls in this chunk. Raises ``ProtocolError`` if one is not a JSON object."""
        return function_calls(self.parts)

    @property
    def inline_data(self) -> tuple[Blob, ...]:
        """The inline data, decoded to bytes. Raises ``ProtocolError`` if some of it is not base64."""
        return inline_data(self.parts)

    @property
    def finish_reason(self) -> Optional[str]:
        """Why the model stopped, as the REST reference spells it; ``raw`` has it as it came."""
        return enum_of(candidate_of(self._raw).get("finishReason"), FINISH_REASONS)

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
        return list_of(metadata.get("citationSources")) or list_of(metadata.get("citations"))

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
