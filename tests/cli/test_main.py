"""The command line: what each command writes to standard output and standard error, and its exit status."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from gemini_sync import cli
from gemini_sync.testing.emulator import Emulator, default_text
from gemini_sync.version import VERSION
from tests.cli.cli_kit import ASK, Captured, candidate, use_key
from tests.support import run_python


@pytest.fixture(autouse=True)
def with_key(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    use_key(emulator, monkeypatch)


@pytest.fixture
def with_oauth(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment gets OAuth as well, with a credentials file at the default path."""
    monkeypatch.setenv("CODE_ASSIST_ENDPOINT", emulator.url)
    monkeypatch.setenv("GEMINI_OAUTH_CLIENT_ID", emulator.client_id)
    monkeypatch.setenv("GEMINI_OAUTH_CLIENT_SECRET", emulator.client_secret)
    return emulator.write_credentials(home / ".gemini" / "oauth_creds.json")


# -- output


def test_ask__streams_the_text_and_ends_the_line(capsys: Captured) -> None:
    assert cli.main(["ask", "hello"]) == 0
    assert capsys.readouterr() == (default_text("hello") + "\n", "")


def test_ask__text_that_ends_its_line_gets_no_second_newline(emulator: Emulator, capsys: Captured) -> None:
    emulator.api_key.answer(text="one line\n")
    assert cli.main(["ask", "hello"]) == 0
    assert capsys.readouterr().out == "one line\n"


def test_ask__each_piece_is_written_before_the_next_one_comes(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Semaphore(0)

    class Screen(io.StringIO):
        def flush(self) -> None:
            written.release()

    in_time: list[bool] = []
    emulator.api_key.answer(
        chunks=[candidate("one "), candidate("two "), candidate("three\n", finishReason="STOP")],
        pace=lambda index: in_time.append(index == 0 or written.acquire(timeout=10)),
    )
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    assert cli.main(["ask", "hello"]) == 0
    assert in_time == [True, True, True]
    assert screen.getvalue() == "one two three\n"


def test_ask__model_and_system_instruction_are_sent(emulator: Emulator) -> None:
    assert cli.main(["ask", "--model", "gemini-2.5-pro", "--system", "Be brief.", "hello"]) == 0
    (request,) = emulator.requests
    assert request.model == "gemini-2.5-pro"
    assert request.json["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert "generationConfig" not in request.json


def test_ask__json_writes_one_line_for_each_chunk(emulator: Emulator, capsys: Captured) -> None:
    chunks = [candidate("grüß\n"), candidate("\x9b31m\u2028", finishReason="STOP")]
    emulator.api_key.answer(chunks=chunks)
    assert cli.main(["ask", "--json", "hello"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == chunks


@pytest.mark.usefixtures("with_oauth")
def test_ask__json_over_oauth_is_unwrapped(emulator: Emulator, capsys: Captured) -> None:
    emulator.oauth.answer(chunks=[candidate("hi", finishReason="STOP")])
    assert cli.main(["ask", "--json", "hello"]) == 0
    assert json.loads(capsys.readouterr().out) == candidate("hi", finishReason="STOP")


def test_ask__thoughts_go_to_standard_error(emulator: Emulator, capsys: Captured) -> None:
    emulator.api_key.answer(text="The answer.", thoughts="Let me think.")
    assert cli.main(["ask", "--thoughts", "hello"]) == 0
    assert capsys.readouterr() == ("The answer.\n", "Let me think.\n")
    assert emulator.requests[0].json["generationConfig"] == {"thinkingConfig": {"includeThoughts": True}}


def test_ask__no_thoughts_without_the_option(emulator: Emulator, capsys: Captured) -> None:
    emulator.api_key.answer(text="The answer.", thoughts="Let me think.")
    assert cli.main(["ask", "hello"]) == 0
    assert capsys.readouterr() == ("The answer.\n", "")


def test_ask__fallback_is_one_line_on_standard_error(with_oauth: Path, capsys: Captured) -> None:
    with_oauth.write_text("{ this is no JSON")
    assert cli.main(["ask", "hello"]) == 0
    out, err = capsys.readouterr()
    assert out == default_text("hello") + "\n"
    assert err.startswith("gemini-sync: OAuth failed (CredentialsError: ")
    assert err.endswith("; the API key answers.\n")
    assert err.count("\n") == 1


def test_ask__link_of_the_fallback_is_shown(with_oauth: Path, emulator: Emulator, capsys: Captured) -> None:
    emulator.oauth.fail(403, reason="VALIDATION_REQUIRED", link="https://example.com/validate", times=None)
    assert cli.main(["ask", "hello"]) == 0
    assert capsys.readouterr().err.count("https://example.com/validate") == 1


@pytest.mark.parametrize("reason", ["MAX_TOKENS", "CONTINUATION"])
def test_ask__partial_answer_is_a_notice_and_no_error(emulator: Emulator, capsys: Captured, reason: str) -> None:
    emulator.api_key.answer(text="Half an ans", finish_reason=reason)
    assert cli.main(["ask", "hello"]) == 0
    out, err = capsys.readouterr()
    assert out == "Half an ans\n"
    assert err.startswith("gemini-sync: the answer is cut off, because ")
    assert err.endswith(f" ({reason}).\n")


def test_ask__each_stream_begins_a_line_on_a_shared_screen(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator.api_key.answer(text="Half an ans", thoughts="Let me think.", finish_reason="MAX_TOKENS")
    screen = io.StringIO()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("sys.stderr", screen)
    assert cli.main(["ask", "--thoughts", "hello"]) == 0
    thoughts, text, notice = screen.getvalue().splitlines()
    assert (thoughts, text) == ("Let me think.", "Half an ans")
    assert notice.startswith("gemini-sync: the answer is cut off")


# -- the prompt


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_prompt__comes_from_standard_input(
    arguments: list[str], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    assert cli.main(["ask", *arguments]) == 0
    assert emulator.requests[0].json["contents"] == [{"role": "user", "parts": [{"text": "two\nlines\n"}]}]


def test_prompt__comes_through_a_real_pipe(emulator: Emulator) -> None:
    done = run_python(*ASK, given="from a pipe: ü")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == default_text("from a pipe: ü") + "\n"


def test_prompt__argument_wins_over_standard_input(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("piped"))
    assert cli.main(["ask", "given"]) == 0
    assert emulator.requests[0].json["contents"][0]["parts"] == [{"text": "given"}]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def not_text() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        (["ask"], Terminal(), "give a prompt"),
        (["ask"], None, "give a prompt"),
        (["ask", "-"], None, "give a prompt"),
        (["ask"], io.StringIO(" \n"), "the prompt is empty"),
        (["ask", ""], None, "the prompt is empty"),
        (["ask", "-"], not_text(), "standard input is not utf-8 text"),
        (["ask", "why", "not"], None, "unrecognized arguments: not"),
        (["ask", "--loud", "why"], None, "unrecognized arguments: --loud"),
        ([], None, "COMMAND"),
        (["sing"], None, "sing"),
    ],
)
def test_usage__wrong_arguments(
    arguments: list[str],
    stdin: Any,
    complaint: str,
    emulator: Emulator,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert (exit_.value.code, out) == (2, "")
    assert complaint in err
    assert not emulator.requests


def test_version(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"gemini-sync {VERSION}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize(("command", "option"), [("emulator", "--port"), ("ask", "--thoughts")])
def test_help__of_a_command_shows_its_options(command: str, option: str, flag: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, flag])
    assert exit_.value.code == 0
    assert option in capsys.readouterr().out


# -- failures


def test_failure__before_any_text_is_one_line(emulator: Emulator, capsys: Captured) -> None:
    emulator.api_key.fail(400, message="Not\nlike this.")
    assert cli.main(["ask", "hello"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gemini-sync: 400 INVALID_ARGUMENT: Not like this.")
    assert err.count("\n") == 1


def test_failure__in_the_middle_of_the_text(emulator: Emulator, capsys: Captured) -> None:
    emulator.api_key.answer(chunks=[candidate("half a sen"), candidate("tence", finishReason="STOP")])
    emulator.api_key.fail("reset", after=1)
    assert cli.main(["ask", "hello"]) == 1
    out, err = capsys.readouterr()
    assert out == "half a sen\n"
    assert "interrupted" in err


def test_failure__blocked_answer(emulator: Emulator, capsys: Captured) -> None:
    emulator.api_key.answer(text="So far", finish_reason="SAFETY")
    assert cli.main(["ask", "hello"]) == 1
    out, err = capsys.readouterr()
    assert out == "So far\n"
    assert "SAFETY" in err


def test_failure__setting_that_cannot_be_used(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://example.com")
    assert cli.main(["ask", "hello"]) == 1
    assert "https://" in capsys.readouterr().err


def test_no_credentials__message_says_what_to_set(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    assert cli.main(["ask", "hello"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    for name in (
        "GEMINI_API_KEY",
        "~/.gemini/oauth_creds.json",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GEMINI_OAUTH_CLIENT_ID",
        "GEMINI_OAUTH_CLIENT_SECRET",
        "gemini-sync demo",
    ):
        assert name in err
