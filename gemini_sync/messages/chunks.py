"""One chunk of the answer: a view of one event of the stream."""

from __future__ import annotations

from typing import Any, Optional

from gemini_sync.messages.parts import Blob, FunctionCall, function_calls, inline_data, text_in
from gemini_sync.messages.rest_json import FINISH_REASONS, candidate_of, dict_of, enum_of, list_of, parts_of, text_of
from gemini_sync.messages.usage import Usage, usage

_NO_CONTENT = {"text", "thought", "thoughtSignature"}  # the fields of a part without call, data and code


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


def has_content(chunk: Chunk, *, thoughts: bool) -> bool:
    """True if ``chunk`` holds something for the reader of an answer. Thoughts count if ``thoughts`` is True.

    Text, calls, data and code are content, and so are a finish reason and a refused prompt. Token counts, signatures
    and empty texts are none.
    """
    try:
        candidate = chunk._raw["candidates"][0]
        part = candidate["content"]["parts"][0]
        is_text = part["text"] and "thought" not in part and not candidate.get("index")
    except (LookupError, TypeError, AttributeError):
        is_text = False
    if is_text:  # nearly always
        return True
    feedback = chunk.prompt_feedback or {}
    if chunk.finish_reason is not None or feedback.get("blockReason") or feedback.get("blockReasonMessage"):
        return True
    return any(
        (part.get("text") and (thoughts or not part.get("thought")))
        or any(part[name] is not None for name in part.keys() - _NO_CONTENT)
        for part in chunk.parts
    )
