"""The readers that are compared; each yields the text of one canned answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Optional, cast
from urllib.parse import urlsplit

import requests
import sseclient
from google import genai

from gemini_sync import Chunk, Endpoints, GeminiDualAdapter, Reply, stream_gemini_api_key
from tests.benchmark.payload import Answer

Reader = Callable[[Answer], Iterator[str]]

OURS = "gemini_sync"
CHUNKS = "gemini_sync .chunks()"
OAUTH = "gemini_sync OAuth"
PLAIN = "gemini_sync plain function"
GENAI = "google-genai"
SSECLIENT = "sseclient alone"
REQUESTS = "requests + iter_lines"
HTTP_CLIENT = "http.client loop"
FLOOR = "floor: one read, split"

_KEY = "benchmark-key"
_PROMPT = "Why is the sky blue?"
_BODY = json.dumps({"contents": [{"role": "user", "parts": [{"text": _PROMPT}]}]}).encode()
_HEADERS = {"x-goog-api-key": _KEY, "Content-Type": "application/json"}


def _path(answer: Answer) -> str:
    return f"/v1beta/models/{answer.name}:streamGenerateContent?alt=sse"


def text_in(decoded: Any) -> str:
    """The text of an event, as a simple loop would read it."""
    return decoded["candidates"][0]["content"]["parts"][0]["text"]  # type: ignore[no-any-return]


class Readers:
    """All readers of one server; each keeps its connections until ``close()``.

    Args:
        url: the base URL of the server.
        bundle: the CA bundle if the server speaks TLS; requests and gemini_sync read REQUESTS_CA_BUNDLE instead.
    """

    def __init__(self, url: str, bundle: Optional[str] = None) -> None:
        self._url = url
        self._endpoints = Endpoints(gemini=url, code_assist=url, token=f"{url}/token")
        self.adapter = GeminiDualAdapter(_KEY, endpoints=self._endpoints)
        self._oauth_adapter = GeminiDualAdapter(
            oauth_creds_path=lambda: "benchmark-token", project="a-project", endpoints=self._endpoints
        )
        verify: Any = ssl.create_default_context(cafile=bundle) if bundle else True
        options = genai.types.HttpOptions(base_url=url, client_args={"verify": verify})
        self._client = genai.Client(api_key=_KEY, http_options=options)
        self._session = requests.Session()
        parts = urlsplit(url)
        kind = http.client.HTTPConnection if bundle is None else http.client.HTTPSConnection
        self._connection = kind(parts.hostname or "", parts.port, **({"context": verify} if bundle else {}))

    def close(self) -> None:
        self.adapter.close()
        self._oauth_adapter.close()
        self._client.close()
        self._session.close()
        self._connection.close()

    def named(self, *names: str) -> dict[str, Reader]:
        every: dict[str, Reader] = {
            OURS: self.ours,
            CHUNKS: self.ours_as_chunks,
            OAUTH: self.ours_over_oauth,
            PLAIN: self.ours_plain,
            GENAI: self.google_genai,
            SSECLIENT: self.sseclient,
            REQUESTS: self.requests,
            HTTP_CLIENT: self.http_client,
            FLOOR: self.floor,
        }
        return {name: every[name] for name in names or every}

    def ours(self, answer: Answer) -> Reply:
        return self.adapter.stream(_PROMPT, model=answer.name)

    def ours_chunks(self, answer: Answer) -> Iterator[Chunk]:
        return self.adapter.stream(_PROMPT, model=answer.name).chunks()

    def ours_as_chunks(self, answer: Answer) -> Iterator[str]:
        return (chunk.text for chunk in self.ours_chunks(answer))

    def ours_over_oauth(self, answer: Answer) -> Iterator[str]:
        return self._oauth_adapter.stream(_PROMPT, model=answer.name)

    def ours_plain(self, answer: Answer) -> Iterator[str]:
        return stream_gemini_api_key(_PROMPT, _KEY, answer.name, endpoints=self._endpoints)

    def google_genai_chunks(self, answer: Answer) -> Iterator[Any]:
        return self._client.models.generate_content_stream(model=answer.name, contents=_PROMPT)

    def google_genai(self, answer: Answer) -> Iterator[str]:
        return (chunk.text or "" for chunk in self.google_genai_chunks(answer))

    def _post(self, answer: Answer) -> requests.Response:
        return self._session.post(self._url + _path(answer), data=_BODY, headers=_HEADERS, stream=True)

    def sseclient(self, answer: Answer) -> Iterator[str]:
        with self._post(answer) as response:
            for event in sseclient.SSEClient(cast("Any", response)).events():
                yield text_in(json.loads(event.data))

    def requests(self, answer: Answer) -> Iterator[str]:
        with self._post(answer) as response:
            for line in response.iter_lines():
                if line.startswith(b"data:"):
                    yield text_in(json.loads(line[5:]))

    def http_client(self, answer: Answer) -> Iterator[str]:
        self._connection.request("POST", _path(answer), _BODY, _HEADERS)
        with self._connection.getresponse() as response:
            loads, readline = json.loads, response.readline
            while line := readline():
                if line.startswith(b"data:"):
                    yield loads(line[5:])["candidates"][0]["content"]["parts"][0]["text"]

    def floor(self, answer: Answer) -> Iterator[str]:
        self._connection.request("POST", _path(answer), _BODY, _HEADERS)
        with self._connection.getresponse() as response:
            loads = json.loads
            for event in response.read().split(b"\r\n\r\n"):
                if event:
                    yield loads(event[5:])["candidates"][0]["content"]["parts"][0]["text"]


@contextlib.contextmanager
def reading(url: str, bundle: Optional[str] = None) -> Iterator[Readers]:
    readers = Readers(url, bundle)
    try:
        yield readers
    finally:
        readers.close()
