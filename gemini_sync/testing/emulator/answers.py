"""The answers of the emulated models: the text, its chunks, and the events and bodies that carry them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gemini_sync.testing.emulator.messages import JSON_TYPE, SSE_TYPE, Pace, Response, json_response, sse_event

#: The thought signature of each route that generates; a route refuses the signature of the other one.
SIGNATURES = {
    route: base64.b64encode(f"emulator thought signature of {route}".encode()).decode()
    for route in ("oauth", "api_key")
}

_BLANK_LINE = re.compile(rb"(\r\n\r\n|\n\n|\r\r)")


@dataclass(frozen=True)
class ParsedRequest:
    """What a request asks for. ``name`` is the model or operation; ``number`` differs for each request to a model."""

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
    """The answer to a prompt if nothing is scripted; the same prompt always gets the same answer."""
    return (
        f"You asked: {prompt}\n\nThis answer comes from the emulator on your own machine. No model was asked, "
        "nothing left this computer, and no quota was used. It arrives in several pieces, as a real one does."
    )


def split_text(text: str) -> list[str]:
    """The text in pieces that grow like Gemini's: one word, then two, four, eight, eight, …"""
    words = re.findall(r"\s*\S+", text) or [""]
    words[-1] += text[sum(map(len, words)) :]
    pieces, size = [], 1
    while words:
        pieces.append("".join(words[:size]))
        words, size = words[size:], min(size * 2, 8)
    return pieces


def count_tokens(text: str) -> int:
    """Count one token for every four characters, because there is no tokenizer here."""
    return -(-len(text) // 4)


@dataclass(frozen=True)
class ScriptedAnswer:
    """One scripted answer; give at most one of ``text``, ``chunks``, ``body`` and ``json``.

    - ``text`` is split into several chunks; without it, the answer quotes the prompt.
    - ``thoughts`` is a thought summary, before the text.
    - ``function_calls`` are ``{"name": …, "args": …}`` each, after the text.
    - ``inline_data`` is (MIME type, bytes), after the text.
    - ``finish_reason`` stands on the last chunk; None leaves it out.
    - ``chunks`` are GenerateContentResponse dicts, sent as they are.
    - ``body`` is bytes, sent as they are, and ``json`` is a value, sent as a JSON body. Every route accepts these two.
    - ``wrap`` puts each chunk into ``{"response": …}``. None wraps the chunks of the OAuth route, but never a ``body``.
      True with a ``body`` wraps each ``data:`` line that is JSON and keeps all other lines.
    - ``content_type`` None is the type that the real endpoint sends.
    - ``framing`` is "chunked", "length" or "close". ``headers`` replace or extend the usual ones.
    - ``pieces`` are the writes that the body is sent in, or their size in bytes. None sends each event in one write.
    - ``pace`` is the number of seconds between two writes, or a function that is called with the index before each one.
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
        """Whether this is a whole body, which any route can send, and not an answer of a model."""
        return self.body is not None or self.json is not None

    def response(self, request: ParsedRequest) -> Response:
        """The HTTP response to a request, before any fault."""
        events = self._events(request)
        if isinstance(self.pieces, int):
            whole = b"".join(events)
            events = [whole[at : at + self.pieces] for at in range(0, len(whole), self.pieces)]
        elif self.pieces is not None:
            events = list(self.pieces)
        kind = SSE_TYPE if request.sse and self.json is None else JSON_TYPE
        return Response(200, events, self.content_type or kind, self.framing, self.headers, self.pace)

    def _events(self, request: ParsedRequest) -> Sequence[bytes]:
        if self.json is not None:
            return json_response(self.json).events
        if self.body is not None:
            return split_events(wrap_body(self.body, request) if self.wrap else self.body)
        chunks: Sequence[Mapping[str, Any]] = self.chunks if self.chunks is not None else self._make_chunks(request)
        if request.method == "generateContent":
            chunks = [merge(chunks)]
        if request.route == "oauth" if self.wrap is None else self.wrap:
            chunks = [envelope(chunk, request) for chunk in chunks]
        if request.sse:
            return [sse_event(chunk) for chunk in chunks]
        if request.method == "generateContent":
            return json_response(chunks[0]).events
        values = [json_response(chunk).events[0] for chunk in chunks]
        opened = [(b",\r\n" if index else b"[") + value for index, value in enumerate(values)]
        return [*opened, b"]" if opened else b"[]"]

    def _make_chunks(self, request: ParsedRequest) -> list[dict[str, Any]]:
        thoughts = split_text(self.thoughts) if self.thoughts else []
        groups: list[list[dict[str, Any]]] = [[{"text": piece, "thought": True}] for piece in thoughts]
        wordless = self.text is None and (self.function_calls or self.inline_data is not None)
        if not wordless:
            text = default_text(request.prompt) if self.text is None else self.text
            groups += [[{"text": piece}] for piece in split_text(text)]
        if self.inline_data is not None:
            mime_type, data = self.inline_data
            groups.append([{"inlineData": {"mimeType": mime_type, "data": base64.b64encode(data).decode()}}])
        if self.function_calls:
            groups.append([{"functionCall": dict(function_call)} for function_call in self.function_calls])
        if self.function_calls or self.thoughts:  # Google signs only the first of parallel calls (ai.google.dev)
            groups[-1][0]["thoughtSignature"] = SIGNATURES.get(request.route, "")
        return chunks_around(groups, request, self.finish_reason)


def chunks_around(
    groups: Sequence[list[dict[str, Any]]], request: ParsedRequest, finish_reason: str | None
) -> list[dict[str, Any]]:
    """One chunk for each group of parts; the usage grows, and only the last chunk has the finish reason."""
    chunks: list[dict[str, Any]] = []
    answer = thinking = 0
    for parts in groups:
        tokens = sum(count_tokens(part.get("text", "call")) for part in parts)
        if "thought" in parts[0]:
            thinking += tokens
        else:
            answer += tokens
        usage = {"promptTokenCount": request.prompt_tokens, "candidatesTokenCount": answer}
        usage["totalTokenCount"] = request.prompt_tokens + answer + thinking
        if thinking:
            usage["thoughtsTokenCount"] = thinking
        chunks.append(
            {
                "candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}],
                "usageMetadata": usage,
                "modelVersion": request.name,
                "responseId": f"emulator-{request.number:06d}",
            }
        )
    if finish_reason is not None:
        chunks[-1]["candidates"][0]["finishReason"] = finish_reason
    return chunks


def merge(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The single answer of generateContent: the last chunk with the parts of all chunks, neighbouring texts joined."""
    parts: list[dict[str, Any]] = []
    for chunk in chunks:
        for candidate in chunk.get("candidates", [])[:1]:
            for part in candidate.get("content", {}).get("parts", []):
                last = parts[-1] if parts else {}
                if "text" in part and "text" in last and part.get("thought") == last.get("thought"):
                    parts[-1] = {**last, **part, "text": last["text"] + part["text"]}
                else:
                    parts.append(dict(part))
    whole = dict(chunks[-1]) if chunks else {}
    if parts:
        last_candidate = whole.get("candidates", [{}])[0]
        whole["candidates"] = [{**last_candidate, "content": {"parts": parts, "role": "model"}}]
    return whole


def envelope(chunk: Any, request: ParsedRequest) -> dict[str, Any]:
    """A chunk as the OAuth route sends it (GC code_assist/converter.ts)."""
    return {"response": chunk, "traceId": f"{request.number:016x}"}


def split_events(body: bytes) -> list[bytes]:
    """A body cut after each blank line; the pieces joined are the body again."""
    found = _BLANK_LINE.split(body)
    pairs = zip(found[::2], [*found[1::2], b""])
    return [text + end for text, end in pairs if text or end]


def wrap_body(body: bytes, request: ParsedRequest) -> bytes:
    """A body as the OAuth route sends it: each ``data:`` line that is JSON gets the envelope."""
    lines = body.splitlines(keepends=True)
    return b"".join(_wrap_line(line, request) for line in lines)


def _wrap_line(line: bytes, request: ParsedRequest) -> bytes:
    if not line.startswith(b"data:"):
        return line
    text = line.rstrip(b"\r\n")
    try:
        value = json.loads(text[len(b"data:") :])
    except ValueError:
        return line
    return sse_event(envelope(value, request)).rstrip(b"\r\n") + line[len(text) :]
