"""The one door through which words of a server, a library or a caller go into text that people read.

What comes out holds no credential and no control character, is one line, and is not long.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any, Optional
from urllib.parse import quote, quote_plus

EXCERPT_CHARACTERS = 500
_READ_CHARACTERS = 2**17  # of a longer text, nothing is read behind these
_LONGEST_SECRET = 4096
_NAME_CHARACTERS = 100
_LINK = re.compile("https://[!-~]{1,292}")  # at most 300 characters

# Google API keys, OAuth access tokens, refresh tokens, client secrets, and credentials in URLs and headers.
_SECRET_SHAPES = re.compile(
    r"AIza[\w-]{10,}|AIzv[\w-]{10,}|\bAQ\.[\w-]{10,}|ya29\.[\w.-]+|\b1//[\w-]{10,}|GOCSPX-[\w-]+"
    r"|(?<=Bearer )[\w.~+/=-]+|(?<=[?&]key=)[^&\s\"']+|(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)"
)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without the given secrets and without anything that looks like a Google credential.

    A server may quote what it got as a part of a URL or a form, and a host name is in lower case.
    """
    known = tuple(filter(None, secrets))
    return _SECRET_SHAPES.sub("[redacted]", _pattern(known).sub("[redacted]", text) if known else text)


@functools.lru_cache(maxsize=8)
def _pattern(secrets: tuple[str, ...]) -> re.Pattern[str]:
    forms = {form for each in secrets for form in (str(each), quote(each), quote(each, safe=""), quote_plus(each))}
    longest_first = sorted(forms, key=len, reverse=True)  # one secret may begin with another
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)


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


def redacted_name(name: str, secrets: Iterable[str] = ()) -> str:
    """An excerpt of a name, such as a reason, a status, a host or a content type."""
    return redacted_excerpt(name, secrets, _NAME_CHARACTERS)


def safe_link(link: Any, secrets: Iterable[str] = ()) -> Optional[str]:
    """``link``, or None if it is no https link of at most 300 characters, or holds a credential."""
    fits = isinstance(link, str) and _LINK.fullmatch(link) and redact_text(link, secrets) == link
    return str(link) if fits else None


def link_advice(link: object, shown: Optional[str], otherwise: str) -> str:
    """The advice to see ``shown``; if ``link`` was not safe to show, that it was left out, and ``otherwise``."""
    if shown is not None:
        return f"See {shown}"
    return f"{'A link of the server was left out, because it is not safe to show. ' if link else ''}{otherwise}"
