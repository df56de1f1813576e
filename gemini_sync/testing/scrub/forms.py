"""The spellings of a secret: as it is, in JSON, in a URL, and in base64."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

_LETTERS = {"\n": "n", "\r": "r", "\t": "t", " ": r"\+"}  # in JSON, or in a form
_URL_SAFE = str.maketrans("+/", "-_")


def tolerant_pattern(value: str, *, whole: bool = False) -> str:
    """A pattern for ``value`` in plain text, in JSON, in JSON inside JSON, and in URLs.

    ``whole`` is for a value that may be an ordinary word: it does not match inside a longer word.
    """
    middle = "".join(_character(character) for character in value)
    return rf"(?<![\w-]){middle}(?![\w-])" if whole else middle


def _character(character: str) -> str:
    if character.isascii() and character.isalnum():
        return character
    data = character.encode("utf-8", "surrogatepass")
    units = character.encode("utf-16-be", "surrogatepass")
    plain = re.escape(data.decode("latin-1"))  # the text has one character for each byte
    if character in _LETTERS:
        plain = f"(?:{plain}|{_LETTERS[character]})"
    escaped = "".join(rf"\\+u(?i:{units[at : at + 2].hex()})" for at in range(0, len(units), 2))
    return rf"(?:\\*{plain}|{escaped}|{''.join(f'%(?i:{byte:02x})' for byte in data)})"


def base64_forms(value: str) -> Iterator[str]:
    """What each base64 text contains that ``value`` was encoded in, wherever it stood, in both alphabets."""
    data = value.encode("utf-8", "surrogatepass")
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        start = (0, 2, 3)[shift]  # characters that what stands before has a part in
        end = len(encoded) - ((shift + len(data)) % 3 != 0)  # and one that what stands behind has a part in
        middle = encoded[start:end]
        yield from {middle, middle.translate(_URL_SAFE)}


def plain_forms(value: str) -> set[str]:
    """The usual spellings, for a second look that has nothing in common with the patterns above."""
    inner = json.dumps(value)[1:-1]
    return {
        value,
        inner,
        json.dumps(inner)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        value.replace("/", "\\/"),
        re.sub("[<>&='+]", lambda found: f"\\u{ord(found.group()):04x}", value),
        re.sub("[^A-Za-z0-9]", lambda found: f"\\u{ord(found.group()):04x}", value),
        quote(value),
        quote(value, safe=""),
        quote_plus(value),
        re.sub("%[0-9A-F]{2}", lambda found: found.group().lower(), quote(value, safe="")),
    }
