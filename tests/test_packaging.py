"""What is installed, what is in the repository, and the examples of README and docs, which must run."""

from __future__ import annotations

import configparser
import importlib.metadata
import inspect
import os
import re
import signal
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import gemini_sync
from gemini_sync.testing import Emulator
from tests.support import ROOT, python_child, run_python

README = (ROOT / "README.md").read_text(encoding="utf-8")
TOP_LEVEL = {
    *(".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "docs", "gemini_sync", "pyproject.toml"),
    *("gemini_sync_pytest.py", "setup.cfg", "tests", "tox.ini"),
}


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def committable() -> Iterator[Path]:
    """The files of the checkout that .gitignore does not name; this works without git."""
    patterns = [".git", *((ROOT / ".gitignore").read_text().replace("/", "").split())]
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not any(fnmatch(name, pattern) for pattern in patterns)]
        yield from (Path(folder, name) for name in files if not any(fnmatch(name, pattern) for pattern in patterns))


def test_dependencies__are_the_four_libraries(setup_cfg: configparser.ConfigParser) -> None:
    stated = setup_cfg["options"]["install_requires"].split()
    assert stated == ["requests>=2.32.3", "sseclient-py>=1.8,<2", "tenacity>=8.5", "urllib3>=2.3"]


def test_metadata__of_the_installed_package() -> None:
    if not _installed():
        pytest.skip("gemini-sync can be imported here, but it is not installed")
    distribution = importlib.metadata.distribution("gemini-sync")
    assert distribution.version == gemini_sync.__version__
    assert distribution.metadata["Requires-Python"] == ">=3.9"
    required = [line for line in distribution.requires or () if "extra ==" not in line]
    assert sorted(required) == ["requests>=2.32.3", "sseclient-py<2,>=1.8", "tenacity>=8.5", "urllib3>=2.3"]
    (script,) = (point for point in distribution.entry_points if point.group == "console_scripts")
    assert (script.name, script.value) == ("gemini-sync", "gemini_sync.cli:main")


def _installed() -> bool:
    try:
        importlib.metadata.distribution("gemini-sync")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def test_import__needs_the_declared_dependencies_only() -> None:
    """The libraries of the extras are not imported, nor argparse, nor the testing kit."""
    code = "import gemini_sync, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert imported.isdisjoint({"google", "pytest", "responses", "yaml", "hypothesis", "trustme", "argparse"})
    assert "gemini_sync.testing" not in imported


def test_typed__marker_is_in_the_package() -> None:
    assert (ROOT / "gemini_sync" / "py.typed").is_file()


def test_packages__are_all_found() -> None:
    """A folder without ``__init__.py`` would be missing in the wheel."""
    folders = {path.parent for path in (ROOT / "gemini_sync").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


# -- the repository


def test_tree__holds_no_secret() -> None:
    shapes = re.compile(rb"GOCSPX-[\w-]{6,}|AIza[0-9A-Za-z_-]{30,}|ya29\.[\w-]{30,}")
    files = list(committable())
    assert len(files) > 50
    assert [path for path in files if shapes.search(path.read_bytes())] == []


def test_tree__top_level_has_no_other_file() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in committable()}
    assert names <= TOP_LEVEL


def test_version__is_three_numbers_and_the_changelog_has_an_unreleased_part() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", gemini_sync.__version__)
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# -- README and docs


def _python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def user(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The environment of a user who has both credentials; all requests go to the emulator."""
    emulator.write_credentials(home / ".gemini" / "oauth_creds.json")
    for name, value in {
        "GEMINI_API_KEY": emulator.key,
        "GOOGLE_GEMINI_BASE_URL": emulator.url,
        "CODE_ASSIST_ENDPOINT": emulator.url,
        "GEMINI_OAUTH_CLIENT_ID": emulator.client_id,
        "GEMINI_OAUTH_CLIENT_SECRET": emulator.client_secret,
    }.items():
        monkeypatch.setenv(name, value)
    return {}


def test_readme__first_example(user: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    exec(_python_blocks(README)[0], user)
    out = capsys.readouterr().out
    assert "You asked: Why is the sky blue?" in out
    assert out.rstrip().endswith("oauth")
    user["adapter"].close()


def test_readme__examples_of_tests(tmp_path: Path) -> None:
    (tmp_path / "test_readme.py").write_text(_python_blocks(README)[-1], encoding="utf-8")
    done = run_python("-m", "pytest", "-p", "gemini_sync_pytest", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("page", ["quickstart.md", "streaming.md", "testing.md"])
def test_docs__examples_run(user: dict[str, Any], page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    blocks = _python_blocks((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:  # a block uses the names of the blocks before it
        exec(block, user)
    for test in [value for name, value in user.items() if name.startswith("test_")]:
        if not inspect.signature(test).parameters:
            test()
    user["adapter"].close()


@pytest.mark.parametrize("fault", ["headers", "body"])
def test_docs__example_with_a_pool_ends_at_ctrl_c(user: dict[str, Any], emulator: Emulator, fault: str) -> None:
    (block,) = _python_blocks((ROOT / "docs" / "streaming.md").read_text(encoding="utf-8"))
    # More prompts than threads, so that some still wait in the pool.
    block = block.replace("prompts = [", "prompts = ['Say something.'] * 20 + [")
    emulator.oauth.answer(text="one two")
    emulator.oauth.fail("stall", times=None, after=None if fault == "headers" else 1)
    with python_child("-c", block) as child:
        assert emulator.oauth.wait_for(8, timeout=30)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate()
    assert (child.returncode, out) == (-signal.SIGINT, "")
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert len(emulator.oauth.requests) == 8
    assert emulator.api_key.requests == []


def test_examples__that_need_real_credentials_compile() -> None:
    blocks = [*_python_blocks(README), *_python_blocks((ROOT / "docs" / "credentials.md").read_text(encoding="utf-8"))]
    assert len(blocks) >= 4
    for block in blocks:
        compile(block, "example", "exec")


def test_readme__two_commands_for_the_demo_and_the_tests() -> None:
    commands = re.findall(r"^python3 -m venv \.venv && .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("gemini-sync demo")
    assert "pytest" in commands[1]


def test_docs__name_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE))
    assert documented == set(gemini_sync.__all__)
