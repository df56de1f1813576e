"""The rules of the package's layout: imports, the size of files, libraries, and writing to standard output."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

# Folders and top-level modules. Each may import what stands in its own line or in a line below, but not what stands
# beyond a "|" in its own line.
_LAYERS = """
    __main__
    cli
    adapter functions
    routing
    services
    auth
    network | messages
    config retrying environment
    errors interruptions waiting secret redaction fork version
"""
_MOST_FLOORS_IN_A_FOLDER = 4
_MOST_LINES_IN_A_FILE = 300
_TESTING = "gemini_sync.testing"
_EMULATOR = "gemini_sync.testing.emulator"
# The modules of the testing kit that stand between the requests library and the network.
_AT_THE_WIRE = tuple(f"{_TESTING}.{name}" for name in ("hook", "mocks", "recorder", "registering", "streaming"))
_IMPORTERS = {
    "requests": ("gemini_sync.network", *_AT_THE_WIRE),
    "urllib3": ("gemini_sync.network", *_AT_THE_WIRE),
    "sseclient": ("gemini_sync.messages.sse",),
    "tenacity": ("gemini_sync.retrying",),
    "responses": _AT_THE_WIRE,
    "yaml": (f"{_TESTING}.cassette.document",),
    "pytest": (f"{_TESTING}.cassette_fixture",),
}
_WRITERS = {"gemini_sync.cli.main", f"{_EMULATOR}.__main__"}
_STANDARD = getattr(sys, "stdlib_module_names", frozenset[str]())  # Python 3.9 has no such list

needs_the_list = pytest.mark.skipif(not _STANDARD, reason="this Python has no list of its own modules")


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).replace(".__init__", "")


_FILES = {_name(path): path for path in sorted((ROOT / "gemini_sync").rglob("*.py"))}
_TREES = {module: ast.parse(path.read_bytes()) for module, path in _FILES.items()}
_MODULES = [module for module in _FILES if module not in ("gemini_sync", _TESTING)]


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node except those under ``if TYPE_CHECKING``, which never run."""
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from _nodes(child)


def _imports(module: str) -> Iterator[str]:
    """The full names of the modules that ``module`` imports, also inside its functions."""
    for node in _nodes(_TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in _FILES else str(node.module) for name in names)


def _is_in(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


# -- imports

_PLACES = {
    name: (layer, column)
    for layer, line in enumerate(_LAYERS.split("\n"))
    for column, group in enumerate(line.split("|"))
    for name in group.split()
}


def _place(module: str) -> tuple[int, int]:
    name = module.split(".")[1]
    assert name in _PLACES, f"{module} has no layer yet: add {name} to _LAYERS and to docs/house.md"
    return _PLACES[name]


@pytest.mark.parametrize("module", [module for module in _MODULES if not _is_in(module, _TESTING)])
def test_imports__go_down_the_layers(module: str) -> None:
    layer, column = _place(module)
    for imported in _imports(module):
        if _is_in(imported, _TESTING):
            assert _is_in(module, "gemini_sync.cli"), f"{module} imports {imported}, which only gemini_sync.cli may"
        elif _is_in(imported, "gemini_sync"):
            assert imported != "gemini_sync", f"{module} imports gemini_sync, which imports everything"
            below, beside = _place(imported)
            allowed = below > layer or (below, beside) == (layer, column)
            assert allowed, f"{module} imports {imported}, which is not below it"


def test_imports__have_no_circle() -> None:
    sorter = graphlib.TopologicalSorter({module: set(_imports(module)) for module in _FILES})
    sorter.prepare()  # raises a CycleError that names the circle


def _floors(module: str, above: tuple[str, ...] = ()) -> int:
    """How many modules of its folder stand on one another, from ``module`` down; circles are not followed."""
    above = (*above, module)
    folder = module.rpartition(".")[0]
    beside = [name for name in _imports(module) if name in _FILES and name.rpartition(".")[0] == folder]
    return 1 + max((_floors(name, above) for name in beside if name not in above), default=0)


@pytest.mark.parametrize("module", [module for module in _MODULES if module.count(".") > 1])
def test_folder__has_few_floors(module: str) -> None:
    assert _floors(module) <= _MOST_FLOORS_IN_A_FOLDER


@needs_the_list
@pytest.mark.parametrize("module", [module for module in _MODULES if _is_in(module, _EMULATOR)])
def test_emulator__imports_the_standard_library_and_itself(module: str) -> None:
    imported = {name for name in _imports(module) if not _is_in(name, _EMULATOR)}
    assert {name for name in imported if name.partition(".")[0] not in _STANDARD} == set()


# -- libraries


@pytest.mark.parametrize("library", _IMPORTERS)
def test_library__has_one_importing_place(library: str) -> None:
    importers = {module for module in _FILES if any(_is_in(imported, library) for imported in _imports(module))}
    assert importers
    assert {module for module in importers if not any(_is_in(module, place) for place in _IMPORTERS[library])} == set()


@needs_the_list
def test_libraries__are_the_declared_ones() -> None:
    known = {"gemini_sync", *_IMPORTERS, *_STANDARD}
    imported = {name.partition(".")[0] for module in _FILES for name in _imports(module)}
    assert imported - known == set()


# -- files


@pytest.mark.parametrize("module", _FILES)
def test_file__has_at_most_300_lines(module: str) -> None:
    assert len(_FILES[module].read_text(encoding="utf-8").splitlines()) <= _MOST_LINES_IN_A_FILE


@pytest.mark.parametrize("module", _FILES)
def test_module__has_a_docstring_and_evaluates_no_annotation(module: str) -> None:
    tree = _TREES[module]
    assert ast.get_docstring(tree), f"{module} has no docstring"
    annotated = any(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AnnAssign)) for node in tree.body)
    if annotated:  # Python 3.9 cannot evaluate an annotation such as X | None
        assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)


def test_standard_output__is_written_by_commands_alone() -> None:
    writers = {
        module
        for module, tree in _TREES.items()
        for node in _nodes(tree)
        if (isinstance(node, ast.Name) and node.id == "print")
        or (isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.__stdout__"))
    }
    assert writers == _WRITERS


def test_docs__show_each_folder_and_file() -> None:
    page = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    names = {module.rpartition(".")[2] for module in _MODULES if not _is_in(module, _EMULATOR)} - {"__main__"}
    assert {name for name in names if name not in page} == set()
