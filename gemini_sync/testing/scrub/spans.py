"""Parts of a text that are replaced, and what becomes of the borders between segments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: A part of a text, from and to, and what replaces it: a text, or the kind and the value of a secret.
Span = tuple[int, int, Any]


def merged(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, without overlaps: what overlaps becomes one span with the first replacement."""
    found: list[Span] = []
    for start, end, what in sorted(spans, key=lambda span: (span[0], -span[1])):
        if found and start < found[-1][1]:
            first, last, kept = found[-1]
            found[-1] = (first, max(last, end), kept)
        else:
            found.append((start, end, what))
    return found


def replaced(text: str, spans: Iterable[Span]) -> str:
    """``text`` with a text in place of each span; the spans are merged."""
    pieces, at = [], 0
    for start, end, name in spans:
        pieces += [text[at:start], name]
        at = end
    return "".join([*pieces, text[at:]])


def moved(sizes: Iterable[int], spans: list[Span]) -> list[int]:
    """The sizes of segments after the replacements. A border inside a span moves to its end."""
    found, border, new, shift, covered, at = [], 0, 0, 0, 0, 0
    for size in sizes:
        border += size
        while at < len(spans) and spans[at][0] < border:
            start, covered, name = spans[at]
            shift += len(name) - (covered - start)
            at += 1
        found.append(max(border, covered) + shift - new)
        new += found[-1]
    return found
