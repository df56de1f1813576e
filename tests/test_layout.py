"""The layout: which folder may import which, who may import a library, and who may write to a terminal."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

# Each line may import from the lines below it; within a line only where "|" does not separate. "." is the top folder.
_LINES = """
    cli
    adapter functions
    routing
    services
    auth
    network | messages
    config retrying environment
    errors redaction fork version
"""
_MOST_FLOORS_IN_A_FOLDER = 4
_MOST_LINES_IN_A_FILE = 300
_EMULATOR = "gemini_sync.testing.emulator"
_IMPORTERS = {
    "requests": "gemini_sync.network",
    "urllib3": "gemini_sync.network",
    "sseclient": "gemini_sync.messages.sse",
    "tenacity": "gemini_sync.retrying",
}
_WRITERS = {"gemini_sync.cli.main", f"{_EMULATOR}.__main__"}


def _module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).replace(".__init__", "")


_TREES = {_module_of(path): ast.parse(path.read_bytes()) for path in sorted((ROOT / "gemini_sync").rglob("*.py"))}
_MODULES = [name for name in _TREES if name not in ("gemini_sync", "gemini_sync.testing")]


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: what stands under ``if TYPE_CHECKING`` does not."""
    for child in ast.iter_child_nodes(tree):
        if not _is_for_types_only(child):
            yield child
            yield from _nodes(child)


def _imports(module: str) -> Iterator[str]:
    """The modules that ``module`` imports, also inside its functions; modules of this package by their full names."""
    for node in _nodes(_TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in _TREES else str(node.module) for name in names)


def _wing(module: str) -> str:
    """The folder or the top-level file that a module belongs to."""
    return module.split(".")[1] if "." in module else "gemini_sync"


_HEIGHT = {
    wing: (-number, place)
    for number, line in enumerate(_LINES.strip().splitlines())
    for place, group in enumerate(line.split("|"))
    for wing in group.split()
}


@pytest.mark.parametrize("module", [name for name in _MODULES if not name.startswith("gemini_sync.testing")])
def test_imports__go_down_the_folders(module: str) -> None:
    assert _wing(module) in _HEIGHT, f"{module} has no place yet: give its folder one in this test and in docs/house.md"
    line, place = _HEIGHT[_wing(module)]
    for imported in _imports(module):
        if not imported.startswith("gemini_sync.") or _wing(imported) == _wing(module):
            continue
        if imported.startswith("gemini_sync.testing"):
            assert _wing(module) == "cli", f"{module} imports {imported}, which only the command line may"
            continue
        below, beside = _HEIGHT[_wing(imported)]
        assert below < line or (below, beside) == (line, place), f"{module} imports {imported}, which is not below it"


@functools.cache
def _floor(module: str) -> int:
    """How many modules of its own folder (or of the top) lie one upon another below a module, with itself."""
    folder = module.rpartition(".")[0]
    inside = [name for name in _imports(module) if name in _TREES and name.rpartition(".")[0] == folder]
    return 1 + max(map(_floor, inside), default=0)  # a circle would end in a RecursionError


@pytest.mark.parametrize("module", [name for name in _MODULES if name.count(".") > 1])
def test_folder__has_few_floors_and_no_circle(module: str) -> None:
    assert _floor(module) <= _MOST_FLOORS_IN_A_FOLDER


@pytest.mark.parametrize("module", _TREES)
def test_file__is_one_sitting(module: str) -> None:
    path = ROOT / (module.replace(".", "/"))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= _MOST_LINES_IN_A_FILE


@pytest.mark.parametrize("module", [name for name in _MODULES if name.startswith(_EMULATOR)])
def test_emulator__imports_nothing_but_itself_and_the_standard_library(module: str) -> None:
    for imported in _imports(module):
        standard = imported.split(".")[0] in getattr(sys, "stdlib_module_names", [imported.split(".")[0]])
        ours = imported.startswith("gemini_sync")
        assert imported.startswith(_EMULATOR) if ours else standard, f"{module} imports {imported}"


@pytest.mark.parametrize("library", _IMPORTERS)
def test_library__has_one_importing_place(library: str) -> None:
    importers = {m for m in _TREES if any(imported.split(".")[0] == library for imported in _imports(m))}
    place = _IMPORTERS[library]
    assert importers
    assert {m for m in importers if not (m == place or m.startswith(f"{place}."))} == set()


def test_libraries__are_the_declared_ones() -> None:
    standard = getattr(sys, "stdlib_module_names", ())
    if standard:  # Python 3.9 has no list of its own modules
        known = {"gemini_sync", *_IMPORTERS, *standard}
        assert {name for m in _TREES for name in _imports(m) if name.split(".")[0] not in known} == set()


def test_standard_output__is_the_command_lines() -> None:
    writers = {
        module
        for module, tree in _TREES.items()
        for node in _nodes(tree)
        if (isinstance(node, ast.Name) and node.id == "print")
        or (isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.__stdout__"))
    }
    assert writers == _WRITERS


@pytest.mark.parametrize("module", _TREES)
def test_module__opens_with_a_sentence_and_evaluates_no_annotation(module: str) -> None:
    tree = _TREES[module]
    assert ast.get_docstring(tree), f"{module} does not say what is in it"
    annotated = any(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AnnAssign)) for node in tree.body)
    if annotated:  # X | None, say, cannot be evaluated on Python 3.9
        assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)


def test_docs__show_each_folder_and_file() -> None:
    page = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    for module in _MODULES:
        assert module.startswith(_EMULATOR) or f"{module.rpartition('.')[2]}" in page, (
            f"{module} is not in docs/house.md"
        )
