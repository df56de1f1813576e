"""The transport on adapters without sockets: mocks of responses, and adapters of the caller's own."""

from __future__ import annotations

import pytest
import requests
import responses

from gemini_sync import ServerError, Timeouts, TransportError
from gemini_sync.errors import DeadlineExceeded, StreamInterrupted
from gemini_sync.network.cancelling import Call
from gemini_sync.network.transport import Transport
from gemini_sync.testing import add_error, add_stream
from tests.network.transport_kit import HOST, URL, Canned, Pieces, mocked
from tests.wire.support import drain, event

ANSWER = event("one ") + event("two", "STOP")


# --- adapters without sockets


def test_responses__mocks_work():
    with responses.RequestsMock() as mock, mocked() as adapter:
        add_error(mock, 503, base_url=HOST)
        mock.post(URL, body=requests.ConnectionError("cable cut"))
        add_stream(mock, ["one ", "two"], base_url=HOST)
        reply = adapter.generate("Why?")
        assert (reply.text, len(reply.attempts)) == ("one two", 3)
        assert mock.calls[2].request.headers["x-goog-api-key"] == "a-key"
        assert [type(attempt.error) for attempt in reply.attempts[:2]] == [ServerError, TransportError]


@pytest.mark.parametrize(
    ("timeout", "deadline", "tries"),
    [
        (requests.ConnectTimeout, "connect", 3),
        (requests.ReadTimeout, "first_token", 1),
        (requests.Timeout, "first_token", 1),
    ],
)
def test_responses__a_timeout_is_a_deadline(timeout, deadline, tries):
    with responses.RequestsMock() as mock, mocked() as adapter:
        mock.post(URL, body=timeout("too slow"))
        _, error = drain(adapter.stream("Why?"))
        assert (type(error), error.deadline, len(error.attempts)) == (DeadlineExceeded, deadline, tries)
        assert error.seconds == getattr(Timeouts(), deadline)
        assert len(mock.calls) == tries


def test_responses__a_connect_timeout_without_that_deadline_is_a_failed_connection():
    with responses.RequestsMock() as mock, mocked(timeouts=Timeouts(None, None, None)) as adapter:
        mock.post(URL, body=requests.ConnectTimeout("too slow"))
        _, error = drain(adapter.stream("Why?"))
        assert (type(error), len(error.attempts)) == (TransportError, 3)


def test_responses__cancel_works():
    with responses.RequestsMock() as mock, mocked() as adapter:
        add_stream(mock, ["one ", "two"], base_url=HOST)
        reply = adapter.stream("Why?")
        next(reply)
        reply.cancel()
        assert drain(reply)[1].cancelled


def test_foreign_transport__cancelled_call_is_not_sent():
    canned, call = Canned(lambda: Pieces([ANSWER])), Call().start()
    call.cancel()
    with pytest.raises(StreamInterrupted):
        Transport(canned.session).send(call, "POST", URL, {}, b"{}")
    assert canned.sent == []


@pytest.mark.parametrize(("seconds", "deadline"), [(60.0, None), (110.0, "idle")])
def test_adapter_without_sockets__deadlines_hold_between_reads(seconds, deadline):
    now = [0.0]

    def pass_time():
        now[0] += seconds

    canned = Canned(lambda: Pieces([event("one "), event("two "), b": ping\n\n", event("!", "STOP")], pass_time))
    timeouts = Timeouts(first_token=130.0, idle=100.0)
    with mocked(session_factory=canned.session, timeouts=timeouts, clock=lambda: now[0]) as adapter:
        texts, error = drain(adapter.stream("Why?"))
    assert texts[:2] == ["one ", "two "]
    assert getattr(error and error.__cause__, "deadline", None) == deadline
