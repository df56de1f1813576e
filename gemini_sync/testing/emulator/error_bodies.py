"""The error bodies that Google sends: google.rpc.Status, and the token endpoint's own form."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from typing import Any

from gemini_sync.testing.emulator.messages import Response, json_response

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
