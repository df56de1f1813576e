"""Google's side of the wire: which endpoints there are, what they check and what they answer; no sockets."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Collection
from typing import Any, Callable

from gemini_sync.testing.emulator.accounts import Accounts
from gemini_sync.testing.emulator.answers import SIGNATURES, Answer, Call, count_tokens
from gemini_sync.testing.emulator.rpc import Refused, refusal, unknown_model
from gemini_sync.testing.emulator.wire import Recorded, Response, json_response

_METHODS = "(?P<method>streamGenerateContent|generateContent|countTokens)"

#: What each route serves (ai.google.dev/api; GC code_assist/server.ts).
_ENDPOINTS = {
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


class Service(Accounts):
    """The emulated Google: settable state, and the answer to each call.

    `models`: the models served (None: any). `project`: the user's Code Assist project (None: none is named).
    `tier`: the id of the user's tier, None for a user who has to be onboarded. `allowed_tiers` and
    `ineligible_tiers`: as loadCodeAssist shows them. `onboarding_polls`: how many times the operation is to
    be polled until it is done; 0 is done at once.
    """

    def __init__(self, *, key: str, client_id: str, client_secret: str, clock: Callable[[], float]) -> None:
        super().__init__(key=key, client_id=client_id, client_secret=client_secret, clock=clock)
        self.models: Collection[str] | None = None
        self.project: str | None = "emulator-project"
        self.tier: str | None = "free-tier"
        self.allowed_tiers: list[dict[str, Any]] = [dict(tier) for tier in _TIERS]
        self.ineligible_tiers: list[dict[str, Any]] = []
        self.onboarding_polls = 0
        self._operations: dict[str, list[Any]] = {}  # name -> [polls left, tier, project]; under _lock

    def locate(self, request: Recorded, number: int) -> Call | None:
        """The call that a request makes, or None where there is no such endpoint; `number` tells calls apart."""
        target = f"{request.method} {request.path}"
        matches = ((route, pattern.fullmatch(target)) for route, pattern in _ENDPOINTS.items())
        route, found = next((pair for pair in matches if pair[1]), ("", None))
        if found is None:
            return None
        method, name = found["method"], found.groupdict().get("name")
        if route not in SIGNATURES:
            return Call(route, method, name)
        body = _loads(request)
        inner = _inner(route, body)
        given = (
            (inner if method == "countTokens" else body).get("model") if name is None else urllib.parse.unquote(name)
        )
        model = given.removeprefix("models/") if isinstance(given, str) else None
        texts = ["".join(str(part.get("text", "")) for part in _parts(content)) for content in _contents(inner)]
        sse = method == "streamGenerateContent" and request.query.get("alt") == "sse"
        return Call(route, method, model, sse, texts[-1] if texts else "", count_tokens("".join(texts)), number)

    def refusal(self, call: Call, request: Recorded, models: Collection[str] | None) -> Response | None:
        """What Google would turn the call down with: for its credentials, its body, or a model not served."""
        try:
            self._check(call, request, models)
        except Refused as exc:
            return exc.response
        return None

    def _check(self, call: Call, request: Recorded, models: Collection[str] | None) -> None:
        if call.route == "token":
            self.check_grant(request)
            return
        if call.route == "api_key":
            self.check_key(request)
        else:
            self.check_bearer(request)
        if request.method == "POST":
            self._check_body(call, request)
        if call.route in SIGNATURES:
            served = self.models if models is None else models
            if call.name is None:
                raise refusal(400, "model is not specified", fields={"model": "model is not specified"})
            if served is not None and call.name not in served:
                raise unknown_model(call.name)

    def _check_body(self, call: Call, request: Recorded) -> None:
        try:
            body = request.json
        except ValueError as exc:
            text = f"Invalid JSON payload received. {exc}"
            raise refusal(400, text, fields={"": text}) from None
        if not isinstance(body, dict):
            text = "Invalid JSON payload received. The root is not an object."
            raise refusal(400, text, fields={"": text})
        if call.route in SIGNATURES:
            _check_contents(call.route, _inner(call.route, body))

    def respond(self, call: Call, request: Recorded, answer: Answer | None) -> Response:
        """The answer to a call that is not refused; a fitting scripted answer goes first."""
        if answer is not None:
            return answer.response(call)
        if call.generates:
            return Answer().response(call)
        answers: dict[str, Callable[[], Response]] = {
            "token": self.grant,
            "countTokens": lambda: json_response({"totalTokens": call.prompt_tokens}),
            "loadCodeAssist": self._load_code_assist,
            "onboardUser": lambda: self._onboard(request),
            "retrieveUserQuota": lambda: json_response({"buckets": self._buckets()}),
            "GET": lambda: self._operation(str(call.name)),
        }
        try:
            return answers[call.method]()
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
            name = f"operations/onboard-{len(self._operations) + 1}"
            self._operations[name] = [self.onboarding_polls + 1, tier, project or self.project]
        return self._operation(name)

    def _operation(self, name: str) -> Response:
        with self._lock:
            operation = self._operations.get(name)
            if operation is None:
                raise refusal(404, "Requested entity was not found.")
            operation[0] = max(operation[0] - 1, 0)
            left, tier, project = operation
        if left:
            return json_response({"name": name})
        self.tier, self.project = tier, project
        found = {"cloudaicompanionProject": {"id": project, "name": project, "projectNumber": "1"}}
        return json_response({"name": name, "done": True, "response": found if project else {}})

    def _buckets(self) -> list[dict[str, Any]]:
        models = sorted(self.models or ("gemini-2.5-flash", "gemini-2.5-pro"))
        bucket = {"tokenType": "REQUESTS", "remainingAmount": "900", "remainingFraction": 0.9}
        return [{"modelId": model, **bucket, "resetTime": "2030-01-01T00:00:00Z"} for model in models]


def _loads(request: Recorded) -> dict[str, Any]:
    try:
        body = request.json
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _inner(route: str, body: dict[str, Any]) -> dict[str, Any]:
    """Where `contents` is: wrapped in `request` for Code Assist; countTokens has a second form, too."""
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
