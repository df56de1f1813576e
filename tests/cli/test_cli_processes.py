"""The command line in a process of its own: exit statuses, pipes, terminals and signals."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from gemini_sync import cli
from gemini_sync.testing.emulator import Emulator, default_text
from gemini_sync.version import VERSION
from tests.cli.cli_kit import ASK, POSIX, Captured, candidate, use_key
from tests.support import python_child, run_python


@pytest.fixture(autouse=True)
def with_key(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    use_key(emulator, monkeypatch)


# -- streams that end early


def answer_much(emulator: Emulator) -> None:
    """Answer with more than the buffer of a pipe holds."""
    chunks = [candidate("x" * 999 + "\n") for _ in range(300)]
    emulator.api_key.answer(chunks=[*chunks, candidate("end", finishReason="STOP")])


def test_closed_pipe__is_no_error(emulator: Emulator) -> None:
    answer_much(emulator)
    with python_child(*ASK, "hello") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "x" * 999 + "\n"
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait() == 0


def test_closed_stdout__is_no_error(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert cli.main(["ask", "hello"]) == 0
    assert capsys.readouterr().err == ""


def test_closed_stderr__changes_nothing_in_the_answer(
    emulator: Emulator, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.api_key.answer(text="The answer.", thoughts="Let me think.")
    monkeypatch.setattr("sys.stderr", None)
    assert cli.main(["ask", "--thoughts", "hello"]) == 0
    assert capsys.readouterr().out == "The answer.\n"


@POSIX
@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
@pytest.mark.parametrize("way", ["standard input", "argument"])
def test_prompt__bytes_that_are_no_text(locale: str, way: str) -> None:
    """Containers often have these locales, in which Python accepts any byte."""
    given = b"\xff\xfe prompt"
    arguments = ["-"] if way == "standard input" else [os.fsdecode(given)]
    done = run_python(*ASK, *arguments, given=os.fsdecode(given), errors="surrogateescape", env={"LC_ALL": locale})
    assert done.returncode == 2
    assert f"gemini-sync ask: error: {'the prompt' if way == 'argument' else way} is not utf-8 text" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk__is_one_error_line() -> None:
    with open("/dev/full", "w") as full:
        done = run_python(*ASK, "hello", stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("gemini-sync: ")
    assert done.stderr.count("\n") == 1


@POSIX
def test_interrupt__exit_status_is_130_and_there_is_no_traceback(emulator: Emulator) -> None:
    emulator.api_key.answer(chunks=[candidate("first\n"), candidate("never")])
    emulator.api_key.fail("stall", after=1)
    with python_child(*ASK, "hello") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "first\n"
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == ""
        assert child.wait() == 130


def test_encoding__characters_that_it_lacks_are_replaced(emulator: Emulator) -> None:
    emulator.api_key.answer(text="naïve \N{SNOWMAN}", thoughts="\N{SNOWMAN}?")
    done = run_python(*ASK, "--thoughts", "hello", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "na?ve ?\n", "??\n")


# -- terminals

HOSTILE = (
    "plain\ttext \x1b[31mred\x1b[0m \x1b]0;title\x07\x9b2J\x9d0;title\x9c"
    "\x1b]8;;no end \x1b(0 \r\x08\x7f\x85\u061c\u200e\u200f\u2028\u2029\u202e\u2066\u2069\U000e0041\U000e007foverride"
)
CLEAN = "plain\ttext red ]8;;no end (0 override"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a pseudo-terminal: one to read in the test, one for the program. It changes no newlines."""
    import pty
    import tty

    reading, writing = pty.openpty()
    tty.setraw(writing)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def shown(reading: int, until: bytes) -> str:
    data = b""
    while until not in data:
        data += os.read(reading, 4096)
    return data.decode()


@POSIX
def test_terminal__control_characters_are_removed(emulator: Emulator, terminal: tuple[int, int]) -> None:
    emulator.api_key.answer(text=HOSTILE, thoughts="deep \x1b[2Jthought")
    done = run_python(*ASK, "--thoughts", "hello", stdout=terminal[1], stderr=terminal[1])
    assert done.returncode == 0
    text = shown(terminal[0], b"override\n")
    assert text.startswith("\x1b[2mdeep\x1b[0m\x1b[2m thought\x1b[0m\n")
    assert text.endswith(f"\n{CLEAN}\n")


@POSIX
def test_terminal__control_characters_of_an_error_are_removed(emulator: Emulator, terminal: tuple[int, int]) -> None:
    emulator.api_key.fail(400, message="bad \x1b[2Jthing")
    done = run_python(*ASK, "hello", stderr=terminal[1])
    assert done.returncode == 1
    assert shown(terminal[0], b"\n").startswith("gemini-sync: 400 INVALID_ARGUMENT: bad [2Jthing")


def test_pipe__text_is_not_changed(emulator: Emulator, capsys: Captured) -> None:
    emulator.api_key.answer(text=HOSTILE)
    assert cli.main(["ask", "hello"]) == 0
    assert capsys.readouterr().out == HOSTILE + "\n"


# -- the other commands


@POSIX
def test_emulator__serves_until_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    with python_child("-m", "gemini_sync.cli", "emulator", "--port", "0") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        settings = {}
        for line in iter(child.stdout.readline, ""):
            name, _, value = line.removeprefix("export ").strip().partition("=")
            settings[name] = value
            if line.startswith("# The token endpoint"):
                break
        for name in ("GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL"):
            monkeypatch.setenv(name, settings[name])
        assert run_python(*ASK, "hello").stdout == default_text("hello") + "\n"
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == ""
        assert child.wait() == 0


def test_emulator__port_that_is_taken(capsys: Captured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.main(["emulator", "--port", str(taken.getsockname()[1])]) == 1
    assert capsys.readouterr().err.startswith("gemini-sync: ")


@pytest.mark.parametrize("module", ["gemini_sync", "gemini_sync.cli"])
def test_module__runs_as_a_program(module: str) -> None:
    done = run_python("-m", module, "--version")
    assert (done.returncode, done.stdout) == (0, f"gemini-sync {VERSION}\n")
