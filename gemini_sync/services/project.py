"""The Code Assist project of an account: the configured one, else asked for once, with onboarding if that is needed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import closing
from typing import Any, NamedTuple, Optional, Union
from urllib.parse import quote

from gemini_sync import errors
from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.single_flight import SingleFlight
from gemini_sync.config import Endpoints, check_secret
from gemini_sync.messages.api_errors import next_step, replace_next_step
from gemini_sync.messages.rest_json import dict_of, list_of, text_of
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.redaction import redacted_excerpt
from gemini_sync.services.base import JsonApi, bearer

_ANSWER_SECONDS = 30.0
_POLL_SECONDS = 5.0
_ONBOARDING_SECONDS = 120.0
_METADATA = {"ideType": "IDE_UNSPECIFIED", "platform": "PLATFORM_UNSPECIFIED", "pluginType": "GEMINI"}
_FREE_TIER = "free-tier"
_LEGACY_TIER = "legacy-tier"
_SET_PROJECT = (
    "Give the id of a Google Cloud project that has Code Assist: as project=, or in GOOGLE_CLOUD_PROJECT for "
    "from_env() and the command line."
)
_GIVE_ID = "Give its id, which the Google Cloud console shows beside its name and number."


class _Outcome(NamedTuple):
    """What one search came to: a project, or that the server refused ``token``."""

    token: AccessToken
    project: Union[str, errors.AuthError]


class Projects:
    """The configured project. If there is none, finds that of a token once, until other credentials take over."""

    def __init__(self, transport: Transport, endpoints: Endpoints, configured: Optional[str] = None) -> None:
        self._api = JsonApi(transport, endpoints.code_assist_api)
        self._configured = configured
        self._flight: SingleFlight[_Outcome] = SingleFlight()
        self._found: dict[str, str] = {}  # the project by the identity of the credentials in use

    def project(self, call: Call, token: AccessToken) -> str:
        """The project id for ``token``. Code Assist is asked only if no project is configured.

        One thread asks for all, and after a failure the next call asks again.

        Raises:
            ConfigError: a project has to be set, or a project number was (reason ``"PROJECT_REQUIRED"``).
            PermissionDeniedError: the account may not use Code Assist; ``link`` is a page that explains the way out.
            CredentialsError: Code Assist refused the questions, or onboarding did not end within 120 s.
            AuthError, QuotaError, ServerError, ProtocolError, TransportError: as for any request.
            DeadlineExceeded, StreamInterrupted: the ``total`` deadline of ``call`` passed, or it was cancelled.
        """
        known = self._found.get(token.identity)
        if known is not None:
            return known
        configured = _check_project(self._configured)
        if configured is not None:
            self._found = {token.identity: configured}
            return configured
        outcome = self._flight.run(call, lambda: self._find(call, token), key=token.identity)
        if isinstance(outcome.project, errors.AuthError) and outcome.token.access_token != token.access_token:
            # The server refused the token of another thread, which says nothing about this one.
            outcome = self._flight.run(call, lambda: self._find(call, token), key=token.access_token)
        if isinstance(outcome.project, errors.AuthError):
            raise copy.copy(outcome.project)
        return outcome.project

    def _find(self, call: Call, token: AccessToken) -> _Outcome:
        known = self._found.get(token.identity)  # another thread may have found it since project() looked
        if known is not None:
            return _Outcome(token, known)
        try:
            project = _Search(self._api, call, token).run()
        except errors.AuthError as exc:
            return _Outcome(token, copy.copy(exc))
        self._found = {token.identity: project}
        return _Outcome(token, project)


class _Search:
    """The questions of one search with one token (GC code_assist/setup.ts)."""

    def __init__(self, api: JsonApi, call: Call, token: AccessToken, own: Optional[str] = None) -> None:
        self._api, self._call, self._headers = api, call, bearer(token, call)
        self._own = _check_project(own)  # a project of the caller's own, which onboarding may need

    def run(self) -> str:
        try:
            loaded = self._ask("POST", ":loadCodeAssist", self._question())
        except errors.PermissionDeniedError as exc:
            # Inside a VPC-SC perimeter this method is closed and all others are open: a user of the standard tier.
            if not any(detail.get("reason") == errors.SECURITY_POLICY_VIOLATED for detail in exc.details):
                raise
            if self._own is not None:
                return self._own
            replace_next_step(exc, f"The project cannot be asked for inside a security perimeter. {_SET_PROJECT}")
            exc.reason = errors.SECURITY_POLICY_VIOLATED
            raise
        project = _project_in(loaded.get("cloudaicompanionProject"))
        if not isinstance(loaded.get("currentTier"), dict):
            project = self._onboard(_tier_for(loaded))
        project = self._own or project
        if project is not None:
            return project
        message = f"Code Assist names no project for this account. {_SET_PROJECT}"
        raise _ineligible(loaded) or errors.ConfigError(message, reason="PROJECT_REQUIRED")

    def _question(self, **fields: str) -> dict[str, Any]:
        question: dict[str, Any] = {**fields, "metadata": dict(_METADATA)}
        # The free tier has a project of its own, and answers Precondition Failed if a request names another.
        if self._own is not None and fields.get("tierId") != _FREE_TIER:
            question["cloudaicompanionProject"] = question["metadata"]["duetProject"] = self._own
        return question

    def _onboard(self, tier: str) -> Optional[str]:
        """The project that onboarding gave: a long-running operation, polled every 5 s for at most 120 s."""
        until = self._call.clock() + _ONBOARDING_SECONDS
        operation = self._ask("POST", ":onboardUser", self._question(tierId=tier))
        polls = 0
        while not operation.get("done"):
            name = operation.get("name")
            if not isinstance(name, str) or not name:
                raise errors.ProtocolError(
                    "onboardUser answered an operation that is not done and has no name to ask for."
                )
            polls += 1  # counted as well, because a clock of a test may stand still
            if self._call.clock() + _POLL_SECONDS > until or polls * _POLL_SECONDS > _ONBOARDING_SECONDS:
                raise errors.CredentialsError(
                    f"Onboarding to Code Assist was not done within {_ONBOARDING_SECONDS:g} s. Try again later, or "
                    "finish it in the Gemini CLI."
                )
            self._call.sleep(_POLL_SECONDS)
            operation = self._ask("GET", "/" + quote(name, safe="/:"))
        return _project_in(dict_of(operation.get("response")).get("cloudaicompanionProject"))

    def _ask(self, method: str, path: str, question: Optional[Mapping[str, Any]] = None) -> dict[str, Any]:
        try:
            return self._api.fetch(
                self._call, method, path, self._headers, question, seconds=_ANSWER_SECONDS, source=path[1:]
            )
        except (errors.AuthError, errors.PermissionDeniedError, errors.QuotaError, errors.ServerError):
            raise
        except errors.ApiError as exc:
            # An InvalidRequestError would tell callers to change their request, but this one is ours.
            kept = {name: getattr(exc, name) for name in ("code", "status", "reason", "details", "link", "trace_id")}
            said = str(exc).removesuffix(next_step(type(exc), exc.reason, exc.status, exc.code))
            step = "" if exc.link else "Check the project, Endpoints.code_assist, and what this account may use."
            raise errors.CredentialsError(f"Code Assist did not name a project: {said}{step}", **kept) from exc


def _check_project(project: Optional[str]) -> Optional[str]:
    if project is None or project == "":
        return None
    project = check_secret(project, "project", _GIVE_ID)
    if project.isdigit():
        raise errors.ConfigError(f"{project} is the number of a project. {_GIVE_ID}", reason="PROJECT_REQUIRED")
    return project


def _project_in(value: Any) -> Optional[str]:
    """The project in an answer: loadCodeAssist names it by a string, onboardUser by an object."""
    return text_of(value.get("id") if isinstance(value, dict) else value)


def _tiers(loaded: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [tier for tier in list_of(loaded.get(name)) if isinstance(tier, dict)]


def _tier_for(loaded: Mapping[str, Any]) -> str:
    """The tier to onboard to: the default one, else the legacy one. Raises for an account that gets none."""
    allowed, refused = _tiers(loaded, "allowedTiers"), _tiers(loaded, "ineligibleTiers")
    default = next((str(tier["id"]) for tier in allowed if tier.get("isDefault") and tier.get("id")), None)
    validation = errors.VALIDATION_REQUIRED
    must_validate = any(tier.get("reasonCode") == validation and tier.get("validationUrl") for tier in refused)
    default_refused = default is not None and default in [tier.get("tierId") for tier in refused]
    error = _ineligible(loaded)
    if error is not None and (must_validate or default_refused or not allowed):
        raise error
    return default or _LEGACY_TIER


def _ineligible(loaded: Mapping[str, Any]) -> Optional[errors.PermissionDeniedError]:
    """The error of an account that may not use Code Assist; None if Google names no reason against it."""
    refused = _tiers(loaded, "ineligibleTiers")
    if not refused:
        return None
    refused.sort(key=lambda tier: not tier.get("validationUrl"))  # first the reason that the user can remove
    words = [str(tier.get("reasonMessage") or tier.get("reasonCode") or "no reason given") for tier in refused]
    link, reason = refused[0].get("validationUrl"), refused[0].get("reasonCode")
    return errors.PermissionDeniedError(
        f"This account may not use Code Assist: {redacted_excerpt(' '.join(words))} "
        + (f"See {link}" if link else "Use another account, or an API key."),
        reason=text_of(reason),
        link=text_of(link),
    )


def load_code_assist(access_token: str, project: Optional[str] = None, *, endpoints: Endpoints = Endpoints()) -> str:
    """The Code Assist project id of the account behind ``access_token``, which is onboarded if that is needed.

    Args:
        project: the id of a Google Cloud project of your own. The account is onboarded with it, and it is the result.

    Raises:
        ConfigError: ``access_token`` cannot be one. For the rest see ``Projects.project``.
    """
    token = AccessToken(check_secret(access_token, "access_token"))
    with closing(Transport()) as transport:
        return _Search(JsonApi(transport, endpoints.code_assist_api), Call().start(), token, project).run()
