"""Google's REST JSON: its field names as TypedDicts, and the functions that readers and writers of it share.

The names come from the reference at https://ai.google.dev/api/generate-content. Only type checkers use them. A field
that is missing here works too, because dicts are sent as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Optional, TypedDict

from gemini_sync.errors import ConfigError

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}(?:\.0+)?")
# The finish reasons by their numbers. Google's two APIs mean the same only by these.
FINISH_REASONS = (None, "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER")


class InlineData(TypedDict):
    mimeType: str
    data: str  # base64


class FileData(TypedDict, total=False):
    mimeType: str
    fileUri: str


class Part(TypedDict, total=False):
    """One piece of a turn. It has one kind of data, and may have a thought signature besides."""

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
    """One turn. Its ``role`` is ``"user"`` or ``"model"``."""

    role: str
    parts: list[Part]


class ThinkingConfig(TypedDict, total=False):
    """How much the model thinks. Give one of the two, never both.

    ``thinkingBudget`` is for the models of 2.5 (0 means off, -1 automatic), ``thinkingLevel`` for 3 and later.
    """

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


def text_of(value: Any) -> Optional[str]:
    """``value`` if it is a string that is not empty, else None."""
    return value if isinstance(value, str) and value else None


def int_of(value: Any) -> Optional[int]:
    """``value`` as a whole number, else None. JSON of Google's APIs may write one as a string or as a float."""
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def enum_of(value: Any, numbered: Sequence[Optional[str]]) -> Optional[str]:
    """The name of an enum value, in upper case. None if it is not set, which is the zero of each enum.

    JSON of Google's APIs may write the number of a value. Only those in ``numbered`` have a name that we know.
    """
    if isinstance(value, str) and value.isupper():  # nearly always
        return None if value.endswith("_UNSPECIFIED") else value
    number = int_of(value)
    if number is not None:
        return numbered[number] if 0 <= number < len(numbered) else str(number)
    return enum_of(value.upper(), numbered) if isinstance(value, str) and value.upper().isupper() else text_of(value)


def list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def dict_of(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def of_type(details: Iterable[Mapping[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    """The details of one type of ``google.rpc``, such as ``"ErrorInfo"``."""
    return (dict(d) for d in details if str(d.get("@type", "")).endswith("google.rpc." + name))


def candidate_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Candidate 0 of a GenerateContentResponse, or an empty dict if there is none."""
    candidates = raw.get("candidates")
    if isinstance(candidates, list):
        for candidate in candidates:
            if isinstance(candidate, dict):
                index = candidate.get("index")
                if not index or int_of(index) == 0:
                    return candidate
    return {}


def parts_of(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def copy_json(value: Any, path: str) -> Any:
    """A copy of ``value`` that shares no dict or list with it. Messages name it by ``path``.

    Raises:
        ConfigError: something in ``value`` has no form in JSON. The message names its path.
    """
    try:
        return _copy(value, path)
    except RecursionError as exc:
        raise ConfigError(f"{path} cannot be written as JSON: it is nested too deeply, or contains itself.") from exc


def _copy(value: Any, path: str) -> Any:
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as exc:
                raise ConfigError(f"{path} cannot be written as JSON: it holds half a character: {exc}.") from exc
        return value
    if isinstance(value, Mapping):
        names = [name for name in value if not isinstance(name, str)]
        if names:
            raise ConfigError(f"{path} cannot be written as JSON: expected field names, came the key {names[0]!r}.")
        return {name: _copy(item, f"{path}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
        return value
    hint = " Binary data goes into inlineData.data as base64 text." if isinstance(value, (bytes, bytearray)) else ""
    what = repr(value) if isinstance(value, float) else type(value).__name__
    raise ConfigError(f"{path} cannot be written as JSON: expected a string, number, list or dict, came {what}.{hint}")
