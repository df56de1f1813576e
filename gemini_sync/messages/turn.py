"""Knows how the chunks of a stream add up to one turn of the model; knows no stream and no verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional, Union

from gemini_sync.messages.response import Chunk, candidate_of, parts_of, text_in
from gemini_sync.messages.rest_json import text_of

_PIECES_PER_BLOCK = 1024


class _TextRun:
    """Neighbouring text parts that become one: collected, because joining pairs of strings would be quadratic."""

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
            plain = text and len(part) == 1 and type(text) is str and not candidate.get("index")
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
            self.finish_reason = text_of(candidate["finishReason"]) or self.finish_reason
            self.finish_message = text_of(candidate.get("finishMessage")) or self.finish_message
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
            self._add_names(raw, chunk._envelope or raw)
        return text  # type: ignore[no-any-return]

    def _add_names(self, raw: Mapping[str, Any], envelope: Mapping[str, Any]) -> None:
        self.model_version = text_of(raw.get("modelVersion")) or self.model_version
        self.trace_id = text_of(envelope.get("traceId")) or self.trace_id
        # Code Assist names the answer by its trace id (GC code_assist/converter.ts).
        self.response_id = text_of(raw.get("responseId")) or self.response_id or self.trace_id
        feedback = raw.get("promptFeedback")
        self.prompt_feedback = feedback if isinstance(feedback, dict) and feedback else self.prompt_feedback

    def _open_run(self, *, thought: bool) -> _TextRun:
        run = self._run = _TextRun(thought)
        self._merged.append(run)
        return run

    def _add_part(self, part: dict[str, Any]) -> str:
        """Merge one part; returns its answer text."""
        text = part.get("text")
        thought = bool(part.get("thought"))
        if not text and not (set(part) - {"text", "thought"}):
            return ""  # it carries nothing, and comes between no two texts
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
        return text_in(self.parts, thought=thought)

    @property
    def empty(self) -> bool:
        """True when there is no text, call, data or code: thoughts and signatures alone are empty."""
        return not any(  # asked at the end of each stream: without joining the whole answer for it
            not item.thought and any(item.blocks + item.pieces)
            if isinstance(item, _TextRun)
            else (item.get("text") and not item.get("thought")) or set(item) - {"text", "thought", "thoughtSignature"}
            for item in self._merged
        )

    @property
    def block_reason(self) -> Optional[str]:
        feedback = self.prompt_feedback or {}
        reason = text_of(feedback.get("blockReason"))
        return reason or ("BLOCKED" if feedback.get("blockReasonMessage") else None)
