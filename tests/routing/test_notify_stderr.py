"""The default line is written to every kind of stderr without waiting; if it cannot be written, it is logged."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from gemini_sync.config import Timeouts
from gemini_sync.routing.events import FallbackEvent, notify_stderr
from tests.adapter_kit import Rig, forbidden, in_thread

EVENT = FallbackEvent("oauth", "api_key", "it failed", forbidden(), 0.0)

unix_only = pytest.mark.skipif(os.name == "nt", reason="Windows does not tell whether a pipe is full")


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The messages that a handler of the program's own gets; the package logs nothing to stderr meanwhile."""
    messages: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Kept()
    logging.getLogger("gemini_sync").addHandler(handler)
    yield messages
    logging.getLogger("gemini_sync").removeHandler(handler)


class Pipe:
    """A pipe that can be standard error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.reader, writer = os.pipe()
        self.stream = open(writer, "w")  # noqa: SIM115

    def use(self) -> None:
        """Let it be standard error. pytest sets that again after the fixtures."""
        self._monkeypatch.setattr(sys, "stderr", self.stream)

    def fill(self) -> int:
        """Let it be standard error, and write until it takes no more; returns how many bytes that were."""
        self.use()
        os.set_blocking(self.stream.fileno(), False)
        count = 0
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    count += os.write(self.stream.fileno(), b"x" * size)
        os.set_blocking(self.stream.fileno(), True)
        return count

    def read(self) -> str:
        os.set_blocking(self.reader, False)
        with contextlib.suppress(BlockingIOError):
            return os.read(self.reader, 2**20).decode()
        return ""

    def close(self) -> None:
        os.close(self.reader)
        with contextlib.suppress(OSError):
            self.stream.close()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    made = Pipe(monkeypatch)
    yield made
    with contextlib.suppress(OSError):
        made.close()


@unix_only
def test_pipe__takes_the_line(pipe: Pipe, logged: list[str]) -> None:
    pipe.use()
    notify_stderr(EVENT)
    assert (pipe.read(), logged) == (f"{EVENT}\n", [])


@unix_only
def test_pipe__that_is_full_is_not_waited_for(pipe: Pipe, logged: list[str]) -> None:
    size = pipe.fill()
    in_thread(lambda: notify_stderr(EVENT))()
    assert logged == [f"stderr takes no line: {EVENT}"]
    assert pipe.read() == "x" * size
    notify_stderr(EVENT)
    assert pipe.read() == f"{EVENT}\n"


@unix_only
def test_pipe__with_less_room_than_a_line_is_not_waited_for(pipe: Pipe, logged: list[str]) -> None:
    """A reader takes a few bytes, which makes no room for a line."""
    pipe.fill()
    os.read(pipe.reader, 10)
    in_thread(lambda: notify_stderr(EVENT))()
    assert logged == [f"stderr takes no line: {EVENT}"]


@unix_only
def test_pipe__that_is_full__handlers_that_write_to_it_are_left_out(pipe: Pipe, logged: list[str]) -> None:
    pipe.fill()
    handler = logging.StreamHandler()  # of logging.basicConfig()
    logging.getLogger().addHandler(handler)
    try:
        in_thread(lambda: notify_stderr(EVENT))()
    finally:
        logging.getLogger().removeHandler(handler)
    assert handler.stream is pipe.stream
    assert len(logged) == 1


@unix_only
def test_pipe__that_is_full__without_a_handler(pipe: Pipe) -> None:
    """Python's own last resort would write to stderr."""
    pipe.fill()
    root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
    root.handlers.clear()
    try:
        in_thread(lambda: notify_stderr(EVENT))()
    finally:
        root.handlers[:] = handlers


@unix_only
def test_pipe__whose_reader_has_gone(pipe: Pipe, logged: list[str]) -> None:
    pipe.use()
    os.close(pipe.reader)
    notify_stderr(EVENT)
    assert logged == [f"stderr takes no line: {EVENT}"]
    pipe.stream.close()  # nothing is left in its buffer that could fail at exit
    pipe.reader = os.open(os.devnull, os.O_RDONLY)


@unix_only
def test_line__fits_into_a_pipe_that_takes_one_page(pipe: Pipe) -> None:
    event = FallbackEvent("oauth", "api_key", "ü" * 50_000, forbidden(), 0.0)
    size = pipe.fill()
    os.read(pipe.reader, 4096)
    in_thread(lambda: notify_stderr(event))()
    line = pipe.read()[size - 4096 :]
    assert line.startswith("gemini-sync: OAuth failed (üü")
    assert len(line.encode()) < 4096


@unix_only
def test_terminal__that_is_stopped_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    """Ctrl-S stops a terminal."""
    termios = pytest.importorskip("termios")
    controller, terminal = os.openpty()
    with open(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        notify_stderr(EVENT)
        assert os.read(controller, 4096).decode().split("\r\n") == [str(EVENT), ""]
        termios.tcflow(terminal, termios.TCOOFF)
        in_thread(lambda: notify_stderr(EVENT))()
        termios.tcflow(terminal, termios.TCOON)
        assert logged == [f"stderr takes no line: {EVENT}"]
        monkeypatch.undo()
        os.close(controller)


@unix_only
def test_socket__that_is_full_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    ours, other = socket.socketpair()
    with ours, other, ours.makefile("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        notify_stderr(EVENT)
        assert other.recv(4096).decode() == f"{EVENT}\n"
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(b"x" * 4096)
        ours.setblocking(True)
        in_thread(lambda: notify_stderr(EVENT))()
        assert logged == [f"stderr takes no line: {EVENT}"]


def test_file(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    with tempfile.TemporaryFile("w+") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        notify_stderr(EVENT)
        stream.seek(0)
        assert (stream.read(), logged) == (f"{EVENT}\n", [])


class Notebook:
    """A stream without most of what a file has."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


class NoDescriptor(Notebook):
    def fileno(self) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("make", [io.StringIO, Notebook, NoDescriptor])
def test_stream__without_a_descriptor(make: Any, monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    stream = make()
    monkeypatch.setattr(sys, "stderr", stream)
    notify_stderr(EVENT)
    text = stream.getvalue() if isinstance(stream, io.StringIO) else stream.text
    assert (text, logged) == (f"{EVENT}\n", [])


def test_stream__on_a_system_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("select.poll", raising=False)
    with tempfile.TemporaryFile("w+") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        notify_stderr(EVENT)
        stream.seek(0)
        assert stream.read() == f"{EVENT}\n"


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [lambda: None, closed], ids=["none", "closed"])
def test_stream__that_takes_nothing_is_logged(make: Any, monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    monkeypatch.setattr(sys, "stderr", make())
    notify_stderr(EVENT)
    assert logged == [f"stderr takes no line: {EVENT}"]


def test_log__that_is_off_for_warnings(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(logging.getLogger("gemini_sync"), "level", logging.ERROR)
    logging.getLogger("gemini_sync").manager._clear_cache()  # type: ignore[attr-defined]
    notify_stderr(EVENT)
    logging.getLogger("gemini_sync").manager._clear_cache()  # type: ignore[attr-defined]
    assert logged == []


@unix_only
def test_flip__with_a_full_pipe_holds_total_and_can_be_cancelled(rig: Rig, pipe: Pipe, logged: list[str]) -> None:
    pipe.fill()
    rig.emulator.oauth.fail(403, times=None)
    adapter = rig.adapter(on_fallback=notify_stderr, timeouts=Timeouts(total=15))
    reply = in_thread(lambda: adapter.generate("Hi"))()
    assert (reply.route, adapter.fallback_active) == ("api_key", True)
    assert len(logged) == 1
