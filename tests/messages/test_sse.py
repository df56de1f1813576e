"""Tests of the event parser: it follows the standard in every segmentation, and three rules of this project."""

from __future__ import annotations

import base64
import json
import logging
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gemini_sync.messages import sse
from gemini_sync.messages.sse import BareJsonEvent, Event, events
from tests.messages.sse_kit import PARSERS, Seen, cut, expected_from, read, read_by_the_standard, segmentations


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with each of the two parsers of a block."""
    monkeypatch.setattr(sse, "_LARGE_BLOCK_BYTES", PARSERS[request.param])
    return str(request.param)


def seen(stream: bytes) -> list[Seen]:
    return [known.seen for known in read([stream])]


# -- the standard


@pytest.mark.usefixtures("parser")
def test_cases_of_other_projects__in_any_segmentation(corpus: Path) -> None:
    cases = json.loads((corpus / "sse_cases.json").read_text("utf-8"))
    assert len(cases) >= 99
    wrong = set()
    for case in cases:
        stream = base64.b64decode(case["input_b64"])
        expected = [Seen(event["event"], event["data"]) for event in case["expected"]]
        assert [known.seen for known in read_by_the_standard(stream)] == expected, "the reference parser"
        for pieces in segmentations(stream, case["name"]):
            if [known.seen for known in read(pieces)] != expected:
                wrong.add(case["name"])
    assert wrong == set()


@pytest.mark.usefixtures("parser")
def test_recorded_streams__in_any_segmentation(corpus: Path) -> None:
    for path in sorted((corpus / "streams").glob("*/*.txt")):
        stream = path.read_bytes()
        expected = [known.seen for known in read_by_the_standard(stream)]
        chance = random.Random(path.name)
        for size in (len(stream), 1, 1000):
            assert [known.seen for known in read(cut(stream, range(0, len(stream), size)))] == expected, path.name
        for _ in range(5):
            pieces = cut(stream, [chance.randint(0, len(stream)) for _ in range(8)])
            assert read(pieces) == expected_from(pieces), path.name


_VALUE = st.sampled_from(
    [
        b"", b" ", b"  x", b"x", b"\xff", b"\xc3", b"\xe2\x80", "é…😀\u2028\x85".encode(), b"\x00", b"a:b", b'{"a":1}',
        b"[", b"12",
    ]
)  # fmt: skip
_FIELD_LINE = st.builds(
    lambda name, colon, value: name + (colon + value if colon else b""),
    st.sampled_from([b"data", b"data", b"data", b"event", b"id", b"retry"]),
    st.sampled_from([b":", b": ", b""]),
    _VALUE,
)
_OTHER_LINE = st.sampled_from(
    [
        b":", b": comment", b":{", b"Data: x", b"data : x", b" data: x", b"datax", b"foo", b"foo: bar", b"event2:x",
        b"\xef\xbb\xbfdata: x", b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"\t", b"\x00", b"null", b"5", b'"x"',
    ]
)  # fmt: skip
_BARE_LINE = st.sampled_from(
    [
        b'{"error": {"code": 503}}', b'[{"error": 1}]', b"{", b"}", b"[", b"]", b'"a": "}{",', b'"a": "\\"{"',
        b'"b": 1', b",", b"  [1,", b"{}", b"{}{}", b"[1]]", b'{"a": "\xff"}', b'{"a": "b', b"{bad}", b'\t{"t": 1}',
    ]
)  # fmt: skip
_PRETTY = st.sampled_from(
    [b"{\n", b'  "error": {"code": 400, "message": "a }"}\n', b"}\n", b'[{\n"a": 1\n}\n,\n{"b": 2}\n]\n']
)
_LINE_END = st.sampled_from([b"\n", b"\r", b"\r\n"])
_BLANKS = st.sampled_from([b"\n", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\n\n\n\n", b"\r\n\r\n\r\n"])
_SPAN = st.one_of(
    st.builds(bytes.__add__, _FIELD_LINE, _LINE_END),
    st.builds(bytes.__add__, _FIELD_LINE, _BLANKS),
    st.builds(bytes.__add__, _FIELD_LINE, _BLANKS),
    st.builds(bytes.__add__, _OTHER_LINE, _LINE_END),
    st.builds(bytes.__add__, _BARE_LINE, _LINE_END | _BLANKS),
    _PRETTY,
    _BLANKS,
)
# A start (no BOM, one, half of one, two), whole lines of all kinds, and perhaps a last line without its end.
_SPANS = st.tuples(
    st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xef\xbb", b"\xef\xbb\xbf\xef\xbb\xbf"]),
    st.lists(_SPAN, max_size=10).map(tuple),
    st.one_of(st.just(b""), _FIELD_LINE, _BARE_LINE, _OTHER_LINE, st.just(b'data: {"last": true}')),
).map(lambda parts: [parts[0], *parts[1], parts[2]])


@pytest.mark.parametrize("large_bytes", PARSERS.values(), ids=PARSERS)
@given(_SPANS, st.data())
@example([b"event: x\n", b"event\n", b"data: y\n\n"], None)
@example([b"data: x\n", b'{"error": 1}\n', b"data: y\n\n"], None)
@example([b"data: \xff\xc3\n", b"\n"], None)
@example([b"", b"data: x\nevent: y\r\n\r\n", b"data: x\r\n\r\n"], None)
@settings(max_examples=150, deadline=None)
def test_any_stream__in_any_segmentation(large_bytes: int, spans: list[bytes], data: Any) -> None:
    stream = b"".join(spans)
    segmentations = [spans, [stream], [stream[i : i + 1] for i in range(len(stream))]]
    if data is not None:
        segmentations.append(cut(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=6))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "_LARGE_BLOCK_BYTES", large_bytes)
        patch.setattr(sse._log, "disabled", True)
        for pieces in segmentations:
            # Each event must also come with the piece that makes it known.
            assert read(pieces) == expected_from(pieces)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.usefixtures("parser")
def test_event__comes_with_its_last_byte(end: bytes) -> None:
    stream = (b"data: 1" + end + end) * 3
    size = len(b"data: 1") + len(end) + 1  # the parser does not wait for an LF after the CR of the blank line
    assert [known.after for known in read(cut(stream, range(len(stream))))] == [
        size + number * (len(stream) // 3) for number in range(3)
    ]


def test_event__comes_before_the_next_piece_is_taken() -> None:
    taken: list[int] = []

    def feed() -> Iterator[bytes]:
        for number in range(3):
            taken.append(number)
            yield b"data: %d\n\ndata: more\n\n" % number

    stream = events(feed(), 100)
    assert taken == []
    for position in range(6):
        assert next(stream).data in (str(position // 2), "more")
        assert taken == list(range(position // 2 + 1))
    assert next(stream, None) is None


# -- lines that are no fields


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'{"error": {"code": 503}}', [Seen("message", '{"error": {"code": 503}}', True)]),
        (b'[{"error": 1}]\n', [Seen("message", '[{"error": 1}]', True)]),
        (b'{\r\n  "a": {\r\n    "b": 1\r\n  }\r\n}\r\n', [Seen("message", '{\n  "a": {\n    "b": 1\n  }\n}', True)]),
        (b'data: 1\n\n[5]\ndata: 2\n\n', [Seen("message", "1"), Seen("message", "[5]", True), Seen("message", "2")]),
        (b'data: 1\n{"a": 1}\ndata: 2\n\n', [Seen("message", "1\n2"), Seen("message", '{"a": 1}', True)]),
        (b'{"a": 1}\n{"b": 2}\n', [Seen("message", '{"a": 1}', True), Seen("message", '{"b": 2}', True)]),
        (b'data: 1\n[5]\n[6]', [Seen("message", "1"), Seen("message", "[5]", True), Seen("message", "[6]", True)]),
        (b'{"a": "} ] \\" }"}\n\ndata: 1\n\n', [Seen("message", '{"a": "} ] \\" }"}', True), Seen("message", "1")]),
        (b'{\n\n"a": 1}\n', [Seen("message", '{\n"a": 1}', True)]),
        (b'{"a": "\xff"}\n', [Seen("message", '{"a": "\ufffd"}', True)]),
        (b'5\n"text"\nnull\ntrue\n', []),
        (b'{"a": 1}data: 1\n\n', []),
        (b'[1]]\n{"a": 1}\n', [Seen("message", '{"a": 1}', True)]),
        (b'[1]]\n[\n{"a": 1}]\n', [Seen("message", '[\n{"a": 1}]', True)]),
        (b'{"open": 1\n: comment\n}\ndata: 1\n\n', [Seen("message", "1")]),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("parser")
def test_bare_json__comes_in_order_with_the_events(stream: bytes, expected: list[Seen]) -> None:
    for pieces in segmentations(stream, "bare"):
        assert [known.seen for known in read(pieces)] == expected


@pytest.mark.parametrize("size", [1, 2 * sse._LARGE_BLOCK_BYTES, 2**17])
def test_bare_json__with_an_event_inside__is_no_json(size: int) -> None:
    stream = b'{"a":1\ndata: ' + b"x" * size + b"\n}\n\ndata: 2\n\n"
    for pieces in ([stream], cut(stream, range(0, len(stream), 1000)), cut(stream, [7, 13, 20])):
        assert [known.seen for known in read(pieces)] == [Seen("message", "x" * size), Seen("message", "2")]


def test_bare_json_event__has_its_own_type() -> None:
    (event,) = events([b"[]\n"], 100)
    assert (type(event), isinstance(event, Event), event.data) == (BareJsonEvent, True, "[]")


@pytest.mark.parametrize(
    "text",
    [
        b"{bad json}",
        b'{"incomplete": [1',
        b"<html>{</html>",
        b"{" * 5000,
        b"[" * 10**5 + b"]" * 10**5,
        b'{"a": 1} 2',
    ],
)
@pytest.mark.usefixtures("parser")
def test_bare_text__that_is_no_json__is_logged_by_its_length(text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, sse.__name__)
    for end in (b"", b"\n", b"\ndata: 1\n\n", b"\n\n"):
        caplog.clear()
        assert seen(text + end) == ([Seen("message", "1")] if b"data" in end else [])
        assert len(caplog.records) == 1
        assert re.fullmatch(r"ignored (a line of )?\d+ (bytes|characters) [a-zA-Z ]*", caplog.records[0].getMessage())


def test_bare_text__with_credentials__is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert (
        seen(b"{AIzaEXAMPLEcanary0000}\nAIzaEXAMPLEcanary0000\n: AIzaEXAMPLEcanary0000\ndata: AIzaEXAMPLEcanary0000")
        == []
    )
    assert caplog.text
    assert "canary" not in caplog.text


def test_log__has_no_messages_of_sseclient(caplog: pytest.LogCaptureFixture) -> None:
    """sseclient's messages at DEBUG take longer than the parsing. The level of its own logger belongs to the user."""
    caplog.set_level(logging.DEBUG)
    assert len(seen(b"data: 1\n\nevent: e\ndata: 2\n\n")) == 2
    assert caplog.records == []
    assert logging.getLogger("sseclient").level == logging.NOTSET


# -- the end of the stream


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize(
    ("block", "comes"),
    [
        (b'data: {"a": 1}', True), (b"data: [1,\ndata: 2]", True), (b'event: e\ndata: {"a": 1}\nid: 3', True),
        (b"data: 5", True), (b'data: {"a": ', False), (b"data: text", False), (b"data:", False), (b"data", False),
        (b"event: e", False), (b'dat: {"a": 1}', False), (b"dat", False),
        (b"data: " + b"[" * 5000, False), (b'data: {"a": 1}\nda', True), (b": comment", False),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("parser")
def test_last_block__without_its_blank_line__counts_if_it_is_json(block: bytes, comes: bool, end: bytes) -> None:
    for pieces in ([b"data: first\n\n" + block + end], cut(b"data: first\n\n" + block + end, range(40))):
        assert len(read(pieces)) == 1 + comes


# -- events that end with one newline


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("name", [b"", b"event: message\n", b"event: e\nid: 1\nretry: 5\n"])
def test_one_newline__each_object_comes_when_the_next_begins(newline: bytes, name: bytes) -> None:
    lines = [(name + b'data: {"a": %d}\n' % number).replace(b"\n", newline) for number in range(3)]
    came = read(lines)
    assert [json.loads(known.seen.data) for known in came] == [{"a": 0}, {"a": 1}, {"a": 2}]
    assert [known.after for known in came] == [len(b"".join(lines[:2])), len(b"".join(lines)), len(b"".join(lines)) + 1]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "lines",
    [
        [b"{", b'"a": {}', b"}"], [b'{"a": [{}', b", {}", b"]}"], [b"[{}", b", {}]"], [b"text {}", b"{}"],
        [b'{"a": 1}', b"text"], [b'{"a": 1}', b"[1]"],
    ],
)  # fmt: skip
def test_one_newline__data_of_several_lines_stays_one_event(lines: list[bytes]) -> None:
    stream = b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
    assert [one.data for one in seen(stream)] == [b"\n".join(lines).decode()]
