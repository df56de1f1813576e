"""Knows how a Code Assist project is found, onboarding included, and keeps it; knows nothing of tokens' making."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional
from urllib.parse import quote

from gemini_sync.auth.single_flight import SingleFlight
from gemini_sync.auth.sources import Token
from gemini_sync.config import Endpoints, check_secret
from gemini_sync.errors import (
    SECURITY_POLICY_VIOLATED,
    VALIDATION_REQUIRED,
    ApiError,
    AuthError,
    ConfigError,
    CredentialsError,
    PermissionDeniedError,
    ProtocolError,
    QuotaError,
    ServerError,
)
from gemini_sync.network.deadlines import Call
from gemini_sync.network.transport import Transport
from gemini_sync.redaction import redacted_excerpt
from gemini_sync.services.base import bearer, fetch_json

_ANSWER_SECONDS = 30.0
_POLL_SECONDS = 5.0
_ONBOARDING_SECONDS = 120.0
_METADATA = {"ideType": "IDE_UNSPECIFIED", "platform": "PLATFORM_UNSPECIFIED", "pluginType": "GEMINI"}
_FREE_TIER = "free-tier"
_LEGACY_TIER = "legacy-tier"
_SET_PROJECT = "Set GOOGLE_CLOUD_PROJECT, or give project=, to the id of a Google Cloud project that has Code Assist."


class Projects:
    """The Code Assist project of whoever's token it is, found once and kept until other credentials take over."""

    def __init__(self, transport: Transport, endpoints: Endpoints, configured: Optional[str] = None) -> None:
        self._transport, self._configured = transport, configured
        self._base = f"{endpoints.code_assist}/v1internal"
        self._flight: SingleFlight[str] = SingleFlight()
        self._found: dict[str, str] = {}  # the project by the identity of the credentials in use
        self._asked_with: Optional[str] = None  # the token of the last question

    def project(self, call: Call, token: Token) -> str:
        """The project id for ``token``; one thread asks for all, and a failure is asked again.

        Raises:
            ConfigError: a project has to be set, or a project number was (reason ``"PROJECT_REQUIRED"``).
            PermissionDeniedError: the account may not use Code Assist; ``link`` is where Google lets that be mended.
            CredentialsError: Code Assist refused the questions, or onboarding did not end within 120 s.
            AuthError, QuotaError, ServerError, ProtocolError, TransportError: as for any request.
            DeadlineExceeded, StreamInterrupted: the ``total`` deadline of ``call`` passed, or it was cancelled.
        """
        known = self._found.get(token.identity)
        if known is not None:
            return known
        try:
            return self._flight.run(call, lambda: self._find(call, token), key=token.identity)
        except AuthError:
            if self._asked_with == token.access_token:
                raise
        # It was another thread's token that was refused, an older one perhaps.
        return self._flight.run(call, lambda: self._find(call, token), key=token.access_token)

    def _find(self, call: Call, token: Token) -> str:
        found = self._found
        if token.identity not in found:
            self._asked_with = token.access_token
            discovery = _Discovery(self._transport, self._base, call, token, self._configured)
            found = self._found = {token.identity: discovery.run()}
        return found[token.identity]


class _Discovery:
    """One discovery with one token (GC code_assist/setup.ts)."""

    def __init__(self, transport: Transport, base: str, call: Call, token: Token, configured: Optional[str]) -> None:
        self._transport, self._base, self._call, self._token = transport, base, call, token
        self._configured = _check_project(configured)

    def run(self) -> str:
        try:
            loaded = self._ask("POST", ":loadCodeAssist", self._question())
        except PermissionDeniedError as exc:
            # Inside a VPC-SC perimeter this method is closed, and everything else open: a standard-tier user.
            if not any(detail.get("reason") == SECURITY_POLICY_VIOLATED for detail in exc.details):
                raise
            if self._configured is None:
                raise PermissionDeniedError(
                    f"The project cannot be asked for inside a security perimeter. {_SET_PROJECT}",
                    code=exc.code,
                    status=exc.status,
                    reason=SECURITY_POLICY_VIOLATED,
                    details=exc.details,
                ) from exc
            return self._configured
        project = _project_in(loaded.get("cloudaicompanionProject"))
        if not isinstance(loaded.get("currentTier"), dict):
            project = self._onboard(_tier_for(loaded))
        project = project or self._configured
        if project is None:
            raise _ineligible(loaded) or ConfigError(
                f"Code Assist names no project for this account. {_SET_PROJECT}", reason="PROJECT_REQUIRED"
            )
        return project

    def _question(self, **fields: str) -> dict[str, Any]:
        question: dict[str, Any] = {**fields, "metadata": dict(_METADATA)}
        # The free tier brings its own project, and fails with Precondition Failed where one is sent.
        if self._configured is not None and fields.get("tierId") != _FREE_TIER:
            question["cloudaicompanionProject"] = question["metadata"]["duetProject"] = self._configured
        return question

    def _onboard(self, tier: str) -> Optional[str]:
        """The project that onboarding gave: a long-running operation, polled every 5 s for at most 120 s."""
        until = self._call.clock() + _ONBOARDING_SECONDS
        operation = self._ask("POST", ":onboardUser", self._question(tierId=tier))
        while not operation.get("done"):
            name = operation.get("name")
            if not isinstance(name, str) or not name:
                raise ProtocolError("onboardUser answered an operation that is not done and has no name to ask for.")
            if self._call.clock() + _POLL_SECONDS > until:
                raise CredentialsError(
                    f"Onboarding to Code Assist was not done within {_ONBOARDING_SECONDS:g} s. Try again later, or "
                    "finish it in the Gemini CLI."
                )
            self._call.sleep(_POLL_SECONDS)
            operation = self._ask("GET", "/" + quote(name, safe="/:"))
        response = operation.get("response")
        return _project_in(response.get("cloudaicompanionProject")) if isinstance(response, dict) else None

    def _ask(self, method: str, path: str, question: Optional[Mapping[str, Any]] = None) -> dict[str, Any]:
        try:
            return fetch_json(
                self._transport,
                self._call,
                method,
                self._base + path,
                bearer(self._token, self._call),
                question,
                seconds=_ANSWER_SECONDS,
                source=path[1:],
            )
        except (AuthError, PermissionDeniedError, QuotaError, ServerError):
            raise
        except ApiError as exc:
            raise _without_project(exc) from exc


def _without_project(error: ApiError) -> CredentialsError:
    """The caller did not make this request, so no change to a request of theirs would help."""
    return CredentialsError(
        f"Code Assist did not name a project: {error}",
        code=error.code,
        status=error.status,
        reason=error.reason,
        details=error.details,
        link=error.link,
        trace_id=error.trace_id,
    )


def _check_project(project: Optional[str]) -> Optional[str]:
    if project is None or project == "":
        return None
    project = check_secret(project, "project")
    if project.isdigit():
        raise ConfigError(
            f"{project} is the number of a project. Give its id: a name, as the Google Cloud console shows beside it.",
            reason="PROJECT_REQUIRED",
        )
    return project


def _project_in(value: Any) -> Optional[str]:
    """loadCodeAssist names it by a string, onboardUser by an object."""
    found = value.get("id") if isinstance(value, dict) else value
    return found if isinstance(found, str) and found else None


def _tiers(loaded: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    tiers = loaded.get(name)
    return [tier for tier in tiers if isinstance(tier, dict)] if isinstance(tiers, list) else []


def _tier_for(loaded: Mapping[str, Any]) -> str:
    """The tier to onboard to: the default one, else the legacy one; raises for an account that gets none."""
    refused = _tiers(loaded, "ineligibleTiers")
    allowed = _tiers(loaded, "allowedTiers")
    default = next((str(tier["id"]) for tier in allowed if tier.get("isDefault") and tier.get("id")), None)
    to_validate = any(tier.get("reasonCode") == VALIDATION_REQUIRED and tier.get("validationUrl") for tier in refused)
    not_that_one = default is not None and default in [tier.get("tierId") for tier in refused]
    error = _ineligible(loaded)
    if error is not None and (to_validate or not_that_one or not allowed):
        raise error
    return default or _LEGACY_TIER


def _ineligible(loaded: Mapping[str, Any]) -> Optional[PermissionDeniedError]:
    """The error of an account that Google names reasons against; None where it names none."""
    refused = _tiers(loaded, "ineligibleTiers")
    if not refused:
        return None
    # The one with a link first: it is the one that can be mended.
    refused.sort(key=lambda tier: not tier.get("validationUrl"))
    words = [str(tier.get("reasonMessage") or tier.get("reasonCode") or "no reason given") for tier in refused]
    link, reason = refused[0].get("validationUrl"), refused[0].get("reasonCode")
    return PermissionDeniedError(
        f"This account may not use Code Assist: {redacted_excerpt(' '.join(words))} "
        + (f"See {link}" if link else "Use another account, or an API key."),
        reason=reason if isinstance(reason, str) else None,
        link=link if isinstance(link, str) else None,
    )


def load_code_assist(access_token: str, project: Optional[str] = None, *, endpoints: Endpoints = Endpoints()) -> str:
    """The Code Assist project id of the account behind ``access_token``, onboarding it when needed.

    Args:
        project: the id of a Google Cloud project of your own, for accounts that need one.

    Raises:
        ConfigError: ``access_token`` cannot be one. For the rest see ``Projects.project``.
    """
    token = Token(check_secret(access_token, "access_token"), None)
    transport = Transport()
    try:
        return Projects(transport, endpoints, project).project(Call().start(), token)
    finally:
        transport.close()
