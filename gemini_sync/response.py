"""Knows REST response JSON: the view of one chunk, and parts merged into one turn; knows no stream and no verdict."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from gemini_sync.errors import ProtocolError

_PIECES_PER_BLOCK = 1024


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


def _texts(parts: list[dict[str, Any]], *, thought: bool) -> Iterator[str]:
    for part in parts:
        text = part.get("text")
        if isinstance(text, str) and bool(part.get("thought")) is thought:
            yield text


def function_calls(parts: list[dict[str, Any]]) -> tuple[FunctionCall, ...]:
    calls = [part["functionCall"] for part in parts if isinstance(part.get("functionCall"), dict)]
    return tuple(
        FunctionCall(
            _string(call.get("name")) or "",
            call["args"] if isinstance(call.get("args"), dict) else {},
            _string(call.get("id")),
        )
        for call in calls
    )


def inline_data(parts: list[dict[str, Any]]) -> tuple[Blob, ...]:
    """The inline data among ``parts``; raises ``ProtocolError`` where it is not base64."""
    blobs = [part["inlineData"] for part in parts if isinstance(part.get("inlineData"), dict)]
    return tuple(Blob(_string(blob.get("mimeType")) or "", _decode(blob.get("data"))) for blob in blobs)


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


def _string(value: Any) -> Optional[str]:
    return value if isinstance(value, str) else None


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
        return "".join(_texts(self.parts, thought=False))

    @property
    def thoughts(self) -> str:
        """The thought summaries in it."""
        return "".join(_texts(self.parts, thought=True))

    @property
    def function_calls(self) -> tuple[FunctionCall, ...]:
        return function_calls(self.parts)

    @property
    def inline_data(self) -> tuple[Blob, ...]:
        """Its inline data, decoded; raises ``ProtocolError`` where that is not base64."""
        return inline_data(self.parts)

    @property
    def finish_reason(self) -> Optional[str]:
        return _string(candidate_of(self._raw).get("finishReason"))

    @property
    def finish_message(self) -> Optional[str]:
        return _string(candidate_of(self._raw).get("finishMessage"))

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
        return _string(self._raw.get("modelVersion"))

    @property
    def response_id(self) -> Optional[str]:
        return _string(self._raw.get("responseId"))

    @property
    def trace_id(self) -> Optional[str]:
        return _string(self.envelope.get("traceId"))

    def __reduce__(self) -> Any:
        return Chunk, (self._raw, self._envelope)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chunk) and self.envelope == other.envelope

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Chunk(text={self.text!r}, finish_reason={self.finish_reason!r}, parts={len(self.parts)})"


class _TextRun:
    """Neighbouring text parts that become one: collected, because joining pairs of strings would be quadratic."""

    __slots__ = ("blocks", "pieces", "thought")

    def __init__(self, thought: bool) -> None:
        self.thought = thought
        self.blocks: list[str] = []
        self.pieces: list[str] = []

    def pack(self) -> None:
        """Join the pieces so far: a string of 50 characters takes three times the memory of its text."""
        self.blocks.append("".join(self.pieces))
        self.pieces.clear()

    def part(self) -> dict[str, Any]:
        text = "".join(self.blocks + self.pieces)
        return {"text": text, "thought": True} if self.thought else {"text": text}


class Turn:
    """What the chunks of a stream add up to; it keeps the data of the answer, never the chunks."""

    def __init__(self) -> None:
        self.chunks = 0
        self.finish_reason: Optional[str] = None
        self.finish_message: Optional[str] = None
        self.prompt_feedback: Optional[dict[str, Any]] = None
        self.usage_metadata: Optional[dict[str, Any]] = None
        self.model_version: Optional[str] = None
        self.response_id: Optional[str] = None
        self.trace_id: Optional[str] = None
        self._merged: list[Union[_TextRun, dict[str, Any]]] = []
        self._run: Optional[_TextRun] = None  # the last of _merged, while text may still join it

    def add(self, chunk: Chunk) -> str:
        """Take in a chunk; returns its answer text."""
        raw = chunk._raw
        self.chunks += 1
        candidates = raw.get("candidates")
        try:
            candidate = candidates[0]  # type: ignore[index]
            (part,) = candidate["content"]["parts"]
            text = part["text"]
            plain = len(part) == 1 and type(text) is str and not candidate.get("index")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            plain = False
        if plain:  # what nearly every chunk is: candidate 0 with one text part
            run = self._run
            if run is None or run.thought:
                run = self._open_run(thought=False)
            run.pieces.append(text)
            if len(run.pieces) >= _PIECES_PER_BLOCK:
                run.pack()
        else:
            candidate = candidate_of(raw)
            text = "".join(map(self._add_part, parts_of(candidate)))
        if "finishReason" in candidate:
            self.finish_reason = _string(candidate["finishReason"]) or self.finish_reason
            self.finish_message = _string(candidate.get("finishMessage")) or self.finish_message
        if "usageMetadata" in raw:
            metadata = raw["usageMetadata"]
            self.usage_metadata = metadata if isinstance(metadata, dict) else self.usage_metadata
        if (
            (self.model_version is None and "modelVersion" in raw)
            or (self.response_id is None and "responseId" in raw)
            or (self.trace_id is None and chunk._envelope is not None)
            or "finishReason" in candidate
            or "promptFeedback" in raw
        ):
            self._add_names(chunk)
        return text  # type: ignore[no-any-return]

    def _add_names(self, chunk: Chunk) -> None:
        self.model_version = chunk.model_version or self.model_version
        self.trace_id = chunk.trace_id or self.trace_id
        # Code Assist names the answer by its trace id (GC code_assist/converter.ts).
        self.response_id = chunk.response_id or self.response_id or self.trace_id
        self.prompt_feedback = chunk.prompt_feedback or self.prompt_feedback

    def _open_run(self, *, thought: bool) -> _TextRun:
        run = self._run = _TextRun(thought)
        self._merged.append(run)
        return run

    def _add_part(self, part: dict[str, Any]) -> str:
        """Merge one part; returns its answer text."""
        text = part.get("text")
        thought = bool(part.get("thought"))
        if isinstance(text, str) and not (set(part) - {"text", "thought"}):
            run = self._run
            if run is None or run.thought is not thought:
                run = self._open_run(thought=thought)
            run.pieces.append(text)
        else:
            # A signature (or a field we do not know) belongs to exactly this part: it stays as it came.
            self._run = None
            self._merged.append(part)
        return text if isinstance(text, str) and not thought else ""

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The merged parts; those that carry more than text are the server's own dicts."""
        merged = [item.part() if isinstance(item, _TextRun) else item for item in self._merged]
        # What carries nothing would be refused when it is sent back as history.
        return [part for part in merged if part.get("text") or set(part) - {"text", "thought"}]

    def text(self, *, thought: bool = False) -> str:
        return "".join(_texts(self.parts, thought=thought))

    @property
    def empty(self) -> bool:
        """True when there is no text, call, data or code: thoughts and signatures alone are empty."""
        return not any(
            (part.get("text") and not part.get("thought")) or set(part) - {"text", "thought", "thoughtSignature"}
            for part in self.parts
        )

    @property
    def block_reason(self) -> Optional[str]:
        feedback = self.prompt_feedback or {}
        reason = _string(feedback.get("blockReason"))
        return reason or ("BLOCKED" if feedback.get("blockReasonMessage") else None)
