"""The pytest plugin: small test files that are run with it, as a user would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable

import pytest

from gemini_sync.testing.cassette.storing import load, save
from gemini_sync.testing.cassette.values import Cassette
from tests.support import run_python
from tests.testing.cassette_kit import event, exchange, tape_of

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]

ASK = """
from gemini_sync import GeminiSyncError, Endpoints, Retry, stream_gemini_api_key

def ask(prompt="Why?", **settings):
    return "".join(stream_gemini_api_key(prompt, "a-key-of-mine", "m", retry=Retry(max_attempts=1), **settings))
"""


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Path:
    return pytester.path


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Writes test_app.py and runs it with the plugin."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def start(code: str, *arguments: str) -> pytest.RunResult:
        pytester.makeini("[pytest]\naddopts = --strict-markers --strict-config -p no:cacheprovider")
        pytester.makepyfile(test_app=f"import pytest\n{ASK}\n{code}")
        return pytester.runpytest_inprocess("-p", "gemini_sync_pytest", *arguments)

    return start


def tape(folder: Path, name: str, *texts: str) -> Path:
    path = folder / f"test_app.{name}.yaml"
    save(tape_of(*(exchange([event(text, "STOP")]) for text in texts)), path)
    return path


def counts(done: pytest.RunResult) -> dict[str, int]:
    return {name: number for name, number in done.parseoutcomes().items() if name != "warnings"}


# -- loading


def test_loading__imports_nothing_that_pytest_has_not_imported() -> None:
    code = "import pytest, sys; before = set(sys.modules); import gemini_sync_pytest; print(*set(sys.modules) - before)"
    done = run_python("-c", code)
    assert (done.stdout.split(), done.stderr) == (["gemini_sync_pytest"], "")


# -- the emulator and the adapter


def test_adapter__is_wired_to_the_emulator(run: Run) -> None:
    done = run(
        """
def test_both_routes(gemini_adapter, gemini_emulator):
    gemini_emulator.oauth.fail(429, reason="QUOTA_EXHAUSTED")
    gemini_emulator.api_key.fail(503)
    gemini_emulator.api_key.answer(text="Hello.")
    reply = gemini_adapter.generate("Hi")
    assert (reply.text, reply.route, gemini_adapter.fallback_active) == ("Hello.", "api_key", True)

def test_next_one_is_new(gemini_adapter, gemini_emulator):
    assert gemini_adapter.generate("Hi").route == "oauth"
    assert len(gemini_emulator.oauth.requests) == 1
"""
    )
    assert counts(done) == {"passed": 2}, done.stdout.str()


# -- cassettes


def test_cassette__beside_the_test_and_named_after_it(run: Run, folder: Path) -> None:
    tape(folder, "test_plain", "plain")
    tape(folder, "TestIn.test_class", "class")
    tape(folder, "test_many-a%2Fb", "many")
    tape(folder, "test_many-a-b", "more")
    done = run(
        """
def test_plain(gemini_cassette):
    assert ask() == "plain"

class TestIn:
    def test_class(self, gemini_cassette):
        assert ask() == "class"

@pytest.mark.gemini_cassette
@pytest.mark.parametrize(("name", "text"), [("a/b", "many"), ("a-b", "more")], ids=["a/b", "a-b"])
def test_many(name, text):
    assert ask() == text
"""
    )
    assert counts(done) == {"passed": 4}, done.stdout.str()
    assert "not used" not in done.stdout.str()


def test_cassette__of_a_long_name(run: Run, folder: Path) -> None:
    done = run(
        """
@pytest.mark.parametrize("text", ["a", "b"], ids=["x" * 200, "x" * 201])
def test_it(gemini_cassette, text):
    pass
"""
    )
    missing = re.findall(r"There is no cassette \S*/(test_app\.test_it-x+-[0-9a-f]{12}\.yaml)", done.stdout.str())
    assert len({*missing}) == 2
    assert all(len(name) < 200 for name in missing)


def test_cassette__that_is_missing_says_how_to_record_it(run: Run, folder: Path) -> None:
    done = run("def test_it(gemini_cassette): pass")
    assert counts(done) == {"errors": 1}
    path = folder / "test_app.test_it.yaml"
    assert (
        f"There is no cassette {path}. Record it with your credentials: pytest --gemini-record=once"
        in done.stdout.str()
    )


def test_marker__arguments_reach_the_replay(run: Run, folder: Path) -> None:
    tape(folder, "test_it", "one")
    done = run(
        """
@pytest.mark.gemini_cassette(match=("method", "service"), pace=0, allow_repeats=True)
def test_it(gemini_cassette):
    assert [ask("How?"), ask("What?")] == ["one", "one"]
    assert gemini_cassette.unused == []
"""
    )
    assert counts(done) == {"passed": 1}, done.stdout.str()


@pytest.mark.parametrize("arguments", ["'a.yaml'", "speed=1"])
def test_marker__with_an_argument_that_it_does_not_have(run: Run, arguments: str) -> None:
    done = run(f"@pytest.mark.gemini_cassette({arguments})\ndef test_it(): pass")
    assert counts(done) == {"errors": 1}
    assert "takes match, pace, allow_repeats, scrub, keep_headers by name" in done.stdout.str()


def test_unused_exchanges__are_named_at_the_end(run: Run, folder: Path) -> None:
    tape(folder, "test_it", "one", "two")
    tape(folder, "test_failed", "one")
    done = run(
        """
def test_it(gemini_cassette):
    assert ask() == "one"

def test_failed(gemini_cassette):
    assert False
"""
    )
    assert counts(done) == {"passed": 1, "failed": 1}
    (line,) = re.findall("gemini_sync: not used: .*", done.stdout.str())
    assert "test_app.test_it.yaml: exchange 2 (POST https://generativelanguage.googleapis.com/" in line


def test_unmatched_request__fails_also_if_the_code_catches_it(run: Run, folder: Path) -> None:
    tape(folder, "test_it", "one")
    done = run(
        """
def test_it(gemini_cassette):
    try:
        ask("How?")
    except Exception:
        pass
"""
    )
    assert counts(done) == {"failed": 1}
    assert "UnmatchedRequest" in done.stdout.str()
    assert 'recorded "Why?", sent "How?"' in done.stdout.str()


# -- recording

RECORDED = """
import os

@pytest.mark.gemini_cassette(scrub=[("Jane", "NAME")], keep_headers=["x-mine"])
def test_it(gemini_cassette):
    try:
        text = ask(endpoints=Endpoints(gemini=os.environ["EMULATOR"]))
    except GeminiSyncError:
        text = "failed"
    assert text == os.environ["EXPECTED"]
"""


@pytest.fixture
def record_with(run: Run, emulator: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    emulator.key = "a-key-of-mine"
    emulator.models = ["m"]

    def start(mode: str, text: str, expected: str | None = None) -> pytest.RunResult:
        emulator.api_key.answer(text=text)
        monkeypatch.setenv("EMULATOR", emulator.url)
        monkeypatch.setenv("EXPECTED", text if expected is None else expected)
        return run(RECORDED, f"--gemini-record={mode}")

    return start


def test_record__once_and_then_from_the_file(record_with: Any, emulator: Any, folder: Path) -> None:
    path = folder / "test_app.test_it.yaml"
    assert counts(record_with("none", "first")) == {"errors": 1}
    assert counts(record_with("once", "first")) == {"passed": 1}
    assert len(load(path).exchanges) == 1
    assert b"a-key-of-mine" not in path.read_bytes()
    assert counts(record_with("once", "second", expected="first")) == {"passed": 1}
    assert counts(record_with("none", "second", expected="first")) == {"passed": 1}
    assert len(emulator.api_key.requests) == 1


def test_record__rewrite_replaces_the_file(record_with: Any, folder: Path) -> None:
    assert counts(record_with("rewrite", "first")) == {"passed": 1}
    assert counts(record_with("rewrite", "second")) == {"passed": 1}
    (only,) = load(folder / "test_app.test_it.yaml").exchanges
    assert b"second" in only.response.body.data


def test_record__test_that_fails_saves_nothing(record_with: Any, folder: Path) -> None:
    assert counts(record_with("rewrite", "first")) == {"passed": 1}
    before = (folder / "test_app.test_it.yaml").read_bytes()
    assert counts(record_with("rewrite", "second", expected="other")) == {"failed": 1}
    assert (folder / "test_app.test_it.yaml").read_bytes() == before


def test_option__takes_three_words(run: Run) -> None:
    done = run("", "--gemini-record=always")
    assert done.ret == 4
    assert "invalid choice: 'always'" in done.stderr.str()


def test_help__names_options_and_markers(run: Run) -> None:
    done = run("", "--help")
    assert "--gemini-record={none,once,rewrite}" in done.stdout.str()
    assert "gemini_guard (bool)" in done.stdout.str()
    assert "@pytest.mark.gemini_live" in run("", "--markers").stdout.str()
    assert "gemini_cassette" in run("", "--fixtures").stdout.str()


def test_empty_cassette__is_none_of_the_report(run: Run, folder: Path) -> None:
    save(Cassette(), folder / "test_app.test_it.yaml")
    done = run("def test_it(gemini_cassette): assert not gemini_cassette.unused")
    assert counts(done) == {"passed": 1}, done.stdout.str()
    assert "not used" not in done.stdout.str()
