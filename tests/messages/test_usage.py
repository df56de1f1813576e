"""Tests of token counts."""

from __future__ import annotations

from typing import Any

import pytest

from gemini_sync.messages.usage import Usage, usage


def test_usage__repr_hides_the_raw_metadata() -> None:
    assert "canary" not in repr(Usage(1, raw={"canary": 1}))


def test_usage__counts_by_their_names() -> None:
    raw = {
        "promptTokenCount": 1, "candidatesTokenCount": 2, "thoughtsTokenCount": 3, "cachedContentTokenCount": 4,
        "totalTokenCount": 10, "toolUsePromptTokenCount": 5,
    }  # fmt: skip
    assert usage(raw) == Usage(1, 2, 3, 4, 10, raw)


@pytest.mark.parametrize("sent", [5, 5.0, "5", "5.0"])
def test_usage__counts_as_strings_and_floats(sent: Any) -> None:
    seen = usage({"promptTokenCount": sent, "totalTokenCount": sent})
    assert seen is not None
    assert (seen.prompt_token_count, seen.total_token_count) == (5, 5)
    assert isinstance(seen.prompt_token_count, int)


@pytest.mark.parametrize("wrong", [None, "", "five", "5.5", "\u0665", 1.5, float("inf"), float("nan"), True, [], {}])
def test_usage__a_value_that_is_no_count__is_none(wrong: Any) -> None:
    seen = usage({"promptTokenCount": wrong, "totalTokenCount": 0})
    assert seen is not None
    assert (seen.prompt_token_count, seen.total_token_count) == (None, 0)


@pytest.mark.parametrize("wrong", [None, [], "x", 5, True])
def test_usage__no_dict(wrong: Any) -> None:
    assert usage(wrong) is None
