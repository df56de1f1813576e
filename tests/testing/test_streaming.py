"""Bodies that arrive segment by segment, as the readers of requests and urllib3 get them, and as they are recorded."""

from __future__ import annotations

import io

import pytest
import requests
import responses
from requests.adapters import HTTPAdapter
from urllib3.response import HTTPResponse

from gemini_sync.testing import record, replay
from gemini_sync.testing.cassette.storing import load
from gemini_sync.testing.cassette.values import COMPLETE, CUT, RESET, TIMEOUT, UNREAD, Body, Failure, Response
from gemini_sync.testing.streaming import ReplayError, StreamedResponse
from gemini_sync.testing.tee import BodyTee
from tests.testing.cassette_kit import ANSWER, SSE, ask_plain, exchange, tape_of
from tests.wire.support import FRAMINGS

URL = "https://host/stream"
PIECES = (b"one\ntwo", b"\nthree", b"\n")
READERS = {
    "content": lambda response: response.content,
    "text": lambda response: response.text.encode(),
    "iter_content": lambda response: b"".join(response.iter_content(4)),
    "iter_lines": lambda response: b"\n".join(response.iter_lines()) + b"\n",
    "read": lambda response: response.raw.read(),
    "read in parts": lambda response: b"".join(iter(lambda: response.raw.read(3), b"")),
    "read1": lambda response: b"".join(iter(response.raw.read1, b"")),
    "readinto": lambda response: io.BufferedReader(response.raw, 5).read(),
    "stream": lambda response: b"".join(HTTPResponse.stream(response.raw, None)),
    "lines": lambda response: b"".join(response.raw),
}


@pytest.fixture
def mock():
    with responses.RequestsMock() as mock:
        yield mock


def get(**options):
    return requests.get(URL, stream=True, timeout=5, **options)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_readers__get_the_whole_body(mock, read):
    mock.add(StreamedResponse("GET", URL, Response(201, {"X": "y"}, Body(PIECES))))
    with get() as response:
        assert (response.status_code, response.reason, response.headers) == (201, "Created", {"X": "y"})
        assert read(response) == b"".join(PIECES)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_readers__are_recorded_whatever_they_call(emulator, tmp_path, read):
    def ask():
        url, asked = emulator.url + "/v1beta/models/m:streamGenerateContent?alt=sse", exchange().request.body
        with requests.post(url, asked, headers={"x-goog-api-key": emulator.key}, stream=True, timeout=5) as response:
            return read(response)

    for framing in FRAMINGS:
        emulator.api_key.answer(body=b"".join(PIECES), pieces=list(PIECES), framing=framing)
        with record(tmp_path / "a.yaml"):
            live = ask()
        with replay(tmp_path / "a.yaml"):
            assert ask() == live == b"".join(PIECES)
        assert load(tmp_path / "a.yaml").exchanges[0].response.body.end == COMPLETE


def test_pieces__come_one_by_one(mock):
    slept = []
    mock.add(StreamedResponse("GET", URL, Response(body=Body(PIECES, (0, 1, 2))), pace=0.5, sleep=slept.append))
    with get() as response:
        seen = [(piece, list(slept)) for piece in response.iter_content(None)]
    assert seen == [(PIECES[0], []), (PIECES[1], [0.5]), (PIECES[2], [0.5, 1.0])]


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (CUT, requests.exceptions.ChunkedEncodingError),
        (RESET, requests.exceptions.ChunkedEncodingError),
        (TIMEOUT, requests.exceptions.ConnectionError),
        (UNREAD, ReplayError),
        (COMPLETE, None),
    ],
)
def test_end__is_that_of_a_socket(mock, end, error):
    mock.add(StreamedResponse("GET", URL, Response(body=Body(PIECES, (), end))))
    pieces = []
    with get() as response:
        if error is None:
            pieces += response.iter_content(None)
        else:
            with pytest.raises(error):
                pieces.extend(response.iter_content(None))
    assert pieces[:2] == list(PIECES[:2])


def test_failure__is_raised(mock):
    mock.add(StreamedResponse("GET", URL, Failure("ConnectionError", "refused", ("ConnectionRefusedError", 111))))
    with pytest.raises(requests.ConnectionError) as caught:
        get()
    assert repr(caught.value.args[0]) == "ConnectionRefusedError(111, 'refused')"


def test_options__are_those_of_responses(mock):
    mock.add(StreamedResponse("GET", URL, Response(), match=[responses.matchers.header_matcher({"A": "b"})]))
    assert get(headers={"A": "b"}).status_code == 200
    with pytest.raises(requests.ConnectionError, match="doesn't match"):
        get(headers={"A": "c"})


def test_answer_of_a_mock__can_be_recorded(mock, tmp_path):
    mock.add(StreamedResponse("POST", exchange().request.url, Response(200, SSE, Body(ANSWER))))
    with record(tmp_path / "a.yaml"):
        assert "".join(ask_plain()) == "one two three"
    assert load(tmp_path / "a.yaml").exchanges[0].response.body.segments == ANSWER


@pytest.mark.parametrize("raw", [io.BytesIO(b"a body"), None], ids=["a file", "none"])
def test_answer_without_urllib3__can_be_recorded(raw, tmp_path, monkeypatch):
    def send(*_, **__):
        made = requests.Response()
        made.status_code, made.raw = 200, raw
        return made

    monkeypatch.setattr(HTTPAdapter, "send", send)
    with record(tmp_path / "a.yaml"):
        response = requests.get(URL, stream=True, timeout=5)
        assert raw is None or response.raw.read() == b"a body"
    (recorded,) = load(tmp_path / "a.yaml").exchanges
    assert recorded.response.body == Body((b"a body",) if raw else (), recorded.response.body.delays)


def test_file__that_reads_into_a_buffer():
    tee, buffer = BodyTee(lambda: 0.0), bytearray(4)
    response = requests.Response()
    response.raw = HTTPResponse(io.BytesIO(b"abcdef"), preload_content=False)
    tee.attach(response)
    assert (response.raw._fp.readinto(buffer), bytes(buffer)) == (4, b"abcd")
    assert tee.body() == Body((b"abcd",), (0.0,), UNREAD)


def test_replay__serves_every_reader():
    tape = tape_of(exchange())
    asked = tape.exchanges[0].request
    for read in READERS.values():
        with replay(tape), requests.post(asked.url, asked.body, stream=True, timeout=5) as response:
            assert read(response).split() == b"".join(ANSWER).split()
