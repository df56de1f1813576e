"""Helpers of all tests: the folder of test data, and child processes with a time limit."""

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
CORPUS_MISSING = "there is no test data, because GEMINI_SYNC_CORPUS names no folder and ../shared/corpus does not exist"
_CHILD_SECONDS = 60.0


def find_corpus() -> Optional[Path]:
    """The folder of shared test data, ``GEMINI_SYNC_CORPUS`` or ``../shared/corpus``; None if neither exists."""
    for candidate in (os.environ.get("GEMINI_SYNC_CORPUS"), ROOT.parent / "shared" / "corpus"):
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    return None


@contextlib.contextmanager
def python_child(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python child that imports this checkout; its standard streams are pipes unless ``options`` differ.

    The ``options`` are those of Popen. The child gets the environment of the test, with its empty home. It is killed
    after 60 seconds, or when the block ends. Its streams are buffered, even if PYTHONUNBUFFERED is set for the tests.
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
    """Run a Python child to its end, with ``given`` as its standard input."""
    with python_child(*arguments, **options) as child:
        stdout, stderr = child.communicate(given)
    return subprocess.CompletedProcess(child.args, child.returncode, stdout, stderr)


def in_child(work: Callable[[], str]) -> Callable[[], str]:
    """Start ``work`` in a forked child, which is killed after 20 seconds; the result waits for its answer."""
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
        assert os.WIFEXITED(status), f"the child hung and was killed; it had said {said!r}"
        return said

    return result
