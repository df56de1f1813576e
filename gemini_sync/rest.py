"""Knows Google's REST field names as TypedDicts, for editors and type checkers; checks nothing when a program runs.

The names are those of the reference at https://ai.google.dev/api/generate-content; a field missing here works all the
same, because dicts are sent as they are.
"""

from __future__ import annotations

from typing import Any, TypedDict


class InlineData(TypedDict):
    mimeType: str
    data: str  # base64


class FileData(TypedDict, total=False):
    mimeType: str
    fileUri: str


class Part(TypedDict, total=False):
    """One piece of a turn; exactly one of the kinds, perhaps with a thought signature."""

    text: str
    thought: bool
    thoughtSignature: str
    inlineData: InlineData
    fileData: FileData
    functionCall: dict[str, Any]
    functionResponse: dict[str, Any]
    executableCode: dict[str, Any]
    codeExecutionResult: dict[str, Any]
    videoMetadata: dict[str, Any]


class Content(TypedDict, total=False):
    """One turn: ``role`` is ``"user"`` or ``"model"``."""

    role: str
    parts: list[Part]


class ThinkingConfig(TypedDict, total=False):
    """``thinkingBudget`` for 2.5 models (0 off, -1 automatic), ``thinkingLevel`` for 3 and later; never both."""

    includeThoughts: bool
    thinkingBudget: int
    thinkingLevel: str


class GenerationConfig(TypedDict, total=False):
    candidateCount: int
    frequencyPenalty: float
    maxOutputTokens: int
    mediaResolution: str
    presencePenalty: float
    responseJsonSchema: Any
    responseLogprobs: bool
    responseMimeType: str
    responseModalities: list[str]
    responseSchema: dict[str, Any]
    seed: int
    speechConfig: dict[str, Any]
    stopSequences: list[str]
    temperature: float
    thinkingConfig: ThinkingConfig
    topK: int
    topP: float


class SafetySetting(TypedDict):
    category: str
    threshold: str


class Tool(TypedDict, total=False):
    codeExecution: dict[str, Any]
    functionDeclarations: list[dict[str, Any]]
    googleSearch: dict[str, Any]
    urlContext: dict[str, Any]


class ToolConfig(TypedDict, total=False):
    functionCallingConfig: dict[str, Any]
    retrievalConfig: dict[str, Any]
