"""Which recorded request a request is, and what tells them apart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Union
from urllib.parse import parse_qsl, unquote, urlsplit

from gemini_sync.testing.cassette.values import Exchange, Request, Response, portable_url
from gemini_sync.testing.scrub.finding import KINDS, PLACEHOLDER
from gemini_sync.testing.scrub.scrubber import Scrubber

#: A name in ``MATCHERS``, or a function that says of a recorded and a sent request whether they match.
Matcher = Union[str, Callable[[Request, Request], bool]]
DEFAULT_MATCH = ("method", "service", "model", "body")
_ANY_NUMBER = "-#"  # in place of the number of a placeholder
_SCRUBBED = re.compile(rf"({'|'.join(KINDS)}){_ANY_NUMBER}")
TOKEN_ENDPOINT = "token endpoint"
_MISSING, _UNKNOWN = "nothing", object()
_CHARACTERS_BEFORE = 30
_MOST_CHARACTERS = 160

# What differs from call to call, or from account to account, and says nothing about what was asked.
_IDS = frozenset({"user_prompt_id", "session_id", "project", "cloudaicompanionProject", "duetProject"})
# A form of the token endpoint: only what it asks for counts, because every credential is as good as another.
_FORM_KEPT = frozenset({"grant_type", "scope", "audience", "requested_token_type", "subject_token_type"})

_MODEL_PATH = re.compile(
    r"/(?P<version>v\d+(?:alpha|beta)?\d*)/(?P<model>(?:models|tunedModels)/[^/:]+):(?P<method>\w+)$"
)
_VERTEX_PATH = re.compile(
    r"/v\d+(?:beta)?\d*/(?:projects/[^/]+/locations/[^/]+/)?publishers/(?P<model>[^/]+/models/[^/:]+):(?P<method>\w+)$"
)
_CODE_ASSIST_PATH = re.compile(r"/v1internal[:/](?P<method>[\w/.-]+)$")


class Target(NamedTuple):
    """What a URL asks for: a service and its method, and the model if the URL names it."""

    service: str
    model: str


def target_of(url: str) -> Target:
    """The service that a URL belongs to, by its path; hosts may be any, for a test may have recorded an emulator."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    vertex = _VERTEX_PATH.search(path)
    if vertex:
        return Target(f"vertex_ai {vertex['method']}", vertex["model"].removeprefix("google/models/"))
    gemini = _MODEL_PATH.search(path)
    if gemini:
        return Target(f"gemini_api {gemini['method']}", gemini["model"].removeprefix("models/"))
    code_assist = _CODE_ASSIST_PATH.search(path)
    if code_assist:
        return Target(f"code_assist {code_assist['method']}", "")
    if parts.hostname == "oauth2.googleapis.com" or path.rstrip("/").endswith("/token"):
        return Target(TOKEN_ENDPOINT, "")
    return Target(f"{parts.hostname}{path}", "")


def _service(request: Request) -> Any:
    return target_of(request.url).service


def _model(request: Request) -> Any:
    model = target_of(request.url).model
    if not model:
        decoded = _json(request.body)
        model = decoded.get("model", "") if isinstance(decoded, dict) else ""
    return model


def _body(request: Request) -> Any:
    """The body as JSON or form without ids, else as text."""
    if request.body is None:
        return _UNKNOWN
    decoded = _json(request.body)
    if isinstance(decoded, (dict, list)):
        return _without_ids(decoded)
    text = request.body.decode("utf-8", "replace")
    form = dict(parse_qsl(text, keep_blank_values=True))
    if "grant_type" in form:
        return {name: value for name, value in form.items() if name in _FORM_KEPT}
    return text


def _without_ids(decoded: Any) -> Any:
    if not isinstance(decoded, dict):
        return decoded
    kept = {name: value for name, value in decoded.items() if name not in _IDS and name != "model"}
    for name in ("request", "metadata"):
        if isinstance(kept.get(name), dict):
            kept[name] = {inner: value for inner, value in kept[name].items() if inner not in _IDS}
    return kept


def _json(body: Any) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None


def _path(request: Request) -> Any:
    return unquote(urlsplit(request.url).path)


def _query(request: Request) -> Any:
    return sorted(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))


def _raw_body(request: Request) -> Any:
    return _UNKNOWN if request.body is None else request.body.decode("utf-8", "replace")


#: What a name in ``match=`` compares.
MATCHERS: dict[str, Callable[[Request], Any]] = {
    "method": lambda request: request.method.upper(),
    "service": _service,
    "model": _model,
    "body": _body,
    "raw_body": _raw_body,
    "url": lambda request: portable_url(request.url),
    "host": lambda request: urlsplit(request.url).hostname,
    "path": _path,
    "query": _query,
    "headers": lambda request: {name.lower(): value for name, value in request.headers.items()},
}


class Matching:
    """Compares requests by what ``match`` names.

    Raises:
        ValueError: ``match`` names something that is not in ``MATCHERS``.
    """

    def __init__(self, match: Sequence[Matcher]) -> None:
        odd = [name for name in match if not callable(name) and name not in MATCHERS]
        if odd:
            raise ValueError(f"expected functions or some of {', '.join(MATCHERS)} in match, came {odd[0]!r}")
        self._names = [name for name in match if isinstance(name, str)]
        self._functions = [function for function in match if callable(function)]

    def fields(self, request: Request) -> dict[str, Any]:
        """What is compared of a request, as flat fields; the numbers of placeholders do not count."""
        found: dict[str, Any] = {}
        for name in self._names:
            value = MATCHERS[name](request)
            found.update({name: value} if value is _UNKNOWN else dict(_flat(name, value)))
        return found

    def agree(self, recorded: Request, sent: Request) -> bool:
        """True if the functions of ``match`` say so, or if there are none."""
        return all(function(recorded, sent) for function in self._functions)

    def refusals(self, recorded: Request, sent: Request) -> list[str]:
        """The functions of ``match`` that say no."""
        return [_named(function) for function in self._functions if not function(recorded, sent)]


def _named(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))


def key_of(fields: dict[str, Any]) -> str:
    """The same text for equal fields."""
    return json.dumps(fields, sort_keys=True, default=lambda unknown: None)


def is_loose(recorded: dict[str, Any]) -> bool:
    """True if more than one request may match: a field is not known, or a secret in it has been replaced."""
    return any(value is _UNKNOWN or (isinstance(value, str) and _SCRUBBED.search(value)) for value in recorded.values())


def differences(recorded: dict[str, Any], sent: dict[str, Any]) -> Iterator[str]:
    """Each field in which two requests differ, in words."""
    unknown = tuple(f"{name}." for name, value in recorded.items() if value is _UNKNOWN)
    for name in [*recorded, *(name for name in sent if name not in recorded)]:
        before, after = recorded.get(name, _MISSING), sent.get(name, _MISSING)
        if before is _UNKNOWN or name.replace("[", ".").startswith(unknown):
            continue  # a file of another tool that does not tell it
        if (before != after or type(before) is not type(after)) and not _differs_in_secrets(before, after):
            start = 0
            if isinstance(before, str) and isinstance(after, str):
                start = max(0, _first_difference(before, after) - _CHARACTERS_BEFORE)
            yield f"{name}: recorded {_shown(before, start)}, sent {_shown(after, start)}"


def _differs_in_secrets(recorded: Any, sent: Any) -> bool:
    """True if the texts differ only in what a placeholder stands for, which is a secret here no more."""
    if not isinstance(recorded, str) or not isinstance(sent, str) or not _SCRUBBED.search(recorded):
        return False
    pieces = _SCRUBBED.split(recorded)[::2]
    return re.fullmatch(".+?".join(map(re.escape, pieces)), sent, re.DOTALL) is not None


def _first_difference(before: str, after: str) -> int:
    return next((at for at, pair in enumerate(zip(before, after)) if pair[0] != pair[1]), min(len(before), len(after)))


def _shown(value: Any, start: int) -> str:
    """A value in one line; of a long text, the part around the first difference."""
    if value is _MISSING:
        return str(value)
    text = json.dumps(value[start:] if isinstance(value, str) else value, ensure_ascii=False)
    cut = text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "…"
    return f"…{cut}" if start else cut


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of a value, each under a path such as ``body.contents[0].parts[0].text``."""
    if isinstance(value, dict) and value:
        for inner, item in value.items():
            yield from _flat(f"{name}.{inner}", item)
    elif isinstance(value, (list, tuple)) and value:
        for position, item in enumerate(value):
            yield from _flat(f"{name}[{position}]", item)
    else:
        yield name, PLACEHOLDER.sub(rf"\1{_ANY_NUMBER}", value) if isinstance(value, str) else value


def as_recorded(request: Any, body: Any, scrubber: Scrubber) -> Request:
    """A request that is being sent, as a recording would show it."""
    headers = {str(name): str(value) for name, value in request.headers.items()}
    exchange = Exchange(Request(str(request.method), str(request.url), headers, body), Response())
    (scrubbed,) = scrubber.scrub([exchange]) or [exchange]
    return scrubbed.request
