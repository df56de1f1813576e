"""The decision table as data: its rules are complete, cannot be changed, and can be put into words."""

from __future__ import annotations

from typing import Any

import pytest

from gemini_sync import errors
from gemini_sync.errors import GeminiSyncError
from gemini_sync.routing.policy import (
    RULES,
    WAIT_LIMIT_SECONDS,
    Decision,
    explain,
)

_ROWS = [explanation for _, explanation in RULES]


def test_rules__are_complete_and_well_formed() -> None:
    assert len({rule.rule for rule in _ROWS}) == len(RULES)
    for rule in _ROWS:
        assert isinstance(rule.decision, Decision)
        assert rule.what
        assert rule.why.endswith(".")
    assert RULES[-1][0](BaseException(), 0)
    assert str(WAIT_LIMIT_SECONDS).rstrip("0").rstrip(".") in next(r.what for r in _ROWS if r.rule == "long-hint")


def test_rules__fit_every_class_of_error() -> None:
    classes: list[Any] = [value for value in vars(errors).values() if isinstance(value, type)]
    for cls in classes:
        if issubclass(cls, BaseException):
            error = cls.__new__(cls)
            error.__dict__.update(vars(GeminiSyncError()), deadline="idle", cancelled=False)
            assert explain(error).rule in {rule.rule for rule in _ROWS}


def test_rules__cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        _ROWS[0].decision = Decision.RETRY  # type: ignore[misc]
    assert isinstance(RULES, tuple)


def test_decision__as_words() -> None:
    assert [str(decision) for decision in Decision] == ["retry", "fall back", "fall back for this model", "surface"]
