"""How many tokens a call used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from gemini_sync.messages.rest_json import int_of


@dataclass(frozen=True)
class Usage:
    """Token counts. A count is None if the server gave none. ``raw`` is the server's usageMetadata."""

    prompt_token_count: Optional[int] = None
    candidates_token_count: Optional[int] = None
    thoughts_token_count: Optional[int] = None
    cached_content_token_count: Optional[int] = None
    total_token_count: Optional[int] = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


def usage(raw: Any) -> Optional[Usage]:
    """The typed form of a usageMetadata dict, or None if it is no dict."""
    if not isinstance(raw, dict):
        return None
    return Usage(
        int_of(raw.get("promptTokenCount")),
        int_of(raw.get("candidatesTokenCount")),
        int_of(raw.get("thoughtsTokenCount")),
        int_of(raw.get("cachedContentTokenCount")),
        int_of(raw.get("totalTokenCount")),
        raw,
    )
