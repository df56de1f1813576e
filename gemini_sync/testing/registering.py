"""``add_stream`` and ``add_error``, which register the answers of a service with ``responses`` in one line."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Callable, Optional, Union

from responses.registries import OrderedRegistry

from gemini_sync.testing.cassette.values import Response
from gemini_sync.testing.faults import Fault, Turn, apply
from gemini_sync.testing.streaming import StreamedResponse
from gemini_sync.testing.synthetic import (
    API_KEY,
    OAUTH,
    TOKEN,
    TOKEN_URL,
    Pieces,
    error_response,
    project_response,
    service_of,
    stream_response,
    token_response,
)


def add_stream(
    rsps: Any,
    pieces: Pieces = (),
    *,
    route: str = API_KEY,
    model: Optional[str] = None,
    thoughts: Union[str, Sequence[str]] = (),
    function_calls: Sequence[Mapping[str, Any]] = (),
    finish_reason: Optional[str] = "STOP",
    usage: Optional[Mapping[str, Any]] = None,
    segments: Union[int, Sequence[int], None] = None,
    faults: Union[Fault, Sequence[Fault]] = (),
    base_url: Optional[str] = None,
) -> StreamedResponse:
    """Let ``rsps`` answer a request for a stream, byte for byte as the service does.

    With ``route="oauth"`` the token endpoint and the project discovery are answered as well, unless ``rsps`` has
    answers of its own for them; these two need not be asked. A registry that keeps the order gets the stream alone.

    Args:
        rsps: a ``RequestsMock``, or the module ``responses``.
        pieces: the text of each event; or whole chunks as dicts, which are sent as they are.
        route: ``"api_key"``, ``"oauth"`` (Code Assist) or ``"vertex_ai"``.
        model: answer for this model alone.
        thoughts: thought summaries, each an event before the text.
        function_calls: ``{"name": …, "args": …}`` each, in one event after the text.
        finish_reason: stands in the last event; None leaves it out.
        usage: counts for the last event, by their REST names, instead of made up ones.
        segments: the sizes in bytes in which the body arrives, or one size for all; else each event by itself.
        faults: one of ``gemini_sync.testing.faults``, or several.
        base_url: where the service is, if it is not where Google has it.

    Returns:
        What was registered; its ``calls`` are those that got the stream.

    Raises:
        ValueError: an argument has no such value.
    """
    response = stream_response(
        pieces,
        route=route,
        model=model,
        thoughts=thoughts,
        function_calls=function_calls,
        finish_reason=finish_reason,
        usage=usage,
        segments=segments,
    )
    turns = apply(faults, Turn(response, route, model))
    url = service_of(route).url(r"streamGenerateContent\?(?:.*&)?alt=sse(?:&|$)", model, base_url)
    tokens = {turn.continuation for turn in turns} - {""}
    mocks = [_mock(rsps, url, turn, model, tokens) for turn in turns]
    for mock in mocks:
        rsps.add(mock)
    if route == OAUTH:
        _add_supporting(rsps, base_url)
    return next(mock for mock, turn in zip(mocks, turns) if _is_stream(turn) or turn is turns[-1])


def add_error(
    rsps: Any,
    code: int,
    *,
    route: str = API_KEY,
    model: Optional[str] = None,
    reason: Optional[str] = None,
    retry_after: Optional[float] = None,
    message: Optional[str] = None,
    times: Optional[int] = None,
    base_url: Optional[str] = None,
    **status: Any,
) -> StreamedResponse:
    """Let ``rsps`` answer a request with an error, with the details that the service gives.

    Args:
        rsps, model, base_url: as for ``add_stream``.
        code: the HTTP status.
        route: as for ``add_stream``, or ``"token"`` for the OAuth token endpoint, such as
            ``add_error(rsps, 400, route="token", reason="invalid_grant")``.
        reason: the reason in ErrorInfo, in the domain of the service; or the ``error`` of the token endpoint.
        retry_after: seconds, as RetryInfo; the token endpoint has a header for it.
        message: the words, instead of those of the service.
        times: how many requests get it; else all, until another answer is registered behind it.
        status: ``status``, ``domain``, ``metadata``, ``quota_id``, ``link``, ``fields`` and ``details``, for a
            google.rpc.Status that differs.

    Raises:
        ValueError: an argument has no such value.
    """
    response = error_response(
        code, route=route, model=model, reason=reason, retry_after=retry_after, message=message, **status
    )
    if route == TOKEN:
        mock = StreamedResponse("POST", base_url or TOKEN_URL, response)
    else:
        url = service_of(route).url("(?:streamGenerateContent|generateContent|countTokens)", model, base_url)
        mock = _mock(rsps, url, Turn(response, route, model), model, ())
        if route == OAUTH:
            _add_supporting(rsps, base_url)
    if times is not None:
        mock.match = (*mock.match, lambda _: (mock.call_count < times, f"it has answered {times} times"))
    rsps.add(mock)
    return mock


def _is_stream(turn: Turn) -> bool:
    return isinstance(turn.response, Response) and turn.response.status == 200


def _mock(
    rsps: Any, url: re.Pattern[str], turn: Turn, model: Optional[str], tokens: Collection[str]
) -> StreamedResponse:
    def matches(request: Any) -> tuple[bool, str]:
        body = _json(request)
        token = body.get("request", body).get("continuationToken", "")
        if token != turn.continuation and (turn.continuation or token in tokens):
            return False, f"continuationToken is {token!r}, expected {turn.continuation!r}"
        asked = body.get("model")
        if turn.route == OAUTH and model is not None and asked != model:
            return False, f"model is {asked!r}, expected {model!r}"
        return True, ""

    kind = _Supporting if turn.continuation else StreamedResponse
    return kind("POST", url, turn.response, match=[matches])


def _json(request: Any) -> dict[str, Any]:
    try:
        body = json.loads(request.body or b"")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


class _Supporting(StreamedResponse):
    """An answer that need not be asked for."""

    @property
    def call_count(self) -> int:
        return max(1, super().call_count)


class _LastResort(_Supporting):
    """An answer to what the test has registered no answer for."""

    def __init__(self, rsps: Any, url: Any, make: Callable[[int], Response]) -> None:
        super().__init__("POST", url, make(1))
        self._rsps, self._make, self._numbers = rsps, make, itertools.count(1)

    def matches(self, request: Any) -> tuple[bool, str]:
        others: Iterable[Any] = (other for other in self._rsps.registered() if not isinstance(other, _LastResort))
        if any(other.matches(request)[0] for other in others):
            return False, "the test has an answer of its own"
        return super().matches(request)

    def get_response(self, request: Any) -> Any:
        self.response = self._make(next(self._numbers))  # an adapter does not take the same access token twice
        return super().get_response(request)


def _add_supporting(rsps: Any, base_url: Optional[str]) -> None:
    mock = getattr(rsps, "mock", rsps)  # the module has a mock by this name
    if isinstance(mock.get_registry(), OrderedRegistry):
        return  # it would have to be asked in its place
    discovery = service_of(OAUTH).url("loadCodeAssist", None, base_url)
    for url, make in ((TOKEN_URL, token_response), (discovery, lambda number: project_response())):
        added = _LastResort(mock, url, make)
        if added not in [other for other in mock.registered() if isinstance(other, _LastResort)]:
            mock.add(added)
