"""Standard output and standard error of a command, cleaned for terminals."""

from __future__ import annotations

import contextlib
import io
import os
import re
from typing import Optional, TextIO

# What could move a terminal's cursor, recolour, retitle or reorder it: escape sequences, then every control character
# but newline and tab, and the bidirectional overrides and isolates.
_UNSAFE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\x9d]*(?:\x07|\x1b\\|\x9c)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)


class Output:
    """A standard stream, written and flushed piece by piece; control characters are removed if it is a terminal.

    As a context manager it ends the last line. A write that fails raises OSError if ``required`` (BrokenPipeError if
    the reader has gone); otherwise the text is dropped, because there is no other place to report that.
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
        """Send what is left to the null device, because the interpreter would try to write it again at exit."""
        stream, self._stream = self._stream, None
        self._in_line = False
        if isinstance(stream, io.TextIOWrapper):
            with (
                contextlib.suppress(OSError),
                open(os.devnull, "wb") as nowhere,
            ):  # a stream without a descriptor has no flush at exit
                os.dup2(nowhere.fileno(), stream.fileno())
