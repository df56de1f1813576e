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


def one_line(text: str) -> str:
    """``text`` on one line; control characters, which a terminal would obey, and half characters become spaces."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())


def snippet(text: str, secrets: Iterable[str] = (), characters: int = SNIPPET_CHARACTERS) -> str:
    """At most so many characters of ``text`` on one line, scrubbed before it is cut."""
    flat = scrub(one_line(text), secrets)
    return flat if len(flat) <= characters else flat[: characters - 1] + "…"
