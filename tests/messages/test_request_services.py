"""Tests of what a request may name for one service alone: files and cached contents."""

from __future__ import annotations

from typing import Any

import pytest

from gemini_sync.errors import ConfigError
from gemini_sync.messages.request import CODE_ASSIST, GEMINI_API, body_for, build

UPLOADED = "https://generativelanguage.googleapis.com/v1beta/files/abc-123"
OF_THE_GEMINI_API = [
    UPLOADED,
    UPLOADED.replace("v1beta", "v1"),
    UPLOADED + ":download?alt=media",
    UPLOADED.replace("https", "HTTPS"),
    UPLOADED.replace("language.", "language.mtls."),
    "files/abc-123",
]
OF_NO_SERVICE = [
    "https://www.youtube.com/watch?v=abc",
    "https://youtu.be/abc",
    "https://example.com/v1beta/files/abc",
    "https://storage.googleapis.com/bucket/files/abc?X-Goog-Signature=a",
    "https://generativelanguage.googleapis.com.example.com/v1beta/files/abc",
    "https://example.com/?next=https://generativelanguage.googleapis.com/v1beta/files/abc",
    "http://example.com/gs://x",
    "profiles/abc",
    "",
]
CACHES_OF_VERTEX = [
    "projects/p/locations/us-central1/cachedContents/1",
    "//aiplatform.googleapis.com/projects/p/locations/global/cachedContents/1",
]


def file(uri: Any) -> dict[str, Any]:
    return {"fileData": {"mimeType": "image/png", "fileUri": uri}}


def result(*parts: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": "f", "response": {"fileData": file("gs://b/o")}, "parts": list(parts)}}


def refusal(service: str, contents: Any, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        body_for(build(contents, **options), service)
    assert caught.value.reason == "BOUND_TO_OTHER_SERVICE"
    return caught.value


@pytest.mark.parametrize("uri", [*OF_THE_GEMINI_API, "gs://bucket/object", "GS://bucket/object"])
def test_file__of_another_service_is_named(uri: str) -> None:
    message = str(refusal(CODE_ASSIST, ["Hi", {"role": "model", "parts": ["Hm."]}, "What is it?", file(uri)]))
    assert message.startswith("contents[2].parts[1].fileData.fileUri is a file of ")
    assert "the Gemini API" in message
    assert "Code Assist cannot use it" in message
    assert "inlineData" in message
    assert "the API key alone" in message


@pytest.mark.parametrize("uri", [*OF_THE_GEMINI_API, *OF_NO_SERVICE, "gs://bucket/registered"])
def test_file__that_the_gemini_api_may_have_passes(uri: str) -> None:
    body = body_for(build(["Hi", file(uri)], system_instruction=file(uri)), GEMINI_API)
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Hi"}, file(uri)]}]


@pytest.mark.parametrize("uri", [*OF_NO_SERVICE, None, 5])
def test_file__of_no_service_passes(uri: Any) -> None:
    body = body_for(build(["Hi", file(uri), result(file(uri))]), CODE_ASSIST)
    assert body["contents"][0]["parts"][1:] == [file(uri), result(file(uri))]


@pytest.mark.parametrize(
    ("contents", "options", "path"),
    [
        (["Hi", file(UPLOADED)], {}, "contents[0].parts[1].fileData.fileUri"),
        ("Hi", {"system_instruction": ["Look:", file(UPLOADED)]}, "systemInstruction.parts[1].fileData.fileUri"),
        ([result({}, file(UPLOADED))], {}, "contents[0].parts[0].functionResponse.parts[1].fileData.fileUri"),
    ],
)
def test_file__every_place(contents: Any, options: Any, path: str) -> None:
    assert str(refusal(CODE_ASSIST, contents, **options)).startswith(f"{path} is a file of the Gemini API.")


@pytest.mark.parametrize(
    "part",
    [
        {"text": UPLOADED},
        {"functionCall": {"name": "f", "args": file(UPLOADED)}},
        {"functionResponse": {"name": "f", "response": file(UPLOADED)}},
        {"fileData": None},
        {"fileData": [UPLOADED]},
        {"functionResponse": {"parts": [None, "x", file(None)]}},
        {"functionResponse": []},
    ],
)
def test_file__that_is_only_data_passes(part: dict[str, Any]) -> None:
    assert body_for(build(["Hi", part]), CODE_ASSIST)["contents"][0]["parts"][1] == part


def test_cache__of_the_gemini_api() -> None:
    assert body_for(build("Hi", cached_content="cachedContents/x"), GEMINI_API)["cachedContent"] == "cachedContents/x"
    message = str(refusal(CODE_ASSIST, "Hi", cached_content="cachedContents/x"))
    assert message.startswith("cachedContent is a cached content of the Gemini API. Code Assist cannot use it")
    assert "the API key alone" in message


@pytest.mark.parametrize("name", CACHES_OF_VERTEX)
@pytest.mark.parametrize("service", [GEMINI_API, CODE_ASSIST])
def test_cache__of_vertex_ai(service: str, name: str) -> None:
    message = str(refusal(service, "Hi", cached_content=name))
    assert message.startswith("cachedContent is a cached content of Vertex AI.")
    assert "the API key alone" not in message


@pytest.mark.parametrize("service", [GEMINI_API, CODE_ASSIST])
def test_cache__in_no_known_form_passes(service: str) -> None:
    assert body_for(build("Hi", cached_content="my-cache"), service)["cachedContent"] == "my-cache"
