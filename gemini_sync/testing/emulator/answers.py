"""What Gemini says: chunks, events and bodies as data; it knows no sockets, no credentials and no failures."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gemini_sync.testing.emulator.wire import JSON_TYPE, SSE_TYPE, Pace, Response, json_response

#: A signature is bound to the endpoint that made it; the other one refuses it.
SIGNATURES = {
    route: base64.b64encode(f"emulator thought signature of {route}".encode()).decode()
    for route in ("oauth", "api_key")
}

_BLANK_LINE = re.compile(rb"(\r\n\r\n|\n\n|\r\r)")


@dataclass(frozen=True)
class Call:
    """A request understood: whose route, which method, which model or operation, and what was asked."""

    route: str
    method: str
    name: str | None = None
    sse: bool = False
    prompt: str = ""
    prompt_tokens: int = 0
    number: int = 0

    @property
    def generates(self) -> bool:
        return self.method in ("streamGenerateContent", "generateContent")


def default_text(prompt: str) -> str:
    """The answer that an unscripted emulator gives to a prompt; always the same one."""
    return (
        f"You asked: {prompt}\n\nThis answer comes from the emulator on your own machine. No model was asked, "
        "nothing left this computer, and no quota was used. It arrives in several pieces, as a real one does."
    )


def split_text(text: str) -> list[str]:
    """The text in pieces that grow as Gemini's do: one word, then two, four, eight, eight, …"""
    words = re.findall(r"\s*\S+", text) or [""]
    words[-1] += text[sum(map(len, words)) :]
    pieces, size = [], 1
    while words:
        pieces.append("".join(words[:size]))
        words, size = words[size:], min(size * 2, 8)
    return pieces


def count_tokens(text: str) -> int:
    """A stand-in for a tokenizer: four characters are one token."""
    return -(-len(text) // 4)


@dataclass(frozen=True)
class Answer:
    """One scripted answer; at most one of `text`, `chunks`, `body` and `json` says what it holds.

    text: the answer text, split into several chunks (the default echoes the prompt).
    thoughts: a thought summary that comes first. function_calls: `{"name": …, "args": …}` each, after the text.
    inline_data: (MIME type, bytes), after the text. finish_reason: on the last chunk; None leaves it out.
    chunks: GenerateContentResponse dicts, served as they are (wrapped in `response` on the OAuth route).
    body: bytes served as they are. json: a value served as a JSON body. These two suit every endpoint.
    wrap: wrap chunks in `{"response": …}` or not; None does it on the OAuth route, but never to a `body`;
    True with a body wraps each `data:` line that is JSON and keeps the rest.
    content_type: None says what the endpoint would. framing: "chunked", "length" or "close".
    pieces: how the body is cut into writes: the writes themselves, or their size in bytes; None writes each
    event by itself. pace: seconds between the writes, or a callable called with the index before each.
    """

    text: str | None = None
    chunks: Sequence[Mapping[str, Any]] | None = None
    body: bytes | None = None
    json: Any = None
    thoughts: str | None = None
    function_calls: Sequence[Mapping[str, Any]] = ()
    inline_data: tuple[str, bytes] | None = None
    finish_reason: str | None = "STOP"
    wrap: bool | None = None
    content_type: str | None = None
    framing: str = "chunked"
    pieces: int | Sequence[bytes] | None = None
    pace: Pace = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.text, self.chunks, self.body, self.json)) > 1:
            raise ValueError("give one of text, chunks, body and json")
        if self.framing not in ("chunked", "length", "close"):
            raise ValueError(f"framing is 'chunked', 'length' or 'close', not {self.framing!r}")

    @property
    def literal(self) -> bool:
        """Whether this is a body for any endpoint, rather than words for one that generates."""
        return self.body is not None or self.json is not None

    def response(self, call: Call) -> Response:
        """The HTTP response to a call, before any fault."""
        events = self._events(call)
        if isinstance(self.pieces, int):
            whole = b"".join(events)
            events = [whole[at : at + self.pieces] for at in range(0, len(whole), self.pieces)]
        elif self.pieces is not None:
            events = list(self.pieces)
        kind = SSE_TYPE if call.sse and self.json is None else JSON_TYPE
        return Response(200, events, self.content_type or kind, self.framing, self.headers, self.pace)

    def _events(self, call: Call) -> Sequence[bytes]:
        if self.json is not None:
            return json_response(self.json).events
        if self.body is not None:
            return split_events(wrap_body(self.body, call) if self.wrap else self.body)
        chunks: Sequence[Mapping[str, Any]] = self.chunks if self.chunks is not None else self._make_chunks(call)
        if call.method == "generateContent":
            chunks = [merge(chunks)]
        if call.route == "oauth" if self.wrap is None else self.wrap:
            chunks = [envelope(chunk, call) for chunk in chunks]
        if call.sse:
            return [sse_event(chunk) for chunk in chunks]
        if call.method == "generateContent":
            return json_response(chunks[0]).events
        values = [json_response(chunk).events[0] for chunk in chunks]
        opened = [(b",\r\n" if index else b"[") + value for index, value in enumerate(values)]
        return [*opened, b"]" if opened else b"[]"]

    def _make_chunks(self, call: Call) -> list[dict[str, Any]]:
        thoughts = split_text(self.thoughts) if self.thoughts else []
        told: list[list[dict[str, Any]]] = [[{"text": piece, "thought": True}] for piece in thoughts]
        quiet = self.text is None and (self.function_calls or self.inline_data is not None)
        if not quiet:
            text = default_text(call.prompt) if self.text is None else self.text
            told += [[{"text": piece}] for piece in split_text(text)]
        if self.inline_data is not None:
            mime_type, data = self.inline_data
            told.append([{"inlineData": {"mimeType": mime_type, "data": base64.b64encode(data).decode()}}])
        if self.function_calls:
            told.append([{"functionCall": dict(function_call)} for function_call in self.function_calls])
        if self.function_calls or self.thoughts:  # of parallel calls only the first one is signed [docs]
            told[-1][0]["thoughtSignature"] = SIGNATURES.get(call.route, "")
        return self._dress(told, call)

    def _dress(self, told: Sequence[list[dict[str, Any]]], call: Call) -> list[dict[str, Any]]:
        """Chunks around the parts: usage that grows, the finish reason on the last one only."""
        chunks: list[dict[str, Any]] = []
        answer = thinking = 0
        for parts in told:
            tokens = sum(count_tokens(part.get("text", "call")) for part in parts)
            if "thought" in parts[0]:
                thinking += tokens
            else:
                answer += tokens
            usage = {"promptTokenCount": call.prompt_tokens, "candidatesTokenCount": answer}
            usage["totalTokenCount"] = call.prompt_tokens + answer + thinking
            if thinking:
                usage["thoughtsTokenCount"] = thinking
            chunks.append(
                {
                    "candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}],
                    "usageMetadata": usage,
                    "modelVersion": call.name,
                    "responseId": f"emulator-{call.number:06d}",
                }
            )
        if self.finish_reason is not None:
            chunks[-1]["candidates"][0]["finishReason"] = self.finish_reason
        return chunks


def merge(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The one response of generateContent: the last chunk, holding the parts of all, texts joined."""
    parts: list[dict[str, Any]] = []
    for chunk in chunks:
        for candidate in chunk.get("candidates", [])[:1]:
            for part in candidate.get("content", {}).get("parts", []):
                last = parts[-1] if parts else {}
                joins = "text" in part and "text" in last and part.get("thought") == last.get("thought")
                if joins:
                    parts[-1] = {**last, **part, "text": last["text"] + part["text"]}
                else:
                    parts.append(dict(part))
    whole = dict(chunks[-1]) if chunks else {}
    if parts:
        last_candidate = whole.get("candidates", [{}])[0]
        whole["candidates"] = [{**last_candidate, "content": {"parts": parts, "role": "model"}}]
    return whole


def envelope(chunk: Any, call: Call) -> dict[str, Any]:
    """One event of the OAuth route around a chunk (GC code_assist/converter.ts)."""
    return {"response": chunk, "traceId": f"{call.number:016x}"}


def sse_event(value: object) -> bytes:
    """A value as one server-sent event, spaced and ended as Google does."""
    return b"data: " + json.dumps(value, separators=(",", ": "), ensure_ascii=False).encode() + b"\r\n\r\n"


def split_events(body: bytes) -> list[bytes]:
    """A body cut after each blank line; joined it is the same bytes again."""
    found = _BLANK_LINE.split(body)
    pairs = zip(found[::2], [*found[1::2], b""])
    return [text + end for text, end in pairs if text or end]


def wrap_body(body: bytes, call: Call) -> bytes:
    """A recorded body as the OAuth route would send it: each `data:` line that is JSON gets its envelope."""
    lines = body.splitlines(keepends=True)
    return b"".join(_wrap_line(line, call) for line in lines)


def _wrap_line(line: bytes, call: Call) -> bytes:
    if not line.startswith(b"data:"):
        return line
    text = line.rstrip(b"\r\n")
    try:
        value = json.loads(text[len(b"data:") :])
    except ValueError:
        return line
    return sse_event(envelope(value, call)).rstrip(b"\r\n") + line[len(text) :]
