"""Uses the public names as callers do. Only mypy reads this file, and each line is a promise about types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import requests
from typing_extensions import assert_type

from gemini_sync import (
    Attempt,
    Blob,
    Chunk,
    Content,
    Decision,
    Endpoints,
    Explanation,
    FallbackEvent,
    FunctionCall,
    GeminiDualAdapter,
    GeminiSyncError,
    GenerationConfig,
    OAuthClient,
    Reply,
    Retry,
    RouteStatus,
    StreamInterrupted,
    Timeouts,
    Usage,
    decide,
    explain,
    get_access_token,
    load_code_assist,
    stream_gemini_api_key,
    stream_gemini_oauth,
)
from gemini_sync.testing import CassetteError, Emulator, UnmatchedRequest, record, replay


def on_fallback(event: FallbackEvent) -> None:
    assert_type(event.from_route, str)
    assert_type(event.model, Optional[str])


def policy(error: BaseException) -> Decision:
    assert_type(explain(error), Explanation)
    return decide(error)


def adapters() -> Iterator[GeminiDualAdapter]:
    yield GeminiDualAdapter("key")
    yield GeminiDualAdapter(oauth_creds_path=Path("creds.json"), oauth_client=OAuthClient("id", "secret"))
    yield GeminiDualAdapter(None, lambda: "token", project="project")
    yield GeminiDualAdapter(
        "key",
        "creds.json",
        model="gemini-3.5-flash",
        endpoints=Endpoints(gemini="http://127.0.0.1:1"),
        timeouts=Timeouts(total=30),
        retry=Retry(max_attempts=1),
        fallback=True,
        sticky_for=600,
        remind_every=86400,
        quota_by_model=True,
        on_fallback=on_fallback,
        policy=policy,
        require_finish=False,
        max_event_bytes=2**20,
        persist_credentials=False,
        session_factory=requests.Session,
    )
    assert_type(GeminiDualAdapter.from_env(fallback=False), GeminiDualAdapter)
    yield GeminiDualAdapter.from_env(sticky_for="hint", remind_every=None)
    GeminiDualAdapter("key", sticky_for="hints")  # type: ignore[arg-type]
    GeminiDualAdapter("key", "creds.json", "gemini-3.5-flash")  # type: ignore[call-arg, arg-type]
    GeminiDualAdapter(timeout=3)  # type: ignore[call-arg]


def calls(adapter: GeminiDualAdapter) -> None:
    history: list[Content] = [{"role": "user", "parts": [{"text": "Hello"}]}]
    config: GenerationConfig = {"temperature": 0.5, "thinkingConfig": {"includeThoughts": True}}
    assert_type(adapter.stream("Hello"), Reply)
    assert_type(adapter.stream(history, generation_config=config, timeouts=Timeouts(idle=None)), Reply)
    assert_type(adapter.generate(["Hello", {"text": "again"}], system_instruction="Be brief."), Reply)
    assert_type(adapter.count_tokens({"text": "Hello"}), int)
    adapter.stream("Hello", generation_config={"temprature": 1})  # type: ignore[arg-type]
    adapter.stream(3)  # type: ignore[arg-type]
    assert_type(adapter.fallback_active, bool)
    assert_type(adapter.route_status(), RouteStatus)
    with adapter as same:
        assert_type(same, GeminiDualAdapter)


def replies(reply: Reply) -> None:
    with reply as same:
        assert_type(same, Reply)
        assert_type(next(same), str)
        for text in same:
            assert_type(text, str)
        for chunk in same.chunks():
            assert_type(chunk, Chunk)
            assert_type(chunk.raw, dict[str, Any])
            assert_type(chunk.text, str)
    assert_type(reply.text, str)
    assert_type(reply.usage, Optional[Usage])
    assert_type(reply.finish_reason, Optional[str])
    assert_type(reply.route, Optional[str])
    assert_type(reply.attempts, tuple[Attempt, ...])
    assert_type(reply.function_calls, tuple[FunctionCall, ...])
    assert_type(reply.inline_data, tuple[Blob, ...])
    reply.cancel()


def errors(error: GeminiSyncError, interrupted: StreamInterrupted) -> None:
    assert_type(error.code, Optional[int])
    assert_type(error.retry_after, Optional[float])
    assert_type(error.attempts, tuple[Attempt, ...])
    assert_type(interrupted.partial, Optional[Reply])


def plain_functions() -> None:
    token = get_access_token(Path("creds.json"), oauth_client=OAuthClient("id", "secret"))
    assert_type(token, str)
    assert_type(load_code_assist(token), str)
    assert_type(stream_gemini_api_key("Hello", "key"), Reply)
    assert_type(stream_gemini_oauth("Hello", token, "project", "gemini-3.5-flash"), Reply)


def emulators() -> None:
    with Emulator() as emulator:
        Endpoints(**emulator.urls)
        emulator.oauth.fail(503, times=None)
        emulator.api_key.answer(text="Hello.")
        assert_type(emulator.write_credentials("creds.json"), Path)


def recordings() -> None:
    with record(
        "tape.yaml", keep=True, scrub=[("Jane", "NAME"), (re.compile("T-[0-9]+"), "TICKET")], keep_headers=["A"]
    ):
        pass
    with replay(Path("tape.yaml"), match=("method", "body"), pace=1, allow_repeats=True) as player:
        assert_type(player.misses, list[UnmatchedRequest])
        assert_type([exchange.request.method for exchange in player.unused], list[str])

    @record("tape.yaml")
    @replay("tape.yaml", match=[lambda recorded, sent: recorded.url == sent.url])
    def work(number: int) -> str:
        return str(number)

    assert_type(work(1), str)
    error: GeminiSyncError = CassetteError("no")
    refused: AssertionError = UnmatchedRequest("no")
    assert_type((error, refused), tuple[GeminiSyncError, AssertionError])
