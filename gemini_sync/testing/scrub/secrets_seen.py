"""The secrets that were seen so far, where they occur in a text, and their placeholders."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from gemini_sync.testing.scrub import finding
from gemini_sync.testing.scrub.forms import base64_forms, tolerant_pattern
from gemini_sync.testing.scrub.spans import Span

# A shorter one is replaced in its own field alone: elsewhere it may be an ordinary word.
_SHORTEST = {finding.PROJECT: 6, finding.PASSWORD: 6}
_SHORTEST_OTHER = 8
WORDS = (finding.PROJECT, finding.PASSWORD)  # a longer word may hold them


@functools.lru_cache(maxsize=64)
def _pattern(values: tuple[str, ...], whole: tuple[bool, ...]) -> re.Pattern[str]:
    patterns = (tolerant_pattern(value, whole=is_word) for value, is_word in zip(values, whole))
    return re.compile("|".join(f"({pattern})" for pattern in patterns))


class SecretsSeen:
    """Each secret with its kind. Placeholders are numbered in the order in which they are asked for."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.base64_forms: list[str] = []
        self._names: dict[tuple[str, str], str] = {}
        self._cores: dict[str, str] = {}  # a part of each that all its spellings have

    def add(self, kind: str, value: str) -> None:
        long_enough = len(value) >= _SHORTEST.get(kind, _SHORTEST_OTHER)
        if long_enough and value not in self.kinds and not finding.PLACEHOLDER.fullmatch(value):
            self.kinds[value] = kind
            self.base64_forms += [form for form in base64_forms(value) if len(form) >= _SHORTEST_OTHER]
            self._cores[value] = max(re.findall("[A-Za-z0-9]*", value), key=len)

    def spans(self, text: str) -> Iterator[Span]:
        """Where they occur, in any spelling but base64."""
        order = tuple(value for value, core in self._cores.items() if core in text)
        if order:
            order = tuple(sorted(order, key=len, reverse=True))  # one may begin with another
            for hit in _pattern(order, tuple(self.kinds[value] in WORDS for value in order)).finditer(text):
                value = order[(hit.lastindex or 1) - 1]
                yield hit.start(), hit.end(), (self.kinds[value], value)

    def name(self, kind: str, value: str) -> str:
        """The placeholder: the same for the same secret."""
        kind = self.kinds.get(value, kind)
        if (kind, value) not in self._names:
            number = 1 + sum(other == kind for other, _ in self._names)
            self._names[kind, value] = f"{kind}-{number}"
        return self._names[kind, value]
