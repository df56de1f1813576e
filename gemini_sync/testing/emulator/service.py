"""The emulated Google services: their endpoints, what they check, and what they answer."""

from __future__ import annotations

import itertools
import re
import threading
import urllib.parse
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Callable

from gemini_sync.testing.emulator.accounts import Accounts
from gemini_sync.testing.emulator.answers import SIGNATURES, ParsedRequest, ScriptedAnswer, count_tokens
from gemini_sync.testing.emulator.messages import Recorded, Refused, Response, json_response, refusal, unknown_model

_METHODS = "(?P<method>streamGenerateContent|generateContent|countTokens)"

#: The requests of each route (ai.google.dev/api; GC code_assist/server.ts).
ENDPOINTS = {
    "token": re.compile(r"POST /(?P<method>token)"),
    "oauth": re.compile(r"POST /v1internal:" + _METHODS),
    "api_key": re.compile(r"POST /v1beta/(?P<name>(?:models|tunedModels)/[^/:]+):" + _METHODS),
    "load_code_assist": re.compile(r"POST /v1internal:(?P<method>loadCodeAssist)"),
    "onboard": re.compile(r"POST /v1internal:(?P<method>onboardUser)"),
    "quota": re.compile(r"POST /v1internal:(?P<method>retrieveUserQuota)"),
    "operation": re.compile(r"(?P<method>GET) /v1internal/(?P<name>.+)"),
}

_TIERS = (
    {"id": "free-tier", "name": "Gemini Code Assist for individuals", "isDefault": True},
    {"id": "standard-tier", "name": "Gemini Code Assist", "userDefinedCloudaicompanionProject": True},
)


@dataclass
class _Onboarding:
    """One operation of onboardUser. The user gets the tier and the project when it is done."""

    polls_left: int
    tier: str
    project: str | None


class Service:
    """The state of the emulated account, and the response to each request; ``Emulator`` explains the attributes."""

    def __init__(self, accounts: Accounts) -> None:
        self.models: Collection[str] | None = None
        self.project: str | None = "emulator-project"
        self.tier: str | None = "free-tier"
        self.allowed_tiers: list[dict[str, Any]] = [dict(tier) for tier in _TIERS]
        self.ineligible_tiers: list[dict[str, Any]] = []
        self.onboarding_polls = 0
        self._accounts = accounts
        self._numbers = itertools.count(1)  # needs no lock, because next() is atomic
        self._lock = threading.Lock()  # guards _onboardings
        self._onboardings: dict[str, _Onboarding] = {}

    def parse(self, request: Recorded) -> ParsedRequest | None:
        """What a request asks for, or None if there is no such endpoint."""
        number = next(self._numbers)
        target = f"{request.method} {request.path}"
        matches = ((route, pattern.fullmatch(target)) for route, pattern in ENDPOINTS.items())
        route, found = next((pair for pair in matches if pair[1]), ("", None))
        if found is None:
            return None
        method, name = found["method"], found.groupdict().get("name")
        if route not in SIGNATURES:
            return ParsedRequest(route, method, name)
        body = _json_object(request)
        inner = _inner(route, body)
        given = (
            (inner if method == "countTokens" else body).get("model") if name is None else urllib.parse.unquote(name)
        )
        model = given.removeprefix("models/") if isinstance(given, str) else None
        texts = ["".join(str(part.get("text", "")) for part in _parts(content)) for content in _contents(inner)]
        sse = method == "streamGenerateContent" and request.query.get("alt") == "sse"
        prompt = texts[-1] if texts else ""
        return ParsedRequest(route, method, model, sse, prompt, count_tokens("".join(texts)), number)

    def refusal(self, parsed: ParsedRequest, request: Recorded, models: Collection[str] | None) -> Response | None:
        """The error for wrong credentials, a wrong body or a model that is not served; None if nothing is wrong."""
        try:
            self._check(parsed, request, models)
        except Refused as exc:
            return exc.response
        return None

    def _check(self, parsed: ParsedRequest, request: Recorded, models: Collection[str] | None) -> None:
        if parsed.route == "token":
            self._accounts.check_grant(request)
            return
        if parsed.route == "api_key":
            self._accounts.check_key(request)
        else:
            self._accounts.check_bearer(request)
        if request.method == "POST":
            self._check_body(parsed, request)
        if parsed.route in SIGNATURES:
            served = self.models if models is None else models
            if parsed.name is None:
                raise refusal(400, "model is not specified", fields={"model": "model is not specified"})
            if served is not None and parsed.name not in served:
                raise unknown_model(parsed.name)

    def _check_body(self, parsed: ParsedRequest, request: Recorded) -> None:
        try:
            body = request.json
        except ValueError as exc:
            text = f"Invalid JSON payload received. {exc}"
            raise refusal(400, text, fields={"": text}) from None
        if not isinstance(body, dict):
            text = "Invalid JSON payload received. The root is not an object."
            raise refusal(400, text, fields={"": text})
        if parsed.route in SIGNATURES:
            _check_contents(parsed.route, _inner(parsed.route, body))

    def respond(self, parsed: ParsedRequest, request: Recorded, answer: ScriptedAnswer | None) -> Response:
        """The response to a request that is not refused; ``answer`` is the scripted one, if there is any."""
        if answer is None and parsed.generates:
            answer = ScriptedAnswer()
        if answer is not None:
            return answer.response(parsed)
        handlers: dict[str, Callable[[], Response]] = {
            "token": lambda: self._accounts.grant(request),
            "countTokens": lambda: json_response({"totalTokens": parsed.prompt_tokens}),
            "loadCodeAssist": self._load_code_assist,
            "onboardUser": lambda: self._onboard(request),
            "retrieveUserQuota": lambda: json_response({"buckets": self._buckets()}),
            "GET": lambda: self._operation(str(parsed.name)),
        }
        try:
            return handlers[parsed.method]()
        except Refused as exc:  # the state of the account forbids it
            return exc.response

    def _load_code_assist(self) -> Response:
        known = [tier for tier in self.allowed_tiers if tier.get("id") == self.tier] or [{"id": self.tier}]
        state = {
            "currentTier": known[0] if self.tier else None,
            "allowedTiers": self.allowed_tiers,
            "ineligibleTiers": self.ineligible_tiers or None,
            "cloudaicompanionProject": self.project if self.tier else None,
        }
        return json_response({name: value for name, value in state.items() if value is not None})

    def _onboard(self, request: Recorded) -> Response:
        tier, project = request.json.get("tierId"), request.json.get("cloudaicompanionProject")
        if tier not in [allowed.get("id") for allowed in self.allowed_tiers]:
            raise refusal(400, "Request contains an invalid argument.", fields={"tier_id": f"no tier {tier!r}"})
        if tier == "free-tier" and project is not None:
            raise refusal(400, "Precondition failed", status="FAILED_PRECONDITION")
        with self._lock:
            name = f"operations/onboard-{len(self._onboardings) + 1}"
            self._onboardings[name] = _Onboarding(self.onboarding_polls + 1, tier, project or self.project)
        return self._operation(name)

    def _operation(self, name: str) -> Response:
        with self._lock:
            onboarding = self._onboardings.get(name)
            if onboarding is None:
                raise refusal(404, "Requested entity was not found.")
            onboarding.polls_left = max(onboarding.polls_left - 1, 0)
            if onboarding.polls_left:
                return json_response({"name": name})
        project = onboarding.project
        self.tier, self.project = onboarding.tier, project
        found = {"cloudaicompanionProject": {"id": project, "name": project, "projectNumber": "1"}}
        return json_response({"name": name, "done": True, "response": found if project else {}})

    def _buckets(self) -> list[dict[str, Any]]:
        models = sorted(self.models or ("gemini-2.5-flash", "gemini-2.5-pro"))
        bucket = {"tokenType": "REQUESTS", "remainingAmount": "900", "remainingFraction": 0.9}
        return [{"modelId": model, **bucket, "resetTime": "2030-01-01T00:00:00Z"} for model in models]


def _json_object(request: Recorded) -> dict[str, Any]:
    try:
        body = request.json
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _inner(route: str, body: dict[str, Any]) -> dict[str, Any]:
    """The object that holds ``contents``; Code Assist always wraps it, and a countTokens of the API key may wrap it."""
    inner = body.get("request") if route == "oauth" else body.get("generateContentRequest", body)
    return inner if isinstance(inner, dict) else {}


def _contents(inner: dict[str, Any]) -> list[dict[str, Any]]:
    contents = inner.get("contents")
    return [content for content in contents if isinstance(content, dict)] if isinstance(contents, list) else []


def _parts(content: dict[str, Any]) -> list[dict[str, Any]]:
    parts = content.get("parts")
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _check_contents(route: str, inner: dict[str, Any]) -> None:
    given, contents = inner.get("contents"), _contents(inner)
    if not given:
        text = "* GenerateContentRequest.contents: contents is not specified\n"
        raise refusal(400, text, fields={"contents": "contents is not specified"})
    if not isinstance(given, list) or len(contents) < len(given) or not all(map(_parts, contents)):
        text = "contents is a list of objects, each with a list of parts"
        raise refusal(400, f"Invalid JSON payload received. {text}.", fields={"contents": text})
    if any(content.get("role", "user") not in ("user", "model", "function") for content in contents):
        raise refusal(400, "Please use a valid role: user, model.", fields={"contents.role": "no such role"})
    foreign = set(SIGNATURES.values()) - {SIGNATURES[route]}
    if any(part.get("thoughtSignature") in foreign for content in contents for part in _parts(content)):
        raise refusal(400, "Corrupted thought signature.")
