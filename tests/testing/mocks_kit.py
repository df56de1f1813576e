"""Shared by the tests of ``add_stream`` and ``add_error``: clients of each service, with made-up credentials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import requests

from gemini_sync import GeminiDualAdapter, OAuthClient, Reply, stream_gemini_api_key, stream_gemini_oauth
from tests.testing.cassette_kit import QUICK

VERTEX = "https://{host}/v1beta1/projects/p/locations/{location}/publishers/google/models/{model}"
STREAM = ":streamGenerateContent?alt=sse"


def ask(route: str = "api_key", model: str = "gemini-3.8-flash", *, iterate: bool = True, **settings: Any) -> Reply:
    settings = {**QUICK, **settings}
    if route == "oauth":
        reply = stream_gemini_oauth("Why?", "a-token", "a-project", model, **settings)
    else:
        reply = stream_gemini_api_key("Why?", "a-key-of-mine", model, **settings)
    if iterate:
        for _ in reply:
            pass
    return reply


def ask_vertex(
    host: str = "aiplatform.googleapis.com", location: str = "global", model: str = "gemini-3.8-flash"
) -> requests.Response:
    url = VERTEX.format(host=host, location=location, model=model) + STREAM
    return requests.post(url, json={"contents": []}, headers={"Authorization": "Bearer t"}, timeout=5)


def events_of(response: requests.Response) -> list[Any]:
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.content.endswith(b"\r\n\r\n")
    return [json.loads(event.removeprefix("data: ")) for event in response.text.split("\r\n\r\n")[:-1]]


def dual(folder: Path, *, expired: bool = True, **settings: Any) -> GeminiDualAdapter:
    """An adapter with both credentials; the access token in the file has expired, or lasts for long."""
    token = {"refresh_token": "a-refresh-token", "access_token": "old", "expiry_date": 1 if expired else 10**14}
    path = folder / "creds.json"
    path.write_text(json.dumps(token))
    path.chmod(0o600)
    return GeminiDualAdapter("a-key-of-mine", path, oauth_client=OAuthClient("a", "b"), **{**QUICK, **settings})
