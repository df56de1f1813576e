"""The values in the parts of an answer: text, function calls, inline data."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from gemini_sync.errors import ProtocolError
from gemini_sync.messages.rest_json import text_of


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
