"""The sample project of the docs, run as a user would run it: in an environment of its own, with what pip installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

_SOURCES = ("gemini_sync", "gemini_sync_pytest.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
_SAMPLE = ROOT / "docs" / "sample_project"
_INSTALL_SECONDS = 300.0
_RUN_SECONDS = 180.0


def _run(*arguments: object, seconds: float = _RUN_SECONDS, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    return subprocess.run(
        [str(argument) for argument in arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        **options,  # type: ignore[call-overload]
    )


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Python with the package and its extra installed, and a copy of the sample project."""
    folder = tmp_path_factory.mktemp("sample")
    made = _run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    if made.returncode:
        pytest.skip(f"this Python makes no virtual environment: {made.stdout or made.stderr}")
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--retries=1")
    install = (*pip, "install", "-q", "--no-compile")
    source = folder / "source"
    source.mkdir()
    for name in _SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    # A machine that is offline can install none of these. What fails after them is a fault of the package.
    needed = [*_requirements(), "setuptools>=64", "wheel"]
    installed = _run(*install, *needed, seconds=_INSTALL_SECONDS)
    if installed.returncode:
        pytest.skip(f"pip cannot install the libraries of the package: {installed.stderr.strip().splitlines()[-1:]}")
    installed = _run(*install, "--no-build-isolation", f"{source}[testing]", "pytest-xdist")
    assert installed.returncode == 0, installed.stderr
    shutil.copytree(_SAMPLE, folder / "project", ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    return python, folder / "project"


def _requirements() -> list[str]:
    """What setup.cfg and the sample ask for, without the package itself."""
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    blocks = re.findall(r"^(?:install_requires|testing) =\n((?:    .*\n)+)", setup, re.MULTILINE)
    assert len(blocks) == 2
    sample = (_SAMPLE / "requirements.txt").read_text(encoding="utf-8").split()
    return [*"".join(blocks).split(), *(name for name in sample if not name.startswith("gemini-sync"))]


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_sample__passes_as_a_user_runs_it(sample: tuple[Path, Path], arguments: tuple[str, ...]) -> None:
    python, project = sample
    done = _run(python, "-m", "pytest", "-rA", *arguments, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    names = re.findall(r"^def (test_\w+)", (_SAMPLE / "test_answers.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name in names if f"PASSED test_answers.py::{name}" not in done.stdout} == set()
    assert len(names) >= 6
    assert "not used" not in done.stdout


_CHANGED = """
import pytest
from answers import answer
from gemini_sync import GeminiDualAdapter

def ask(question):
    with GeminiDualAdapter("any-key", model="gemini-2.0-flash") as adapter:
        return answer(adapter, question)

def test_other_question(gemini_cassette):
    ask("What is the capital of Utah?")

def test_unused(gemini_cassette):
    pass

def test_real_host():
    ask("What is the capital of Utah?")

def test_no_recording(gemini_cassette):
    pass
"""


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_sample__failures_tell_what_to_do(sample: tuple[Path, Path], arguments: tuple[str, ...]) -> None:
    python, project = sample
    (project / "test_changed.py").write_text(_CHANGED, encoding="utf-8")
    recording = project / "test_answers.test_recorded_answer.yaml"
    for name in ("test_other_question", "test_unused"):
        shutil.copy(recording, project / f"test_changed.{name}.yaml")
    done = _run(python, "-m", "pytest", *arguments, "test_changed.py", cwd=project)
    assert re.search(r"2 failed, 1 passed, 1 error in", done.stdout), done.stdout
    assert 'recorded "What is the capital of Wyoming?", sent "What is the capital of Utah?"' in done.stdout
    assert "would have reached generativelanguage.googleapis.com" in done.stdout
    assert "Record it with your credentials: pytest --gemini-record=once" in done.stdout
    assert "gemini_sync: not used: test_changed.test_unused.yaml: exchange 1 (POST https://" in done.stdout


def test_sample__plugin_can_be_left_out(sample: tuple[Path, Path]) -> None:
    python, project = sample
    done = _run(python, "-m", "pytest", "-p", "no:gemini_sync_pytest", "--fixtures", cwd=project)
    assert "gemini_cassette" not in done.stdout
