"""The secrets that were seen so far, where they occur in a text, and their placeholders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Optional

from gemini_sync.testing.scrub import finding
from gemini_sync.testing.scrub.forms import base64_forms, tolerant_pattern
from gemini_sync.testing.scrub.spans import Span

# A shorter one is replaced in its own field alone: elsewhere it may be an ordinary word.
_SHORTEST = {finding.PROJECT: 6, finding.PASSWORD: 6}
_SHORTEST_OTHER = 8
_WORDS = (finding.PROJECT, finding.PASSWORD)  # a longer word may hold them


class SecretsSeen:
    """Each secret with its kind. Placeholders are numbered in the order in which they are asked for."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.base64_forms: list[str] = []
        self._names: dict[tuple[str, str], str] = {}
        self._pattern: Optional[re.Pattern[str]] = None
        self._order: list[str] = []

    def add(self, kind: str, value: str) -> None:
        long_enough = len(value) >= _SHORTEST.get(kind, _SHORTEST_OTHER)
        if long_enough and value not in self.kinds and not finding.PLACEHOLDER.fullmatch(value):
            self.kinds[value] = kind
            self.base64_forms += [form for form in base64_forms(value) if len(form) >= _SHORTEST_OTHER]
            self._pattern = None

    def spans(self, text: str) -> Iterator[Span]:
        """Where they occur, in any spelling but base64."""
        if not self.kinds:
            return
        if self._pattern is None:
            self._order = sorted(self.kinds, key=len, reverse=True)  # one may begin with another
            patterns = (tolerant_pattern(value, whole=self.kinds[value] in _WORDS) for value in self._order)
            self._pattern = re.compile("|".join(f"({pattern})" for pattern in patterns))
        for hit in self._pattern.finditer(text):
            value = self._order[(hit.lastindex or 1) - 1]
            yield hit.start(), hit.end(), (self.kinds[value], value)

    def name(self, kind: str, value: str) -> str:
        """The placeholder: the same for the same secret."""
        kind = self.kinds.get(value, kind)
        if (kind, value) not in self._names:
            number = 1 + sum(other == kind for other, _ in self._names)
            self._names[kind, value] = f"{kind}-{number}"
        return self._names[kind, value]
