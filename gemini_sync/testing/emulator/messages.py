"""HTTP messages as values: a request that was received, and a response to be sent."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Callable, Union

JSON_TYPE = "application/json; charset=UTF-8"
SSE_TYPE = "text/event-stream"

#: Seconds between two events, or a function that is called with the index of an event before it is written.
Pace = Union[None, float, Callable[[int], object]]


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived.

    ``path`` is what the client sent, without the query and still percent-encoded. ``headers`` can be looked up in any
    case. ``connection`` is the number of the TCP connection, counted from 1. ``at`` is the time of arrival in
    monotonic seconds. ``route`` is the name of the route, or empty if the emulator has no such path. ``model`` is the
    model that the client asked for, without ``models/``.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message
    body: bytes = field(repr=False)
    connection: int
    at: float
    route: str = ""
    model: str | None = None

    @property
    def json(self) -> Any:
        """The body as JSON; raises ValueError if it is not JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Response:
    """A response before it is written. Each event is one write, and one HTTP chunk if the framing is chunked."""

    status: int
    events: Sequence[bytes]
    content_type: str = JSON_TYPE
    framing: str = "length"
    headers: Mapping[str, str] = field(default_factory=dict)
    pace: Pace = None

    def head(self, *, close: bool) -> bytes:
        fields = {"Content-Type": self.content_type}
        if self.framing == "chunked":
            fields["Transfer-Encoding"] = "chunked"
        elif self.framing == "length":
            fields["Content-Length"] = str(sum(map(len, self.events)))
        if close:
            fields["Connection"] = "close"
        fields.update(self.headers)
        lines = [f"HTTP/1.1 {self.status} {http.client.responses.get(self.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def frame(self, event: bytes, torn_at: int | None = None) -> bytes:
        """One event in this response's framing; ``torn_at`` keeps only its first bytes and leaves the framing open."""
        if self.framing != "chunked" or not event:  # an empty HTTP chunk would end the body
            return event[:torn_at]
        return b"%x\r\n%b%b" % (len(event), event[:torn_at], b"\r\n" if torn_at is None else b"")

    def end(self) -> bytes:
        return b"0\r\n\r\n" if self.framing == "chunked" else b""


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a value as JSON, indented as Google's servers do it."""
    body = json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
    return Response(status, [body], headers=headers or {})
