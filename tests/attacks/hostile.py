"""Answers of a hostile server: each quotes the credential that it got, with control characters, or 900 kB at a time."""

from __future__ import annotations

import gzip
import json
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.wire.raw_server import Peer

#: They move the cursor of a terminal, turn the order of its text, break its lines, or hide text.
CONTROLS = "\x00\x1b[31m\x1b]0;title\x07\x9b2J\r\n\u200e\u200f\u061c\u2028\u2029\u202e\u2066\U000e0041\U000e007f"
LARGE = 900_000


class Hostile(NamedTuple):
    """An answer: ``make`` gets what the server echoes. ``at`` says which request of the OAuth route it answers."""

    make: Callable[[str], bytes]
    at: str = "stream"


def sent_in(request: bytes) -> str:
    """The credentials in a request."""
    head, _, body = request.decode("latin-1").partition("\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    form = dict(urllib.parse.parse_qsl(body)) if "refresh_token=" in body else {}
    headers = {name.lower(): value for name, value in fields.items()}
    token = headers.get("authorization", "").partition(" ")[2]
    return headers.get("x-goog-api-key") or token or f"{form.get('refresh_token')} {form.get('client_secret')}"


def script_of(hostile: Hostile) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        request = peer.read_request()
        if request:
            peer.send(hostile.make(sent_in(request)))

    return script


def http(status: object, body: Any = "", content_type: str = "application/json", headers: str = "") -> bytes:
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    return head.encode() + data


def status(code: int, echo: str, reason: str = "SOME_REASON", **fields: Any) -> dict[str, Any]:
    metadata = fields.pop("metadata", {"sent": echo})
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "metadata": metadata}
    error = {"code": code, "status": "PERMISSION_DENIED", "message": f"{CONTROLS}{echo}{CONTROLS}", "details": [info]}
    return {"error": {**error, **fields}}


def linked(link: str) -> bytes:
    help_of = {"@type": "type.googleapis.com/google.rpc.Help", "links": [{"url": link}]}
    return http("403 No", {"error": {"code": 403, "message": "No.", "details": [help_of]}})


def validation(link: str) -> bytes:
    return http("403 No", status(403, "no", "VALIDATION_REQUIRED", metadata={"validation_link": link}))


def stream(*chunks: Any, rest: str = "") -> bytes:
    """An event stream that suits both routes: each chunk stands at the top, and in the envelope of Code Assist."""
    events = [f"data: {json.dumps({**chunk, 'response': chunk})}\r\n\r\n" for chunk in chunks]
    return http("200 OK", "".join(events) + rest, "text/event-stream")


def text(words: str = "one", **candidate: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": words}]}, **candidate}]}


def refused_tier(**fields: Any) -> bytes:
    return http("200 OK", {"ineligibleTiers": [{"tierId": "free-tier", **fields}], "allowedTiers": []})


def all_around(echo: str) -> str:
    return f"{CONTROLS}{echo}{CONTROLS}"


ANSWERS: dict[str, Hostile] = {
    "400 message": Hostile(lambda echo: http("400 No", status(400, echo))),
    "401 message": Hostile(lambda echo: http("401 No", status(401, echo))),
    "403 reason": Hostile(lambda echo: http("403 No", status(403, echo, all_around(echo)))),
    "403 large reason": Hostile(lambda echo: http("403 No", status(403, echo, "R" * LARGE))),
    "403 status": Hostile(lambda echo: http("403 No", status(403, echo, status=all_around(echo)))),
    "404 large message": Hostile(lambda echo: http("404 No", status(404, echo, message="\u2028m" * LARGE))),
    "429 hint": Hostile(lambda echo: http("429 No", status(429, echo), headers="Retry-After: 99\r\n")),
    "503 page": Hostile(lambda echo: http("503 No", f"<p>{all_around(echo)}", "text/html")),
    "500 large page": Hostile(lambda echo: http("500 No", f"{echo} {CONTROLS}" * 20_000, "text/html")),
    "packed error": Hostile(lambda echo: http("400 No", status(400, "", message=json.dumps(status(403, echo))))),
    "gzip error": Hostile(lambda echo: http("403 No", gzip.compress(json.dumps(status(403, echo)).encode()),
                                            headers="Content-Encoding: gzip\r\n")),
    "large link": Hostile(lambda echo: linked("https://example.com/" + "x" * LARGE)),
    "http link": Hostile(lambda echo: linked("http://example.com/" + echo)),
    "link with a credential": Hostile(lambda echo: linked("https://example.com/?q=" + urllib.parse.quote(echo))),
    "link with controls": Hostile(lambda echo: validation("https://example.com/" + CONTROLS)),
    "script link": Hostile(lambda echo: validation("javascript:" + echo)),
    "trace id": Hostile(lambda echo: http("403 No", status(403, ""), headers=f"x-goog-request-id: {echo * 300}\r\n")),
    "content type": Hostile(lambda echo: http("200 OK", "no stream", f"text/{echo}")),
    "large content type": Hostile(lambda echo: http("200 OK", "no stream", f"text/{echo * 900}")),
    "content encoding": Hostile(lambda echo: http("200 OK", "x", headers=f"Content-Encoding: {echo}\r\n")),
    "redirect": Hostile(lambda echo: http("307 Go", headers=f"Location: https://{echo.split()[0]}.example/\r\n")),
    "large redirect": Hostile(lambda echo: http("308 Go", headers=f"Location: https://{'x' * 60_000}.{echo}/\r\n")),
    "status line": Hostile(lambda echo: f"{echo} \x1b[31m\r\n\r\n".encode()),
    "odd headers": Hostile(lambda echo: f"HTTP/1.1 403 No\r\n{echo}\x1b[31m\r\n\r\n{echo}".encode()),
    "bad chunk": Hostile(lambda echo: f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{echo}\r\n".encode()),
    "block reason": Hostile(lambda echo: stream({"promptFeedback": {"blockReason": all_around(echo)}})),
    "block message": Hostile(lambda echo: stream({"promptFeedback": {"blockReason": "OTHER",
                                                                     "blockReasonMessage": all_around(echo)}})),
    "finish reason": Hostile(lambda echo: stream({"candidates": [{"finishReason": all_around(echo) * 900}]})),
    "finish message": Hostile(lambda echo: stream(text(finishReason="SAFETY", finishMessage=all_around(echo)))),
    "error event": Hostile(lambda echo: stream(status(403, echo))),
    "error in the middle": Hostile(lambda echo: stream(text(), status(503, echo, all_around(echo)))),
    "broken event": Hostile(lambda echo: stream(text(), rest=f"event: error\r\ndata: {{{echo}\x1b[31m\r\n\r\n")),
    "odd event name": Hostile(lambda echo: stream(text(finishReason="STOP"),
                                                  rest=f"event: {echo}\x1b[31m\r\ndata: {echo}\r\n\r\n")),
    "trace id of a cut stream": Hostile(lambda echo: stream({**text(), "traceId": all_around(echo) * 300})),
    "large answer in no format": Hostile(lambda echo: stream(rest=f"data: [{json.dumps(echo * 9000)}]\r\n\r\n")),
    "text with controls": Hostile(lambda echo: stream(text(CONTROLS, finishReason="STOP"))),
    "tier message": Hostile(lambda echo: refused_tier(reasonMessage=all_around(echo)), "project"),
    "tier reason": Hostile(lambda echo: refused_tier(reasonCode=all_around(echo) * 300), "project"),
    "large validation link": Hostile(lambda echo: refused_tier(reasonCode="VALIDATION_REQUIRED",
                                                               validationUrl="https://x/" + "x" * LARGE), "project"),
    "validation link": Hostile(lambda echo: refused_tier(reasonCode="VALIDATION_REQUIRED",
                                                         validationUrl=f"https://x.example/{echo}"), "project"),
    "operation": Hostile(lambda echo: http("200 OK", {"name": all_around(echo)}), "project"),
    "token error": Hostile(lambda echo: http("400 No", {"error": echo.split()[0]}), "token"),
    "token subtype": Hostile(lambda echo: http("400 No", {"error": "invalid_grant", "error_subtype": all_around(echo),
                                                          "error_description": all_around(echo)}), "token"),
    "token type": Hostile(lambda echo: http("200 OK", [echo], f"text/{echo.split()[0]}"), "token"),
    "token page": Hostile(lambda echo: http("503 No", all_around(echo) * 9000, "text/html"), "token"),
    "token redirect": Hostile(lambda echo: http("302 Go", headers=f"Location: //{echo.split()[0]}/\r\n"), "token"),
}  # fmt: skip
