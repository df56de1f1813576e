"""Mends characters that JSON writes as two halves (surrogates) if one half is missing, or came in another chunk."""

from __future__ import annotations

import re
from typing import Any

from gemini_sync.messages.rest_json import candidate_of, parts_of

_REPLACEMENT = "\ufffd"
_HALF = re.compile("[\ud800-\udfff]")
_ENDS_WITH_FIRST_HALF = re.compile("[\ud800-\udbff]\\Z")


class HalfCharacters:
    """Moves the first half of a character from the end of a text to its other half in the text that follows."""

    def __init__(self) -> None:
        self._waiting = {False: "", True: ""}  # the half at the end of the answer, and of the thoughts

    @property
    def waiting(self) -> bool:
        return any(self._waiting.values())

    def mend(self, raw: dict[str, Any]) -> None:
        """Change ``raw`` so that no string in it holds half a character. A half without another becomes U+FFFD."""
        for part in parts_of(candidate_of(raw)):
            text, thought = part.get("text"), bool(part.get("thought"))
            if not isinstance(text, str) or not text:
                continue
            text = self._waiting[thought] + text
            if _HALF.search(text):  # halves that stand side by side become one character
                text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
            half = _ENDS_WITH_FIRST_HALF.search(text)
            self._waiting[thought] = half.group() if half else ""
            part["text"] = text[:-1] if half else text
        _mend_all(raw)

    def left_over(self) -> list[dict[str, Any]]:
        """Contents that hold U+FFFD for each half that still waits. None waits afterwards."""
        thoughts = [thought for thought, half in self._waiting.items() if half]
        self._waiting = {False: "", True: ""}
        return [
            {"role": "model", "parts": [{"text": _REPLACEMENT, **({"thought": True} if thought else {})}]}
            for thought in thoughts
        ]


def _mended(text: str) -> str:
    return _HALF.sub(_REPLACEMENT, text) if not text.isascii() and _HALF.search(text) else text


def _mend_all(value: Any) -> None:
    """Replace the halves in all strings of a JSON value. It goes in a loop, because JSON may be nested deeply."""
    containers = [value]
    while containers:
        container = containers.pop()
        for key, item in list(container.items() if isinstance(container, dict) else enumerate(container)):
            if isinstance(item, str):
                container[key] = _mended(item)
            elif isinstance(item, (dict, list)):
                containers.append(item)
        if isinstance(container, dict):
            for name in [name for name in container if _mended(name) != name]:
                container[_mended(name)] = container.pop(name)
