"""What importing the testing kit imports, and what is said if an extra is missing."""

from __future__ import annotations

import pytest

import gemini_sync.testing
from tests.support import run_python

SHOW = "import sys; print(*sorted({'yaml', 'responses', 'pytest', 'requests', 'hypothesis'} & set(sys.modules)))"


@pytest.mark.parametrize(
    ("code", "imported"),
    [
        ("from gemini_sync.testing.emulator import Emulator", "requests"),
        ("from gemini_sync.testing import Emulator", "requests"),
        ("from gemini_sync.testing import CassetteError", "requests"),
        ("from gemini_sync.testing import record", "requests yaml"),
        ("from gemini_sync.testing import replay", "requests responses yaml"),
        ("from gemini_sync.testing import broken, faults", "requests yaml"),
        ("from gemini_sync.testing import add_error, add_stream", "requests responses yaml"),
    ],
)
def test_import__takes_what_is_used(code: str, imported: str) -> None:
    done = run_python("-c", f"{code}; {SHOW}")
    assert (done.stdout.strip(), done.stderr) == (imported, "")


@pytest.mark.parametrize(("name", "missing"), [("record", "yaml"), ("replay", "yaml"), ("replay", "responses")])
def test_import__without_the_extra(name: str, missing: str) -> None:
    done = run_python("-c", f"import sys; sys.modules[{missing!r}] = None\nfrom gemini_sync.testing import {name}")
    needed = "pip install 'gemini-sync[testing]'"
    assert f"gemini_sync.testing.{name} needs {missing}, which is not installed: {needed}" in done.stderr


def test_names__are_all_there() -> None:
    assert [getattr(gemini_sync.testing, name).__name__ for name in gemini_sync.testing.__all__]
    with pytest.raises(AttributeError, match="has no attribute 'rekord'"):
        _ = gemini_sync.testing.rekord
