"""Tests of the transport without an adapter: what it keeps from call to call, and what it sends again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from gemini_sync.config import Timeouts
from gemini_sync.errors import ConfigError, StreamInterrupted, TransportError
from gemini_sync.network import transport as transport_module
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.testing.emulator import Emulator
from tests.wire.raw_server import Peer, RawServer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport()
    yield made
    made.close()


def fetch(transport: Transport, url: str, call: Any = None) -> Any:
    return transport.fetch(call or Call().start(), "POST", url, {}, b"{}", seconds=20.0, what="The answer")


# -- templates


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[requests.PreparedRequest]]:
    """The templates that were made, each by a weak reference."""
    templates: list[weakref.ref[requests.PreparedRequest]] = []
    prepared = transport_module.prepare_request

    def watched(*arguments: Any) -> Any:
        request, settings = prepared(*arguments)
        templates.append(weakref.ref(request))
        return request, settings

    monkeypatch.setattr(transport_module, "prepare_request", watched)
    return templates


def test_templates__one_for_each_url(
    transport: Transport, emulator: Emulator, made: list[weakref.ref[requests.PreparedRequest]]
) -> None:
    for _ in range(3):
        for number in range(5):
            assert fetch(transport, f"{emulator.url}/{number}").status == 404
    assert len(made) == 5
    assert [request.path for request in emulator.requests] == ["/0", "/1", "/2", "/3", "/4"] * 3


def test_templates__take_nothing_of_one_request_to_the_next(transport: Transport, emulator: Emulator) -> None:
    for headers, body in (({"Authorization": "Bearer one"}, b"{}"), ({}, None)):
        transport.fetch(Call().start(), "POST", emulator.url, headers, body, seconds=20.0, what="The answer")
    assert [request.headers["Authorization"] for request in emulator.requests] == ["Bearer one", None]
    assert [request.body for request in emulator.requests] == [b"{}", b""]


def test_templates__at_most_64_are_kept(
    transport: Transport, emulator: Emulator, made: list[weakref.ref[requests.PreparedRequest]]
) -> None:
    for number in range(200):
        fetch(transport, f"{emulator.url}/{number}")
    gc.collect()
    assert 0 < sum(template() is not None for template in made) <= 64


def test_templates__none_for_sessions_of_the_callers(
    emulator: Emulator, made: list[weakref.ref[requests.PreparedRequest]]
) -> None:
    transport = Transport(requests.Session)
    for _ in range(3):
        fetch(transport, emulator.url)
    transport.close()
    assert len(made) == 3


# -- sessions


def test_sessions__32_idle_ones_are_kept(transport: Transport, emulator: Emulator) -> None:
    for _ in range(2):
        exchanges = [transport.send(Call().start(), "POST", emulator.url, {}, b"{}") for _ in range(33)]
        assert {exchange.answer().status for exchange in exchanges} == {404}
    assert emulator.connections_total == 33 + 1


def test_sessions__one_that_is_out_while_a_fork_happens_does_not_come_back(
    transport: Transport, emulator: Emulator
) -> None:
    exchange = transport.send(Call().start(), "POST", emulator.url, {}, b"{}")
    transport.after_fork()
    exchange.answer()
    assert emulator.wait_closed()


def test_session_factory__that_makes_no_session() -> None:
    with pytest.raises(ConfigError, match=r"must return a requests\.Session, not str") as caught:
        fetch(Transport(lambda: "session"), "http://127.0.0.1:9")  # type: ignore[arg-type, return-value]
    assert caught.value.reason == "SESSION_INVALID"


# -- what is sent again


@pytest.mark.parametrize("answered", [0, 1, 3])
def test_send__again_only_where_a_connection_had_been_used(transport: Transport, answered: int) -> None:
    """It breaks as it is used again: the server may have closed it long before."""

    def script(peer: Peer) -> None:
        for _ in range(answered if len(server.peers) == 1 else 1):
            peer.read_request()
            peer.send(OK)
        peer.read_request()

    with RawServer(script) as server:
        for _ in range(answered):
            assert fetch(transport, server.url).text == "ok"
        if answered:
            assert fetch(transport, server.url).text == "ok"
        else:
            with pytest.raises(TransportError):
                fetch(transport, server.url)
        assert len(server.peers) == 1 + (answered > 0)


def test_fetch__bounds_its_own_answer_and_nothing_after_it(emulator: Emulator) -> None:
    told = []

    class Session(requests.Session):
        def send(self, request: Any, **options: Any) -> requests.Response:
            told.append(options["timeout"])
            return super().send(request, **options)

    transport, limits = Transport(Session), Timeouts(connect=15, first_token=70, idle=80)
    call = Call(limits, clock=lambda: 0.0).start()
    assert fetch(transport, emulator.url, call).status == 404
    assert (told, call.timeouts) == ([(15, 20.0)], limits)
    call.cancel()
    with pytest.raises(StreamInterrupted):
        fetch(transport, emulator.url, call)
    assert call.timeouts == limits
    transport.close()
