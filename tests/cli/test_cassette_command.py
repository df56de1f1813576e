"""The command ``cassette``: what it shows, what it finds, and what it scrubs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemini_sync import cli
from gemini_sync.testing import Emulator, record
from gemini_sync.testing.cassette.storing import load, save
from gemini_sync.testing.cassette.values import Body, Cassette, Exchange, Failure, Request, Response
from tests.cli.cli_kit import Captured
from tests.support import ROOT, run_python
from tests.testing.cassette_kit import ask, event

VCRPY = ROOT / "tests" / "testing" / "cassettes" / "vcrpy.json"
KEY = "AI" + "zaSyCanary-0123456789"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tape.yaml"


def test_show__each_exchange_in_a_few_lines(emulator: Emulator, path: Path, capsys: Captured) -> None:
    emulator.oauth.answer(text="Because\nof \x1b[31mRayleigh. " + "x" * 200)
    emulator.oauth.fail(503, message="Overloaded.", times=1)
    with record(path):
        "".join(ask(emulator.urls, "oauth", emulator.issue_token(), "Why is the sky blue?"))
    tape = load(path)
    lost = Exchange(Request("GET", "https://host/a"), Failure("ConnectionError", "Connection refused"))
    cut = Exchange(Request("POST", "https://host/b"), Response(200, {}, Body((event("one"),), (1.25,), "cut")))
    save(Cassette((*tape.exchanges, lost, cut)), path)
    assert cli.main(["cassette", "show", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"{path}: 4 exchanges\n" in out
    assert out.count("POST code_assist streamGenerateContent gemini-3.8-flash\n   asked: Why is the sky blue?\n") == 2
    assert "   answered: Overloaded.\n   status 503, 1 part, " in out
    assert "   answered: Because of [31mRayleigh. xxx" in out
    assert "3. GET host/a\n   no response: ConnectionError: Connection refused\n" in out
    size = len(event("one"))
    assert "4. POST host/b\n   answered: one\n" in out
    assert f"   status 200, 1 event, {size} bytes in 1 segment, 1.2 s, end: cut\n" in out
    assert max(map(len, out.splitlines())) < 130


def test_check__finds_nothing_in_what_was_recorded(emulator: Emulator, path: Path, capsys: Captured) -> None:
    with record(path):
        "".join(ask(emulator.urls, "api_key", emulator.key))
    assert cli.main(["cassette", "check", str(path)]) == 0
    assert capsys.readouterr() == (f"{path}: 1 exchange, no secret found\n", "")


def test_check__names_each_place(path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "key-of-the-environment")
    sent = Request("POST", f"https://host/?key={KEY}", {"X-Goog-Api-Key": KEY}, b'{"access_token": "abc"}')
    response = Response(200, {"Location": "https://a:bcdef@host/"}, Body((b"key-of-the-environment",)))
    clean = Exchange(Request("GET", "https://host/"), Failure("ConnectionError", "Write to a@b.example.com"))
    save(Cassette((Exchange(sent, response), clean)), path)
    assert cli.main(["cassette", "check", str(path)]) == 1
    out, err = capsys.readouterr()
    told = [
        line.removeprefix(f"{path}: ").removesuffix(" holds what is or looks like a secret")
        for line in out.splitlines()
    ]
    assert told == [
        "the URL of request 1",
        "the body of request 1",
        "the header X-Goog-Api-Key of request 1",
        "the header Location of response 1",
        "the body of response 1",
        "the body of response 2",
    ]
    assert err == f"gemini-sync: 6 places to scrub: gemini-sync cassette scrub {path}\n"
    assert cli.main(["cassette", "scrub", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: 6 places scrubbed\n   the URL of request 1\n")
    assert cli.main(["cassette", "check", str(path)]) == 0
    assert KEY not in path.read_text()


def test_scrub__writes_another_file(path: Path, capsys: Captured) -> None:
    before = VCRPY.read_bytes()
    assert cli.main(["cassette", "scrub", str(VCRPY), "--output", str(path)]) == 0
    assert VCRPY.read_bytes() == before
    assert path.read_text().startswith("# Recorded responses")
    assert "emulator-api-key" not in path.read_text()
    assert len(load(path).exchanges) == 1


@pytest.mark.parametrize("action", ["show", "check", "scrub"])
def test_mistake__is_one_line(action: str, path: Path, capsys: Captured) -> None:
    path.write_text("gemini_sync_cassette: 99\n")
    assert cli.main(["cassette", action, str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"gemini-sync: The cassette {path}, line 1: it has format 99")
    assert err.count("\n") == 1


def test_command__without_pyyaml(path: Path) -> None:
    hidden = "import sys; sys.modules['yaml'] = None\nfrom gemini_sync.cli import main\n"
    done = run_python("-c", f"{hidden}sys.exit(main(['cassette', 'show', 'x']))")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gemini-sync: The command needs PyYAML: pip install 'gemini-sync[testing]'.\n"
