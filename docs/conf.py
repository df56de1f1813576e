"""Knows how the pages are built."""

from __future__ import annotations

from gemini_sync.version import VERSION

project = "gemini_sync"
author = "gemini_sync contributors"
release = version = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"gemini_sync {VERSION}"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
