"""Redirects are refused: following one would send the credentials to another host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests

from gemini_sync.errors import ProtocolError
from gemini_sync.redaction import redact_text, redacted_name

_HIDDEN_LOCATION = "X-Refused-Location"


def hide_location(response: requests.Response, **_: Any) -> None:
    """A response hook that renames the ``Location`` header.

    requests looks for that header even if it is told not to follow redirects: it then reads the whole body, which may
    have no end, and parses the target. Without the header it does neither.
    """
    if "Location" in response.headers:
        response.headers[_HIDDEN_LOCATION] = response.headers.pop("Location")


def refuse_redirect(status: int, headers: Mapping[str, str], secrets: Iterable[str] = ()) -> None:
    """Raises ``ProtocolError`` for a 3xx; it names the host of the target."""
    if 300 <= status < 400:
        host = ""
        with contextlib.suppress(ValueError):
            target = redact_text(headers.get(_HIDDEN_LOCATION) or "", secrets).replace("[redacted]", "redacted")
            host = redacted_name(urlsplit(target).hostname or "", secrets)
        raise ProtocolError(
            f"The server answered {status}, a redirect to {host or 'nowhere'}; it was not followed, because "
            "credentials would go along. If the service is there, set the endpoint to it; if not, a proxy or login "
            "page has answered: log in there, or check the proxies.",
            code=status,
        )
