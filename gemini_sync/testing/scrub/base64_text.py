"""Texts inside a text that are encoded in base64."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Optional

RUN = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEAD = 64  # characters that tell whether there is text behind them


def decoded(encoded: str) -> Optional[str]:
    """What is encoded, one character for each byte; None if nothing is."""
    encoded = encoded.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4)).decode("latin-1")
    except (binascii.Error, ValueError):
        return None


def decoded_text(encoded: str) -> Optional[str]:
    """The same, if it is printable text."""
    head = decoded(encoded[:_HEAD])
    if head is None or not _is_text(head[: _HEAD // 2]):
        return None
    text = decoded(encoded)
    return text if text is not None and _is_text(text) else None


def _is_text(text: str) -> bool:
    return text.isascii() and all(character.isprintable() or character in "\t\r\n" for character in text)


def encoded_like(encoded: str, text: str) -> str:
    """``text`` in the alphabet of ``encoded``, with padding if that has it or needs none."""
    made = base64.b64encode(text.encode("latin-1", "replace")).decode()
    if "-" in encoded or "_" in encoded:
        made = made.replace("+", "-").replace("/", "_")
    return made if encoded.endswith("=") or len(encoded) % 4 == 0 else made.rstrip("=")
