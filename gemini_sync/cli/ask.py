"""The command ``ask``, which writes the answer to a prompt to standard output."""

from __future__ import annotations

import argparse
import io
import json
import sys
from typing import Any, Optional

from gemini_sync.adapter import GeminiDualAdapter
from gemini_sync.cli.terminal import Output
from gemini_sync.messages.reply import Reply
from gemini_sync.routing.events import FallbackEvent

_CUT_OFF = {"MAX_TOKENS": "it reached the limit of tokens", "CONTINUATION": "one response can hold no more of it"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ask = commands.add_parser("ask", help="stream the answer to a prompt to standard output")
    ask.add_argument("prompt", nargs="?", help="the prompt; if it is '-' or missing, standard input is read")
    ask.add_argument("--model", help="the model to ask (default: GEMINI_MODEL, else the package's)")
    ask.add_argument("--system", metavar="TEXT", help="a system instruction")
    ask.add_argument("--json", action="store_true", help="write each chunk as one line of JSON")
    ask.add_argument("--thoughts", action="store_true", help="also write thought summaries, to standard error")
    ask.set_defaults(run=run, refuse=ask.error)


def run(options: argparse.Namespace, output: Output, error_output: Output) -> None:
    prompt = _prompt(options)
    thinking: Any = {"thinkingConfig": {"includeThoughts": True}} if options.thoughts else None

    def tell(event: FallbackEvent) -> None:
        # The event advises reset(), which makes no sense for a single command, so we write our own text.
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


def _stream(reply: Reply, thoughts: bool, output: Output, error_output: Output) -> None:
    for chunk in reply.chunks():
        if thoughts:
            error_output.write(chunk.thoughts, dim=True)
        if chunk.text:
            error_output.end_line()
            output.write(chunk.text)
    next(reply, None)  # raises an error if the answer is blocked, failed or empty
    why = _CUT_OFF.get(reply.finish_reason or "")
    if why:
        output.end_line()
        error_output.write(f"gemini-sync: the answer is cut off, because {why} ({reply.finish_reason}).\n")


def _prompt(options: argparse.Namespace) -> str:
    prompt: Optional[str] = options.prompt
    if prompt in (None, "-"):
        if sys.stdin is None or (prompt is None and sys.stdin.isatty()):
            options.refuse("give a prompt, or '-' to read it from standard input")
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="strict")  # in the C locale Python accepts any byte
        try:
            prompt = sys.stdin.read()
        except UnicodeDecodeError as exc:
            options.refuse(f"standard input is not {exc.encoding} text")
    elif not prompt.isascii() and prompt.encode(errors="ignore").decode() != prompt:
        options.refuse(f"the prompt is not {sys.getfilesystemencoding()} text")
    if not prompt or not prompt.strip():
        options.refuse("the prompt is empty")
    return str(prompt)
