"""HTTP messages as values: a request that was received, a response to be sent, and the error bodies of Google."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping, Sequence
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


def sse_event(value: object) -> bytes:
    """A value as one server-sent event, with the spaces and line ends that Google sends."""
    return b"data: " + json.dumps(value, separators=(",", ": "), ensure_ascii=False).encode() + b"\r\n\r\n"


# Error bodies: google.rpc.Status, and the form of the token endpoint.

_TYPE = "type.googleapis.com/google.rpc."

#: The status of an HTTP code if the caller names none.
_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "RESOURCE_EXHAUSTED", 403: "PERMISSION_DENIED",
    404: "NOT_FOUND", 409: "ABORTED", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL",
    501: "UNIMPLEMENTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip


def status_body(
    code: int,
    *,
    status: str | None = None,
    message: str | None = None,
    reason: str | None = None,
    domain: str = "cloudcode-pa.googleapis.com",
    metadata: Mapping[str, str] | None = None,
    retry_delay: str | Mapping[str, int] | None = None,
    quota_id: str | None = None,
    link: str | None = None,
    fields: Mapping[str, str] | None = None,
    details: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """``{"error": …}`` with the details that the arguments ask for (https://aip.dev/193).

    ``reason``, ``domain`` and ``metadata`` make an ErrorInfo. ``retry_delay`` makes a RetryInfo; it is "2s", or seconds
    and nanos. ``quota_id`` makes a QuotaFailure, ``link`` a Help, and ``fields`` (field -> description) a BadRequest.
    ``details`` are appended as they are.
    """
    found: list[Mapping[str, Any]] = []
    if reason is not None:
        info = {"reason": reason, "domain": domain, "metadata": dict(metadata or {})}
        found.append({"@type": _TYPE + "ErrorInfo", **info})
    if quota_id is not None:
        metric = "generativelanguage.googleapis.com/generate_content_requests"
        found.append({"@type": _TYPE + "QuotaFailure", "violations": [{"quotaMetric": metric, "quotaId": quota_id}]})
    if link is not None:
        found.append({"@type": _TYPE + "Help", "links": [{"description": "Learn more", "url": link}]})
    if fields is not None:
        violations = [{"field": name, "description": text} for name, text in fields.items()]
        found.append({"@type": _TYPE + "BadRequest", "fieldViolations": violations})
    if retry_delay is not None:
        found.append({"@type": _TYPE + "RetryInfo", "retryDelay": retry_delay})
    found.extend(details)
    error: dict[str, Any] = {
        "code": code,
        "message": http.client.responses.get(code, "Unknown") if message is None else message,
        "status": status or _STATUS.get(code, "UNKNOWN"),
    }
    if found:
        error["details"] = found
    return {"error": error}


class Refused(Exception):
    """A request is refused with ``response``."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def refusal(code: int, message: str, *, headers: Mapping[str, str] | None = None, **arguments: Any) -> Refused:
    """A refusal with a google.rpc.Status body; ``arguments`` are those of ``status_body``."""
    return Refused(json_response(status_body(code, message=message, **arguments), code, headers))


def oauth_error(error: str, description: str | None = None, subtype: str | None = None) -> dict[str, str]:
    """The token endpoint's error body (RFC 6749 section 5.2, with Google's ``error_subtype``)."""
    found = {"error": error, "error_description": description, "error_subtype": subtype}
    return {name: value for name, value in found.items() if value is not None}


def unknown_model(model: str) -> Refused:
    """The 404 for a model that is not served, as recorded from Google."""
    message = (
        f"models/{model} is not found for API version v1beta, or is not supported for GenerateContent. "
        "Call ListModels to see the list of available models and their supported methods."
    )
    original = (
        f'[ORIGINAL ERROR] generic::not_found: {message} [google.rpc.error_details_ext] {{ message: "{message}" }}'
    )
    return refusal(404, message, details=[{"@type": _TYPE + "DebugInfo", "detail": original}])
