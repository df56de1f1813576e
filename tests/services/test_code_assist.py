"""How Code Assist spells the names of models."""

from __future__ import annotations

from gemini_sync.config import DEFAULT_MODEL
from gemini_sync.messages.request import build
from gemini_sync.services.code_assist import _spelling


def test_model__in_the_spelling_of_code_assist() -> None:
    assert build("Hi").model == f"models/{DEFAULT_MODEL}"
    spelled = {name: _spelling(build("Hi", model=name)) for name in (DEFAULT_MODEL, "models/gemini-2.5-pro")}
    assert spelled == {"gemini-3.5-flash": "gemini-3-flash", "models/gemini-2.5-pro": "gemini-2.5-pro"}
