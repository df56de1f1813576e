"""Removes credentials and control characters from text that people will read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

EXCERPT_CHARACTERS = 500

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


def redacted_excerpt(text: str, secrets: Iterable[str] = (), characters: int = EXCERPT_CHARACTERS) -> str:
    """``text`` on one line, redacted and then cut to at most ``characters``."""
    flat = redact_text(one_line(text), secrets)
    return flat if len(flat) <= characters else flat[: characters - 1] + "…"
