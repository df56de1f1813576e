"""What a cassette holds: exchanges, each of a request and its response, and the body as the segments that arrived."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional, Union
from urllib.parse import urlsplit, urlunsplit

from gemini_sync.config import is_loopback
from gemini_sync.errors import GeminiSyncError

VERSION = 1  # of our own file format
END_LINE = "..."  # ends a YAML document; a file without it was cut off

# How a body ends, as its reader saw it.
COMPLETE = "complete"
CUT = "cut"  # the connection was closed before the end that the headers or the chunk sizes had announced
RESET = "reset"  # the connection was reset
TIMEOUT = "timeout"  # nothing came within the reader's time limit
UNREAD = "unread"  # the reader stopped here, so that nothing more was recorded
ENDS = (COMPLETE, CUT, RESET, TIMEOUT, UNREAD)

# A failure to get any response; the names are those of requests.exceptions.
FAILURES = (
    *("ConnectionError", "ConnectTimeout", "ReadTimeout", "SSLError", "ProxyError"),
    *("InvalidSchema", "InvalidURL", "ChunkedEncodingError"),
)

_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class CassetteError(GeminiSyncError, ValueError):
    """A cassette cannot be read or written; the message names the file, and the line if there is one."""


@dataclass(frozen=True)
class Body:
    """The body of a response.

    Attributes:
        segments: its bytes, as the reads that brought them; none is empty.
        delays: the seconds before each segment, rounded to milliseconds; empty if they are not known.
        end: one of ``ENDS``.
    """

    segments: tuple[bytes, ...] = ()
    delays: tuple[float, ...] = ()
    end: str = COMPLETE

    def __post_init__(self) -> None:
        object.__setattr__(self, "delays", tuple(round(delay, 3) for delay in self.delays))
        if self.end not in ENDS:
            raise ValueError(f"the end of a body is one of {', '.join(ENDS)}, not {self.end!r}")
        if not all(self.segments):
            raise ValueError("a segment of a body has at least one byte")
        if self.delays and len(self.delays) != len(self.segments):
            raise ValueError(f"a body of {len(self.segments)} segments has {len(self.delays)} delays")

    @property
    def data(self) -> bytes:
        return b"".join(self.segments)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(len, self.segments))


def split_events(data: bytes) -> tuple[bytes, ...]:
    """``data`` cut after each blank line, which is where an event ends; without a blank line it is one piece."""
    ends = [0, *(found.end() for found in _BLANK_LINE.finditer(data)), len(data)]
    return tuple(data[start:end] for start, end in zip(ends, ends[1:]) if start < end)


def split_sizes(data: bytes, sizes: tuple[int, ...]) -> tuple[bytes, ...]:
    """``data`` cut into pieces of these sizes, which have to add up to its length."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(data[start : start + size])
        start += size
    if start != len(data):
        raise ValueError(f"the segments have {start} bytes, but the body has {len(data)}")
    return tuple(pieces)


def portable_url(url: str) -> str:
    """``url`` without the port of a server on this machine, which differs each time."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not is_loopback(host):
        return url
    return urlunsplit(parts._replace(netloc=f"[{host}]" if ":" in host else host))


@dataclass(frozen=True)
class Request:
    """A request. ``body`` is None if it is not known: some files of other tools hold none."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Optional[bytes] = b""


@dataclass(frozen=True)
class Response:
    """A response, with those of its headers that matter."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = Body()


@dataclass(frozen=True)
class Failure:
    """What came in place of a response.

    Attributes:
        kind: one of ``FAILURES``.
        message: the words of the error.
        cause: the error of the system below it, as its name and ``errno``; None if there is none.
    """

    kind: str
    message: str = ""
    cause: Optional[tuple[str, int]] = None


@dataclass(frozen=True)
class Exchange:
    """A request and what came of it."""

    request: Request
    response: Union[Response, Failure]


@dataclass(frozen=True)
class Cassette:
    """The exchanges of a file, in the order in which their requests were sent."""

    exchanges: tuple[Exchange, ...] = ()
    path: str = ""
