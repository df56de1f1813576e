"""Knows the command line: arguments, which stream gets what, exit statuses; knows nothing of how an answer comes."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Optional, TextIO

from gemini_sync.adapter import GeminiDualAdapter
from gemini_sync.errors import GeminiSyncError
from gemini_sync.reply import Reply
from gemini_sync.sticky import FallbackEvent
from gemini_sync.version import VERSION

DONE, FAILED, INTERRUPTED = 0, 1, 130  # wrong usage is 2, by argparse

# What could move a terminal's cursor, recolour, retitle or reorder it: escape sequences, then every control character
# but newline and tab, and the bidirectional overrides and isolates.
_UNSAFE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\x9d]*(?:\x07|\x1b\\|\x9c)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)


class Output:
    """A standard stream, written and flushed piece by piece, and cleaned of control characters where it is a terminal.

    As a context manager it ends the last line. A write that fails raises OSError (BrokenPipeError where the reader has
    gone) if ``required``; else it is dropped, since nobody could read about it.
    """

    def __init__(self, stream: Optional[TextIO], *, required: bool) -> None:
        self._stream, self._required = stream, required
        self._terminal = stream is not None and stream.isatty()
        self._in_line = False
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an answer may hold what the locale's encoding does not

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end_line()

    def write(self, text: str, *, dim: bool = False) -> None:
        if self._terminal:
            text = _UNSAFE.sub("", text)
        if not text:
            return
        self._in_line = not text.endswith("\n")
        try:
            if self._stream is None:
                raise BrokenPipeError("The stream is closed.")
            self._stream.write(f"\x1b[2m{text}\x1b[0m" if dim and self._terminal else text)
            self._stream.flush()
        except OSError:
            self._abandon()
            if self._required:
                raise

    def end_line(self) -> None:
        """Start a new line, unless at the start of one."""
        if self._in_line:
            self.write("\n")

    def _abandon(self) -> None:
        """Let what is left go nowhere: the interpreter would try it again, and complain, on its way out."""
        stream, self._stream = self._stream, None
        self._in_line = False
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:  # no descriptor, no flush at exit
                os.dup2(nowhere.fileno(), stream.fileno())


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line ``argv`` (default: the process's own).

    Returns the exit status: 0 done (also when the reader of a pipe had enough), 1 failed, 130 interrupted. Raises
    SystemExit: 2 for wrong usage, 0 after ``--help`` and ``--version``.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if options.command == "emulator":
        options.arguments = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    error_output = Output(sys.stderr, required=False)
    try:
        with Output(sys.stdout, required=True) as output, error_output:
            return int(options.run(options, output, error_output))
    except BrokenPipeError:
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except (GeminiSyncError, OSError) as exc:
        error_output.write(f"gemini-sync: {' '.join(str(exc).split())}\n")
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gemini-sync", description="Stream Gemini to the terminal.")
    parser.add_argument("--version", action="version", version=f"gemini-sync {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    ask = commands.add_parser("ask", help="stream the answer to a prompt to standard output")
    ask.add_argument("prompt", nargs="?", help="the prompt; '-', or none with a pipe, reads standard input")
    ask.add_argument("--model", help="the model to ask (default: GEMINI_MODEL, else the package's)")
    ask.add_argument("--system", metavar="TEXT", help="a system instruction")
    ask.add_argument("--json", action="store_true", help="write each chunk as it came, as one line of JSON")
    ask.add_argument("--thoughts", action="store_true", help="ask for thought summaries, on standard error")
    ask.set_defaults(run=_ask, refuse=ask.error)
    demo = commands.add_parser("demo", help="see the fallback happen, on an emulator, without credentials")
    demo.set_defaults(run=_demo)
    emulator = commands.add_parser("emulator", help="serve both Gemini endpoints on this machine", add_help=False)
    emulator.set_defaults(run=_emulator)
    return parser


def _ask(options: argparse.Namespace, output: Output, error_output: Output) -> int:
    prompt = _prompt(options)
    thinking: Any = {"thinkingConfig": {"includeThoughts": True}} if options.thoughts else None

    def tell(event: FallbackEvent) -> None:
        # Not the event's own words: the session is this one command, and cannot be reset.
        link = f" See {event.link}" if event.link and event.link not in event.reason else ""
        error_output.write(f"gemini-sync: OAuth failed ({event.reason}); the API key answers.{link}\n")

    with (
        GeminiDualAdapter.from_env(on_fallback=tell) as adapter,
        adapter.stream(
            prompt, model=options.model, system_instruction=options.system, generation_config=thinking
        ) as reply,
    ):
        if options.json:
            for chunk in reply.chunks():
                output.write(json.dumps(chunk.raw) + "\n")
        else:
            _stream(reply, options.thoughts, output, error_output)
    return DONE


def _stream(reply: Reply, thoughts: bool, output: Output, error_output: Output) -> None:
    for chunk in reply.chunks():
        if thoughts:
            error_output.write(chunk.thoughts, dim=True)
        if chunk.text:
            error_output.end_line()
            output.write(chunk.text)
    next(reply, None)  # raises the verdict on the whole answer: blocked, failed or empty
    if reply.finish_reason == "MAX_TOKENS":
        output.end_line()
        error_output.write("gemini-sync: the answer ends early: it reached the limit of tokens (MAX_TOKENS).\n")


def _prompt(options: argparse.Namespace) -> str:
    prompt: Optional[str] = options.prompt
    if prompt in (None, "-"):
        if sys.stdin is None or (prompt is None and sys.stdin.isatty()):
            options.refuse("give a prompt, or '-' to read it from standard input")
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="strict")  # the C locale would let anything pass
        try:
            prompt = sys.stdin.read()
        except UnicodeDecodeError as exc:
            options.refuse(f"standard input is not {exc.encoding} text")
    elif not prompt.isascii() and prompt.encode(errors="ignore").decode() != prompt:
        options.refuse(f"the prompt is not {sys.getfilesystemencoding()} text")
    if not prompt or not prompt.strip():
        options.refuse("the prompt is empty")
    return str(prompt)


def _demo(options: argparse.Namespace, output: Output, error_output: Output) -> int:
    from gemini_sync import demo  # only this command pays for the emulator

    demo.run(output.write)
    return DONE


def _emulator(options: argparse.Namespace, output: Output, error_output: Output) -> int:
    from gemini_sync.testing.emulator.__main__ import main as serve  # only this command pays for the emulator

    return serve(options.arguments)


if __name__ == "__main__":
    sys.exit(main())
