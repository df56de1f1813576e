"""Removes credentials and control characters from text that people will read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

EXCERPT_CHARACTERS = 500
_READ_CHARACTERS = 2**17  # of a longer text, nothing is read behind these
_LONGEST_SECRET = 4096

# Google API keys, OAuth access tokens, refresh tokens, client secrets, and credentials in URLs and headers.
_SECRET_SHAPES = re.compile(
    r"AIza[\w-]{10,}|AIzv[\w-]{10,}|\bAQ\.[\w-]{10,}|ya29\.[\w.-]+|\b1//[\w-]{10,}|GOCSPX-[\w-]+"
    r"|(?<=Bearer )[\w.~+/=-]+|(?<=[?&]key=)[^&\s\"']+|(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)"
)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without the given secrets and without anything that looks like a Google credential."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one secret may begin with another
        text = text.replace(secret, "[redacted]")
    return _SECRET_SHAPES.sub("[redacted]", text)


def redact_json(value: Any, secrets: Iterable[str]) -> Any:
    """Decoded JSON, redacted string by string; in encoded JSON, escapes would hide where a credential ends."""
    if isinstance(value, str):
        return redact_text(value, secrets)
    if isinstance(value, list):
        return [redact_json(item, secrets) for item in value]
    if isinstance(value, dict):
        return {redact_text(name, secrets): redact_json(item, secrets) for name, item in value.items()}
    return value


def one_line(text: str) -> str:
    """``text`` on one line; spaces replace lone surrogates and control characters, which a terminal would obey."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())


def beginning(text: str) -> str:
    """``text``, or as much of its beginning as a message can need.

    If it is cut, the last word goes as well, because half a credential could stay there, which no pattern finds.
    """
    if len(text) <= _READ_CHARACTERS:
        return text
    rest = text[_READ_CHARACTERS - _LONGEST_SECRET : _READ_CHARACTERS]
    whole_words = rest[: -len(rest.split()[-1])] if rest.split() and not rest[-1].isspace() else rest
    return text[: _READ_CHARACTERS - _LONGEST_SECRET] + whole_words


def redacted_excerpt(text: str, secrets: Iterable[str] = (), characters: int = EXCERPT_CHARACTERS) -> str:
    """``text`` on one line, redacted and then cut to at most ``characters``. Of a huge text, the beginning counts."""
    flat = redact_text(one_line(beginning(text)), secrets)
    return flat if len(flat) <= characters else flat[: characters - 1] + "…"
