"""Draws the figures as an SVG, with a panel of bars for each comparison."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

from tests.benchmark.report import environment
from tests.benchmark.results import Result, Table

_WIDTH, _MARGIN, _NAME_WIDTH, _VALUE_WIDTH = 760, 16, 270, 120
_ROW, _TITLE, _GAP = 20, 24, 16
_OURS, _OTHERS = "#1a6fb5", "#b8bec6"
_STYLE = "text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.small{font-size:10px;fill:#57606a}"


def _text(x: float, y: float, content: str, attributes: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{escape(content)}</text>'


def _panel(table: Table, top: int) -> list[str]:
    """The title and the bars of a table; the longest bar sets the scale."""
    longest = max(row.value for row in table.rows) or 1.0
    room = _WIDTH - 2 * _MARGIN - _NAME_WIDTH - _VALUE_WIDTH
    lines = [_text(_MARGIN, top + 14, f"{table.title}, {table.unit}", ' class="title"')]
    for number, row in enumerate(table.rows):
        y = top + _TITLE + number * _ROW
        width = max(1.0, row.value / longest * room)
        colour = _OURS if "gemini_sync" in row.name else _OTHERS
        ratio = "" if row.ratio is None or number == 0 else f"  ({row.ratio:.2f} x)"
        lines += [
            _text(_MARGIN + _NAME_WIDTH - 8, y + 12, row.name, ' text-anchor="end"'),
            f'<rect x="{_MARGIN + _NAME_WIDTH}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 6}" fill="{colour}"/>',
            _text(_MARGIN + _NAME_WIDTH + width + 6, y + 12, f"{row.value:.3g}{ratio}"),
        ]
    return lines


def write_svg(path: Path, results: Iterable[Result]) -> None:
    """Draw the tables that have a row for google-genai, and below them the machine and the versions."""
    lines: list[str] = []
    y = _MARGIN
    tables = (table for result in results for table in result.tables)
    for table in (table for table in tables if any("genai" in row.name for row in table.rows)):
        lines += _panel(table, y)
        y += _TITLE + _ROW * len(table.rows) + _GAP
    for line in environment().split("; "):
        lines.append(_text(_MARGIN, y + 8, line, ' class="small"'))
        y += 14
    height = y + _MARGIN
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{_STYLE}</style>"]
    ground = f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>'
    path.write_text("\n".join([*head, ground, *lines, "</svg>"]) + "\n", encoding="utf-8")
