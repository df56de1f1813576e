"""Knows how to take credentials and control characters out of text for people; knows nothing of its sources."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

SNIPPET_CHARACTERS = 500

# Google API keys, OAuth access tokens, refresh tokens, client secrets, and credentials in URLs and headers.
_SECRET_SHAPES = re.compile(
    r"AIza[\w-]{10,}|AIzv[\w-]{10,}|\bAQ\.[\w-]{10,}|ya29\.[\w.-]+|\b1//[\w-]{10,}|GOCSPX-[\w-]+"
    r"|(?<=Bearer )[\w.~+/=-]+|(?<=[?&]key=)[^&\s\"']+|(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)"
)
# What could move a terminal's cursor, recolour, retitle or reorder it: escape sequences, then every control character
# but those that are white space, and the bidirectional overrides and isolates.
_UNSAFE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without the given secrets and without anything shaped like a Google credential."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(secret, "[redacted]")
    return _SECRET_SHAPES.sub("[redacted]", text)


def scrubbed(value: Any, secrets: Iterable[str]) -> Any:
    """Decoded JSON, scrubbed string by string: in its encoded form escapes hide where a credential begins and ends."""
    if isinstance(value, str):
        return scrub(value, secrets)
    if isinstance(value, list):
        return [scrubbed(item, secrets) for item in value]
    if isinstance(value, dict):
        return {scrub(name, secrets): scrubbed(item, secrets) for name, item in value.items()}
    return value


def printable(text: str) -> str:
    """``text`` without what a terminal would obey."""
    return _UNSAFE.sub("", text)


def one_line(text: str) -> str:
    """``printable`` text on one line."""
    return printable(" ".join(text.split()))


def snippet(text: str, secrets: Iterable[str] = (), characters: int = SNIPPET_CHARACTERS) -> str:
    """At most so many characters of ``text`` on one line, scrubbed before it is cut."""
    flat = scrub(one_line(text), secrets)
    return flat if len(flat) <= characters else flat[: characters - 1] + "…"
