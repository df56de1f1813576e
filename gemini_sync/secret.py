"""``Secret``, a string that reports of errors do not show, and functions that make secrets of plain values."""

from __future__ import annotations

import os
from typing import Any

from gemini_sync.redaction import redact_text


class Secret(str):
    """A credential: it equals its text and is sent as its text, but its ``repr``, and that of its slices, hides it.

    Error reporters show the local variables of a traceback by their ``repr``. ``str()`` gives the plain text.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "[redacted]"

    def __getitem__(self, key: Any) -> Secret:
        return Secret(super().__getitem__(key))

    def strip(self, chars: Any = None) -> Secret:
        return Secret(super().strip(chars))


class SecretBytes(bytes):
    """Bytes that hold credentials. Their ``repr`` hides them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "[redacted]"

    def __getitem__(self, key: Any) -> Any:
        taken = super().__getitem__(key)
        return SecretBytes(taken) if isinstance(taken, bytes) else taken


def conceal(value: Any) -> Any:
    """``value`` with secrets in place of the strings and bytes in it, also inside of lists and dicts."""
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, (bytes, bytearray)):
        return SecretBytes(value)
    if isinstance(value, list):
        return [conceal(item) for item in value]
    return {name: conceal(item) for name, item in value.items()} if isinstance(value, dict) else value


def conceal_source(source: Any) -> Any:
    """``source`` of credentials: a path as it is, and what holds credentials itself concealed."""
    if isinstance(source, str):
        return Secret(source) if source.lstrip().startswith("{") or redact_text(source) != source else source
    return source if isinstance(source, os.PathLike) else conceal(source)


def type_name(value: object) -> str:
    """The name of the type of ``value``, also if ``value`` is concealed."""
    return next(cls.__name__ for cls in type(value).__mro__ if cls.__module__ != __name__)
