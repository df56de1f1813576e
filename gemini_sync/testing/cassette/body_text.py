"""Bodies as text that people can read and that turns back into the same bytes."""

from __future__ import annotations

import base64
import json
import re
import textwrap
from typing import Any, Callable, Optional

from gemini_sync.testing.cassette.values import split_events

#: A part of a body: the name of its format, and its text.
Part = tuple[str, str]

# Characters that no YAML block can hold as they are, that are line ends to YAML, or that turn the text around.
_UNSAFE = re.compile(
    "[^\t\n\x20-\x7e\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_TRAILING_BLANK = re.compile(r"[ \t](?=\n|$)")  # editors remove it
_ESCAPED = re.compile(r"\\(?:x([0-9a-f]{2})|([\\nrt]))")
_TO_ESCAPE = re.compile(f"\\\\|\n|\r|{_UNSAFE.pattern}")
_LETTERS = {"\\": "\\", "\n": "n", "\r": "r", "\t": "t"}
_COLUMNS = 100
_BINARY_SHARE = 0.1  # of the bytes; with more escapes than that, base64 reads no worse
_SEPARATORS = {"json": (",", ":"), "json_spaced": (", ", ": ")}


def is_block(text: str) -> bool:
    """True if a YAML block gives ``text`` back as it is, also after an editor has saved it."""
    return _UNSAFE.search(text) is None and _TRAILING_BLANK.search(text) is None


def to_parts(data: bytes) -> list[Part]:
    """``data`` in the most readable formats that give exactly these bytes back."""
    part = _json_part(data) or _text_part(data)
    if part is not None:
        return [part]
    parts: list[Part] = []
    for event in split_events(data):
        name, text = _text_part(event) or _odd_part(event)
        if parts and parts[-1][0] == name != "base64":
            parts[-1] = (name, parts[-1][1] + ("\n" if name == "escaped" else "") + text)
        else:
            parts.append((name, text))
    return parts


def from_part(name: str, text: str) -> bytes:
    """The bytes of a part; raises ValueError if its text is not of its format, KeyError for an unknown format."""
    return _DECODERS[name](text)


def _json_part(data: bytes) -> Optional[Part]:
    if data[:1] not in (b"{", b"["):
        return None
    try:
        value = json.loads(data)
        for name, separators in _SEPARATORS.items():
            if json.dumps(value, ensure_ascii=False, separators=separators).encode() == data:
                text = _pretty(value)
                return (name, text) if is_block(text) and _from_json(name, text) == data else None
    except (ValueError, RecursionError):
        pass  # no JSON, or one that Python writes in another way
    return None


def _pretty(value: Any, column: int = 0) -> str:
    """JSON in which each value has one line if it fits, else a line for each of its items."""
    line = json.dumps(value, ensure_ascii=False)
    if not value or not isinstance(value, (dict, list)) or len(line) + column <= _COLUMNS:
        return line
    if isinstance(value, dict):
        items = [f"{json.dumps(name, ensure_ascii=False)}: {_pretty(item, column + 2)}" for name, item in value.items()]
    else:
        items = [_pretty(item, column + 2) for item in value]
    inner = (",\n" + " " * (column + 2)).join(["", *items])[1:]
    return f"{'{['[isinstance(value, list)]}{inner}\n{' ' * column}{'}]'[isinstance(value, list)]}"


def _from_json(name: str, text: str) -> bytes:
    value = json.loads(text)
    return json.dumps(value, ensure_ascii=False, separators=_SEPARATORS[name]).encode()


def _text_part(data: bytes) -> Optional[Part]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    name = "text"
    if "\r" in text:
        if not text.count("\r\n") == text.count("\r") == text.count("\n"):
            return None
        name, text = "text_crlf", text.replace("\r\n", "\n")
    return (name, text) if is_block(text) else None


def _odd_part(data: bytes) -> Part:
    text = data.decode("utf-8", "surrogateescape")
    if sum(map(len, _UNSAFE.findall(text.replace("\r", "")))) > _BINARY_SHARE * len(data):
        encoded = base64.b64encode(data).decode()
        return "base64", "\n".join(textwrap.wrap(encoded, _COLUMNS))
    return "escaped", _escape(text)


def _escape(text: str) -> str:
    """``text`` with a line end after each escaped one, for the reader; all real line ends are ignored later."""
    lines = _TO_ESCAPE.sub(_escape_character, text).replace("\\n", "\\n\n").removesuffix("\n").split("\n")
    return "\n".join(re.sub(r"^[ \t]|[ \t]$", lambda found: f"\\x{ord(found.group()):02x}", line) for line in lines)


def _escape_character(found: re.Match[str]) -> str:
    character = found.group()
    if character in _LETTERS:
        return "\\" + _LETTERS[character]
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def _unescape(text: str) -> bytes:
    pieces, end = [], 0
    letters = {letter: character for character, letter in _LETTERS.items()}
    text = text.replace("\n", "")
    for found in _ESCAPED.finditer(text):
        pieces.append(text[end : found.start()].encode())
        pieces.append(bytes.fromhex(found[1]) if found[1] else letters[found[2]].encode())
        end = found.end()
    pieces.append(text[end:].encode())
    if any(b"\\" in piece for piece in pieces[::2]):
        raise ValueError("a backslash begins none of \\\\, \\n, \\r, \\t and \\x00")
    return b"".join(pieces)


_DECODERS: dict[str, Callable[[str], bytes]] = {
    "json": lambda text: _from_json("json", text),
    "json_spaced": lambda text: _from_json("json_spaced", text),
    "text": str.encode,
    "text_crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "escaped": _unescape,
    "base64": lambda text: base64.b64decode("".join(text.split()), validate=True),
}
FORMATS = tuple(_DECODERS)
