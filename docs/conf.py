"""Knows how the pages are built, and writes the decision table from the policy's own rules before they are read."""

from __future__ import annotations

import re
from pathlib import Path

from gemini_sync.policy import RULES
from gemini_sync.version import VERSION

project = "gemini_sync"
author = "gemini_sync contributors"
release = version = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated"]
html_theme = "furo"
html_title = f"gemini_sync {VERSION}"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True


def _cell(text: str) -> str:
    text = re.sub(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|\bRetry\.\w+|\bcancel\(\)", r"`\g<0>`", text)
    return text.replace("|", r"\|")


def _write_decisions() -> None:
    rows = [f"| {_cell(rule.what)} | {rule.decision} | {_cell(rule.why)} | `{rule.name}` |" for rule in RULES]
    table = ["| What happened | Decision | Because | Rule |", "|---|---|---|---|", *rows]
    folder = Path(__file__).parent / "_generated"
    folder.mkdir(exist_ok=True)
    (folder / "decisions.md").write_text("\n".join(table) + "\n", encoding="utf-8")


_write_decisions()
