"""The command line, its arguments and its exit statuses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Optional

from gemini_sync.cli import ask
from gemini_sync.cli.terminal import Output
from gemini_sync.errors import ConfigError, GeminiSyncError
from gemini_sync.version import VERSION

DONE, FAILED, INTERRUPTED = 0, 1, 130  # wrong usage is 2, by argparse


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line ``argv``, by default that of the process.

    Returns the exit status: 0 for done, even if the reader of a pipe has gone, 1 for failed, 130 for interrupted.
    Raises SystemExit: 2 for wrong usage, 0 after ``--help`` and ``--version``.
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
            options.run(options, output, error_output)
            return DONE
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
    ask.add_parser(commands)
    demo = commands.add_parser("demo", help="show the fallback on an emulator, without credentials")
    demo.set_defaults(run=_demo)
    cassette = commands.add_parser("cassette", help="show, check or scrub recorded responses")
    cassette.add_argument("action", choices=("show", "check", "scrub"), help="what to do with the file")
    cassette.add_argument("file", metavar="FILE", help="a cassette, of vcrpy as well, or a file of responses' recorder")
    cassette.add_argument("--output", metavar="FILE", help="where scrub writes (default: over the file)")
    cassette.set_defaults(run=_cassette)
    emulator = commands.add_parser("emulator", help="serve both Gemini endpoints on this machine", add_help=False)
    emulator.set_defaults(run=_emulator)
    return parser


def _demo(options: argparse.Namespace, output: Output, error_output: Output) -> None:
    from gemini_sync.cli import demo  # imports the emulator, which other commands do not need

    demo.run(output.write)


def _cassette(options: argparse.Namespace, output: Output, error_output: Output) -> None:
    try:
        from gemini_sync.cli import cassette  # needs PyYAML, which other commands do not
    except ModuleNotFoundError as exc:
        if exc.name != "yaml":
            raise
        raise ConfigError("The command needs PyYAML: pip install 'gemini-sync[testing]'.") from exc
    cassette.run(options, output, error_output)


def _emulator(options: argparse.Namespace, output: Output, error_output: Output) -> None:
    from gemini_sync.testing.emulator.__main__ import main as serve  # other commands do not need the emulator

    serve(options.arguments)
