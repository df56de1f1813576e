"""Streams and errors as each service sends them, made from a few words; without HTTP."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union
from urllib.parse import quote

from gemini_sync.config import DEFAULT_MODEL
from gemini_sync.testing.cassette.values import Body, Exchange, Request, Response, split_sizes
from gemini_sync.testing.emulator.answers import SIGNATURES, ParsedRequest, chunks_around, envelope
from gemini_sync.testing.emulator.messages import JSON_TYPE, SSE_TYPE, oauth_error, sse_event, status_body

API_KEY = "api_key"
OAUTH = "oauth"  # Code Assist
VERTEX_AI = "vertex_ai"
TOKEN = "token"

_PROMPT_TOKENS = 4
_CREATED = "2026-01-01T00:00:00.000000Z"
_SIGNATURES = {**SIGNATURES, VERTEX_AI: base64.b64encode(b"synthetic thought signature of vertex_ai").decode()}


_VERSION = r"/v\d+(?:alpha|beta)?\d*"
_ENDING_VERSION = re.compile(rf"(?:{_VERSION}|/v1internal)?/?$")


@dataclass(frozen=True)
class Service:
    """Where a service is asked, as regular expressions, and how it names itself in its errors.

    Attributes:
        base: the scheme and host.
        path: the path without the method; ``{model}`` stands for the model.
        name: the host name in ErrorInfo.
    """

    base: str
    path: str
    name: str

    def url(self, methods: str, model: Optional[str], base_url: Optional[str]) -> re.Pattern[str]:
        base = self.base if base_url is None else re.escape(_ENDING_VERSION.sub("", base_url))
        name = "[^/:]+" if model is None else re.escape(quote(model.removeprefix("models/")))
        return re.compile(f"{base}{self.path.replace('{model}', name)}:{methods}")


SERVICES = {
    API_KEY: Service(
        r"https://generativelanguage\.googleapis\.com",
        rf"{_VERSION}/(?:models|tunedModels)/{{model}}",
        "generativelanguage.googleapis.com",
    ),
    OAUTH: Service(r"https://cloudcode-pa\.googleapis\.com", "/v1internal", "cloudcode-pa.googleapis.com"),
    # A project and a location stand in the path, unless an API key of the express mode is used.
    VERTEX_AI: Service(
        r"https://(?:[a-z0-9-]+-)?aiplatform\.(?:[a-z]+\.rep\.)?googleapis\.com",
        rf"{_VERSION}/(?:projects/[^/]+/locations/[^/]+/)?(?:publishers/[^/]+/models|endpoints)/{{model}}",
        "aiplatform.googleapis.com",
    ),
}


def service_of(route: str) -> Service:
    """The service of a route; raises ValueError for an unknown one."""
    if route not in SERVICES:
        raise ValueError(f"route must be one of {', '.join(SERVICES)}, not {route!r}")
    return SERVICES[route]


# -- streams

#: Texts, or whole chunks (GenerateContentResponse), which are sent as they are.
Pieces = Union[str, Sequence[Union[str, Mapping[str, Any]]]]


def stream_response(
    pieces: Pieces = (),
    *,
    route: str = API_KEY,
    model: Optional[str] = None,
    thoughts: Union[str, Sequence[str]] = (),
    function_calls: Sequence[Mapping[str, Any]] = (),
    finish_reason: Optional[str] = "STOP",
    usage: Optional[Mapping[str, Any]] = None,
    segments: Union[int, Sequence[int], None] = None,
) -> Response:
    """A stream of the service; ``add_stream`` explains the arguments."""
    service_of(route)
    request = ParsedRequest(route, "streamGenerateContent", model or DEFAULT_MODEL, True, "", _PROMPT_TOKENS, 1)
    given = _listed(pieces)
    if any(isinstance(piece, str) for piece in given) or not given:
        if not all(isinstance(piece, str) for piece in given):
            raise ValueError("pieces must be texts, or chunks as dicts, but not both")
        groups = _groups([str(piece) for piece in given], [*_listed(thoughts)], function_calls, _SIGNATURES[route])
        chunks = _chunks(groups, request, finish_reason, usage)
        if route == VERTEX_AI:
            chunks = [_as_vertex(chunk, is_last=chunk is chunks[-1]) for chunk in chunks]
    else:
        chunks = [dict(piece) for piece in given if isinstance(piece, Mapping)]
    if route == OAUTH:
        chunks = [envelope(chunk, request) for chunk in chunks]
    events = tuple(map(sse_event, chunks))
    return Response(200, {"Content-Type": SSE_TYPE}, Body(events if segments is None else _cut(events, segments)))


def _listed(given: Any) -> list[Any]:
    return [given] if isinstance(given, (str, Mapping)) else list(given)


def _groups(
    texts: list[str], thoughts: list[str], calls: Sequence[Mapping[str, Any]], signature: str
) -> list[list[dict[str, Any]]]:
    """The parts of each chunk: thoughts, then text, then all calls in one chunk."""
    groups: list[list[dict[str, Any]]] = [[{"text": text, "thought": True}] for text in thoughts]
    groups += [[{"text": text}] for text in texts]
    if calls:
        groups.append([{"functionCall": dict(call)} for call in calls])
    if calls or (thoughts and texts):  # only the first of parallel calls has one (ai.google.dev)
        groups[-1][0]["thoughtSignature"] = signature
    return groups


def _chunks(
    groups: list[list[dict[str, Any]]],
    request: ParsedRequest,
    finish_reason: Optional[str],
    usage: Optional[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    chunks = chunks_around(groups or [[{"text": ""}]], request, finish_reason)
    if not groups:  # such as SAFETY before any text
        del chunks[0]["candidates"][0]["content"]
    chunks[-1]["usageMetadata"].update(usage or {})
    return chunks


def _as_vertex(chunk: dict[str, Any], *, is_last: bool) -> dict[str, Any]:
    """The chunk as Vertex AI sends it: counts stand in the last one, and each names the kind of traffic."""
    counts = chunk["usageMetadata"] if is_last else {}
    return {**chunk, "usageMetadata": {"trafficType": "ON_DEMAND", **counts}, "createTime": _CREATED}


def _cut(events: Sequence[bytes], segments: Union[int, Sequence[int]]) -> tuple[bytes, ...]:
    data = b"".join(events)
    if isinstance(segments, int):
        if segments < 1:
            raise ValueError(f"segments must be at least 1 byte, not {segments}")
        return tuple(data[start : start + segments] for start in range(0, len(data), segments))
    sizes = tuple(segments)
    rest = len(data) - sum(sizes)
    if rest < 0 or min(sizes, default=1) < 1:
        raise ValueError(f"segments must be sizes above 0 of together at most {len(data)} bytes, not {list(sizes)}")
    return split_sizes(data, (*sizes, rest) if rest else sizes)


# -- errors

_QUOTA_HELP = "https://ai.google.dev/gemini-api/docs/rate-limits"
_QUOTA_MESSAGE = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    f"head to: {_QUOTA_HELP}."
)
_VERTEX_QUOTA_MESSAGE = (
    "Resource exhausted. Please try again later. Please refer to "
    "https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more details."
)
_MESSAGES = {
    400: "Request contains an invalid argument.",
    401: "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
    "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
    403: "The caller does not have permission",
    404: "Requested entity was not found.",
    429: "Resource has been exhausted (e.g. check quota).",
    500: "An internal error has occurred. Please retry.",
    503: "The model is overloaded. Please try again later.",
    504: "Deadline expired before operation could complete.",
}
_MESSAGE_OF_REASON = {
    "API_KEY_INVALID": "API key not valid. Please pass a valid API key.",
    "MODEL_CAPACITY_EXHAUSTED": "No capacity available for model {model} on the server",
    "QUOTA_EXHAUSTED": "You have exhausted your capacity on this model. Your quota will reset after {delay}.",
    "RATE_LIMIT_EXCEEDED": "You have exhausted your capacity on this model. Your quota will reset after {delay}.",
}
# Code Assist reports these under its own name; what the gateways of all services find stands under googleapis.com.
_OWN_REASONS = re.compile("QUOTA|RATE_LIMIT|CAPACITY|CREDITS|VALIDATION|SUBSCRIPTION|TOS_|UNSUPPORTED_CLIENT")
_DAILY = re.compile("QUOTA_EXHAUSTED|DAILY|DAY")


def error_response(
    code: int,
    *,
    route: str = API_KEY,
    model: Optional[str] = None,
    reason: Optional[str] = None,
    retry_after: Optional[float] = None,
    message: Optional[str] = None,
    **status: Any,
) -> Response:
    """An error of the service; ``add_error`` explains the arguments."""
    if route == TOKEN:
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        name = reason or ("invalid_request" if code < 500 else "internal_failure")
        return _json_response(code, oauth_error(name, message), headers)
    body = error_body(code, route=route, model=model, reason=reason, retry_after=retry_after, message=message, **status)
    return _json_response(code, [body] if route == VERTEX_AI else body, {})  # Vertex AI puts it into an array


def error_body(
    code: int,
    *,
    route: str,
    model: Optional[str] = None,
    reason: Optional[str] = None,
    retry_after: Optional[float] = None,
    message: Optional[str] = None,
    details: Iterable[Mapping[str, Any]] = (),
    **status: Any,
) -> dict[str, Any]:
    """``{"error": …}`` with the details that the service of ``route`` gives."""
    service, model = service_of(route), model or DEFAULT_MODEL
    delay = None if retry_after is None else f"{retry_after:g}s"
    if reason is not None:
        is_own = route == OAUTH and _OWN_REASONS.search(reason) is not None
        status.setdefault("domain", service.name if is_own else "googleapis.com")
        status.setdefault("metadata", _metadata(code, model, delay) if is_own else {"service": service.name})
    if code == 429 and route == API_KEY:
        period = "Day" if _DAILY.search(reason or "") else "Minute"
        status.setdefault("quota_id", f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier")
        status.setdefault("link", _QUOTA_HELP)
    message = _message(code, route, model, reason, delay) if message is None else message
    return status_body(code, message=message, reason=reason, retry_delay=delay, details=details, **status)


def _message(code: int, route: str, model: str, reason: Optional[str], delay: Optional[str]) -> Optional[str]:
    if code == 429 and route == API_KEY:
        return _QUOTA_MESSAGE + (f"\nPlease retry in {delay}." if delay else "")
    if code == 429 and route == VERTEX_AI:
        return _VERTEX_QUOTA_MESSAGE
    text = _MESSAGE_OF_REASON.get(reason or "", "")
    is_complete = delay is not None or "{delay}" not in text
    return text.format(model=model, delay=delay) if text and is_complete else _MESSAGES.get(code)


def _metadata(code: int, model: str, delay: Optional[str]) -> dict[str, str]:
    if code not in (429, 499, 503):
        return {}
    reset = {} if delay is None else {"uiMessage": "true", "quotaResetDelay": delay}
    return {**reset, "model": model}


def _json_response(code: int, value: Any, headers: Mapping[str, str]) -> Response:
    body = json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
    return Response(code, {"Content-Type": JSON_TYPE, **headers}, Body((body,)))


# -- what stands beside Code Assist

TOKEN_URL = "https://oauth2.googleapis.com/token"


def token_response(number: int = 1) -> Response:
    """The token endpoint's answer to a refresh."""
    found = {"access_token": f"synthetic-access-token-{number}", "expires_in": 3599, "token_type": "Bearer"}
    return _json_response(200, {**found, "scope": "https://www.googleapis.com/auth/cloud-platform"}, {})


def token_exchange(number: int = 1) -> Exchange:
    """A refresh as a cassette holds it."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return Exchange(Request("POST", TOKEN_URL, form, b"grant_type=refresh_token"), token_response(number))


def project_response() -> Response:
    """The answer to loadCodeAssist of an account that has a project."""
    tier = {"id": "standard-tier", "name": "Gemini Code Assist"}
    return _json_response(200, {"currentTier": tier, "cloudaicompanionProject": "synthetic-project"}, {})
