"""Standard output and standard error of a command, without control characters on a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import re
from typing import Optional, TextIO

# These can move the cursor of a terminal, or change its colours, its title or the order of its text: escape sequences,
# all control characters except newline and tab, the marks, overrides and isolates of bidirectional text, the line and
# paragraph separators, and the tag characters, which hide text.
_UNSAFE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\x9d]*(?:\x07|\x1b\\|\x9c)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)


class Output:
    """A standard stream that is flushed after each piece; on a terminal it removes control characters.

    The end of a ``with`` block ends the last line. If a write fails and the stream is ``required``, ``write`` raises
    OSError (BrokenPipeError if the reader has gone). If it is not required, the text is dropped.
    """

    def __init__(self, stream: Optional[TextIO], *, required: bool) -> None:
        self._stream, self._required = stream, required
        self._terminal = stream is not None and stream.isatty()
        self._in_line = False
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the encoding of the locale may lack characters of the answer

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
        """Start a new line, unless the last one has ended."""
        if self._in_line:
            self.write("\n")

    def _abandon(self) -> None:
        """Send the rest to the null device, because the interpreter would try to write it again at exit."""
        stream, self._stream = self._stream, None
        self._in_line = False
        if isinstance(stream, io.TextIOWrapper):
            # A stream without a descriptor raises an OSError, and is not flushed at exit.
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
