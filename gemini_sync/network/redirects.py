"""Redirects are refused: following one would send the credentials to another host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional
from urllib.parse import urlsplit

import requests

from gemini_sync.errors import ProtocolError

_LOCATION = "X-Refused-Location"


def hide_redirect(response: requests.Response, **_: Any) -> None:
    """A response hook that hides the Location, because requests would read the whole body and parse the target."""
    if "Location" in response.headers:
        response.headers[_LOCATION] = response.headers.pop("Location")


def refuse_redirect(status: int, headers: Mapping[str, str]) -> None:
    """Raises ``ProtocolError`` for a 3xx; it names the host of the target."""
    if 300 <= status < 400:
        host: Optional[str]
        try:
            host = urlsplit(headers.get(_LOCATION) or "").hostname
        except ValueError:
            host = None
        raise ProtocolError(
            f"The server answered {status}, a redirect to {host or 'nowhere'}; it was not followed, because "
            "credentials would go along. Set the endpoint to where the service is.",
            code=status,
        )
