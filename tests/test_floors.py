"""Holds the house together: who imports whom, who may import a library, and who may write to a terminal."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

_FLOORS = (
    ("details", "fork", "rest", "scrub", "version"),
    ("errors",),
    ("config", "retrying"),
    ("call", "policy", "request", "response", "sse", "sticky"),
    ("connection", "flight", "foreign", "token_file", "turn"),
    ("exchange", "reply", "sessions"),
    ("token_sources", "transport"),
    ("token_endpoint",),
    ("file_source",),
    ("credentials",),
    ("project",),
    ("backends",),
    ("router",),
    ("adapter", "plain"),
    ("demo",),
    ("cli",),
)
_FLOOR_OF = {f"gemini_sync.{name}": floor for floor, names in enumerate(_FLOORS) for name in names}
_EMULATOR = "gemini_sync.testing.emulator"
_LIBRARIES = {
    "requests": {
        "gemini_sync.connection",
        "gemini_sync.exchange",
        "gemini_sync.foreign",
        "gemini_sync.sessions",
        "gemini_sync.transport",
    },
    "urllib3": {"gemini_sync.connection", "gemini_sync.foreign"},
    "sseclient": {"gemini_sync.sse"},
    "tenacity": {"gemini_sync.retrying", "gemini_sync.router", "gemini_sync.token_endpoint"},
    "google": set(),  # token_sources looks for google-auth by name, when there is something to refresh with it
}
_WRITERS = {"gemini_sync.cli", f"{_EMULATOR}.__main__"}


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
    """The modules that ``module`` imports, also inside its functions; of this package by their full names."""
    for node in _nodes(_TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in _TREES else str(node.module) for name in names)


@pytest.mark.parametrize("module", [name for name in _MODULES if not name.startswith(_EMULATOR)])
def test_imports__go_down_the_floors(module: str) -> None:
    floor = _FLOOR_OF.get(module)
    assert floor is not None, f"{module} has no floor yet: give it one in this test"
    for imported in _imports(module):
        if imported.startswith("gemini_sync"):
            annex = module in ("gemini_sync.cli", "gemini_sync.demo") and imported.startswith(_EMULATOR)
            below = _FLOOR_OF.get(imported, len(_FLOORS)) < floor
            assert below or annex, f"{module} (floor {floor}) imports {imported}, which is not below it"


@pytest.mark.parametrize("module", [name for name in _MODULES if name.startswith(_EMULATOR)])
def test_emulator__imports_nothing_but_itself_and_the_standard_library(module: str) -> None:
    for imported in _imports(module):
        standard = imported.split(".")[0] in getattr(sys, "stdlib_module_names", [imported.split(".")[0]])
        ours = imported.startswith("gemini_sync")
        assert imported.startswith(_EMULATOR) if ours else standard, f"{module} imports {imported}"


@pytest.mark.parametrize("library", _LIBRARIES)
def test_library__has_its_importers(library: str) -> None:
    importers = {m for m in _TREES if any(imported.split(".")[0] == library for imported in _imports(m))}
    assert importers == _LIBRARIES[library]


def test_libraries__are_the_declared_ones() -> None:
    known = {"gemini_sync", *_LIBRARIES, *getattr(sys, "stdlib_module_names", ())}
    if len(known) > len(_LIBRARIES) + 1:  # Python 3.9 has no list of its own modules
        foreign = {name for m in _TREES for name in _imports(m) if name.split(".")[0] not in known}
        assert foreign == set()


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
    assert ast.get_docstring(tree), f"{module} does not say what it knows"
    annotated = any(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AnnAssign)) for node in tree.body)
    if annotated:  # X | None, say, cannot be evaluated on Python 3.9
        assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)


def test_docs__have_the_floors() -> None:
    page = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \| .* \|$", page, re.MULTILINE)
    told = [(int(floor), name) for floor, names in rows for name in re.findall(r"`(\w+)`", names)]
    assert told == [(floor, name) for floor, names in enumerate(_FLOORS) for name in names]
