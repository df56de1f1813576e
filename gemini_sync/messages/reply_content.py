"""The content of a reply: the turn of the model that the chunks of one stream add up to."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Optional, Union

from gemini_sync.messages.parts import text_in
from gemini_sync.messages.rest_json import FINISH_REASONS, candidate_of, enum_of, parts_of, text_of

if TYPE_CHECKING:
    from gemini_sync.messages.chunks import Chunk

_TEXT_FIELDS = {"text", "thought"}
# The block reasons by their numbers. Google's two APIs mean the same only by these.
_BLOCK_REASONS = (None, "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT")


class _TextRun(io.StringIO):
    """Neighbouring text parts that become one part. A list of their strings would take three times the memory."""

    def __init__(self, text: str, thought: bool) -> None:
        super().__init__()
        self.write(text)
        self.thought = thought

    def __reduce__(self) -> Any:
        return _TextRun, (self.getvalue(), self.thought)

    def part(self) -> dict[str, Any]:
        return {"text": self.getvalue(), "thought": True} if self.thought else {"text": self.getvalue()}


class ReplyContent:
    """What the chunks of a stream add up to. It keeps the data of the answer, but not the chunks."""

    def __init__(self) -> None:
        self.chunks = 0
        self.finish_reason: Optional[str] = None
        self.finish_message: Optional[str] = None
        self.prompt_feedback: Optional[dict[str, Any]] = None
        self.usage_metadata: Optional[dict[str, Any]] = None
        self.model_version: Optional[str] = None
        self.trace_id: Optional[str] = None
        self._response_id: Optional[str] = None
        self._merged: list[Union[_TextRun, dict[str, Any]]] = []
        self._run: Optional[_TextRun] = None  # the last of _merged, if text may still join it

    def add(self, chunk: Chunk) -> str:
        """Take in a chunk and return its answer text."""
        self.chunks += 1
        raw = chunk._raw
        candidate = candidate_of(raw)
        if "finishReason" in candidate:
            self.finish_reason = enum_of(candidate["finishReason"], FINISH_REASONS) or self.finish_reason
            self.finish_message = text_of(candidate.get("finishMessage")) or self.finish_message
        if isinstance(raw.get("usageMetadata"), dict):
            self.usage_metadata = raw["usageMetadata"]
        if "promptFeedback" in raw:
            self.prompt_feedback = chunk.prompt_feedback or self.prompt_feedback
        if self.model_version is None:
            self.model_version = text_of(raw.get("modelVersion"))
        if self._response_id is None:
            self._response_id = text_of(raw.get("responseId"))
        if self.trace_id is None and chunk._envelope is not None:
            self.trace_id = text_of(chunk._envelope.get("traceId"))
        text = ""
        for part in parts_of(candidate):
            text += self._add_part(part)
        return text

    def _add_part(self, part: dict[str, Any]) -> str:
        """Merge one part and return its answer text."""
        text, thought = part.get("text"), bool(part.get("thought"))
        if part.keys() <= _TEXT_FIELDS and isinstance(text or "", str):
            if not text:
                return ""  # an empty part does not end a run
            if self._run is None or self._run.thought is not thought:
                self._run = _TextRun(text, thought)
                self._merged.append(self._run)
            else:
                self._run.write(text)
        elif None in part.values():  # null means that a field is not set
            return self._add_part({name: value for name, value in part.items() if value is not None})
        else:
            # A signature (or a field we do not know) belongs to exactly this part, so the part stays as it came.
            self._run = None
            self._merged.append(part)
        return text if isinstance(text, str) and not thought else ""

    @property
    def response_id(self) -> Optional[str]:
        # Code Assist names the answer by its trace id (GC code_assist/converter.ts).
        return self._response_id or self.trace_id

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The merged parts. A part that carries more than text is the server's own dict."""
        return [item.part() if isinstance(item, _TextRun) else item for item in self._merged]

    def text(self, *, thought: bool = False) -> str:
        """The answer text, or the text of the thoughts."""
        return text_in(self.parts, thought=thought)

    @property
    def empty(self) -> bool:
        """True if there is no text, call, data or code. Thoughts and signatures alone are empty."""
        return not any(  # each stream asks this at its end, so it does not build the text
            not item.thought
            if isinstance(item, _TextRun)
            else (item.get("text") and not item.get("thought")) or item.keys() - {*_TEXT_FIELDS, "thoughtSignature"}
            for item in self._merged
        )

    @property
    def block_reason(self) -> Optional[str]:
        feedback = self.prompt_feedback or {}
        reason = enum_of(feedback.get("blockReason"), _BLOCK_REASONS)
        return reason or ("BLOCKED" if feedback.get("blockReasonMessage") else None)
