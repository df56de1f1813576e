"""Knows where test data is and how a child process is run within bounds; knows no test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).resolve().parent.parent
CORPUS_MISSING = "no test data: GEMINI_SYNC_CORPUS names no folder, and there is no ../shared/corpus"
_CHILD_SECONDS = 60.0


def find_corpus() -> Optional[Path]:
    """The folder of shared test data: ``GEMINI_SYNC_CORPUS``, else ``../shared/corpus``; None where neither exists."""
    for candidate in (os.environ.get("GEMINI_SYNC_CORPUS"), ROOT.parent / "shared" / "corpus"):
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    return None


@contextlib.contextmanager
def python_child(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python child that imports this checkout, its standard streams piped unless ``options`` (Popen's) say otherwise.

    It gets the environment of the test, whose home is a temporary one, and is killed after 60 seconds or where the
    block ends with it still running. Its streams are buffered as usual, even if PYTHONUNBUFFERED is set for the tests.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment = {**inherited, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    for stream in ("stdin", "stdout", "stderr"):
        options.setdefault(stream, subprocess.PIPE)
    options.setdefault("encoding", "utf-8")
    with subprocess.Popen([sys.executable, *arguments], env=environment, **options) as child:
        limit = threading.Timer(_CHILD_SECONDS, child.kill)
        limit.daemon = True
        limit.start()
        try:
            yield child
        finally:
            limit.cancel()
            child.kill()


def run_python(*arguments: str, given: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run such a child to its end, with ``given`` on its standard input."""
    with python_child(*arguments, **options) as child:
        stdout, stderr = child.communicate(given)
    return subprocess.CompletedProcess(child.args, child.returncode, stdout, stderr)


def in_child(work: Callable[[], str]) -> Callable[[], str]:
    """Run ``work`` in a forked child that is killed after 20 seconds; the result waits and gives what it returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            os.write(writing, work().encode())
        except BaseException as exc:
            os.write(writing, repr(exc).encode())
        finally:
            os._exit(0)
    os.close(writing)

    def result() -> str:
        with open(reading, "rb") as answer:
            said = answer.read().decode()
        _, status = os.waitpid(child, 0)
        assert os.WIFEXITED(status), f"the child was killed: it hung, after {said!r}"
        return said

    return result
