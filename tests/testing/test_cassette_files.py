"""Cassette files: they read well, read back the same, and say where a mistake in them is."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from gemini_sync.testing import CassetteError
from gemini_sync.testing.cassette import document
from gemini_sync.testing.cassette.storing import load, loads
from gemini_sync.testing.cassette.values import (
    CUT,
    ENDS,
    FAILURES,
    Body,
    Cassette,
    Exchange,
    Failure,
    Request,
    Response,
)
from gemini_sync.testing.cassette.writing import dumps
from tests.support import CORPUS_MISSING
from tests.testing.cassette_kit import event, exchange, tape_of
from tests.wire.support import recordings

HEAD = "# Recorded responses for gemini_sync.testing.replay. Secrets are replaced by names in capitals.\n"
FILE = (
    HEAD
    + """gemini_sync_cassette: 1
exchanges:
- request:
    method: POST
    url: https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse
    headers:
      x-goog-api-key: API-KEY-1
    body:
      json: |-
        {
          "contents": [{"role": "user", "parts": [{"text": "Why is the sky blue, and is it blue on Mars as well?"}]}],
          "generationConfig": {"temperature": 0.5}
        }
  response:
    status: 200
    headers:
      Content-Type: text/event-stream
    body:
      text_crlf: |+
        data: {"candidates": [{"content": {"parts": [{"text": "Grüße \U0001f600"}]}}]}

        : ping

    pace: >-
      0.5x2
- request:
    method: GET
    url: http://127.0.0.1/v1internal/operations/1
  response:
    status: 200
    body:
      - text: |+
          data: 1

      - escaped: |-
          data: caf\\xe9 \\\\\\r\\n
          \\r\\n
      - text: |-
          data
    segments: >-
      5x3 14
    end: cut
- request:
    method: GET
    url: http://127.0.0.1/
    body: null  # not known
  failure:
    kind: ConnectionError
    message: Connection refused
    cause: ConnectionRefusedError 111
...
"""
)
CONTENTS = (
    b'{"contents":[{"role":"user","parts":[{"text":"Why is the sky blue, and is it blue on Mars as well?"}]}],'
    b'"generationConfig":{"temperature":0.5}}'
)
TAPE = Cassette(
    (
        Exchange(
            Request(
                "POST",
                "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse",
                {"x-goog-api-key": "API-KEY-1"},
                CONTENTS,
            ),
            Response(
                200,
                {"Content-Type": "text/event-stream"},
                Body(
                    (
                        event("Grüße \U0001f600"),
                        b": ping\r\n\r\n",
                    ),
                    (0.5, 0.5),
                ),
            ),
        ),
        Exchange(
            Request("GET", "http://127.0.0.1/v1internal/operations/1"),
            Response(200, {}, Body((b"data:", b" 1\n\nd", b"ata: ", b"caf\xe9 \\\r\n\r\ndata"), (), CUT)),
        ),
        Exchange(
            Request("GET", "http://127.0.0.1/", {}, None),
            Failure("ConnectionError", "Connection refused", ("ConnectionRefusedError", 111)),
        ),
    ),
    "tape.yaml",
)


def read(text: str) -> Cassette:
    return loads(text.encode(), "tape.yaml")


def test_file__is_written_for_people() -> None:
    assert dumps(TAPE) == FILE


def test_file__reads_as_what_was_written() -> None:
    assert read(FILE) == TAPE


def test_file__may_have_other_line_ends_and_a_mark() -> None:
    """As an editor or a checkout on Windows makes them."""
    assert loads(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode(), "tape.yaml") == TAPE


BYTES = st.one_of(
    st.binary(max_size=60),
    st.text("ab \t\n\r\\\x00\x7f\x85\u2028\u202e\ufeff\U0001f600é{}[]\":,#'|>-%x", max_size=40).map(str.encode),
    st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"data: {}\r\n\r\n", b"[1, 2]"]),
    st.sampled_from(
        [
            b'{"a":1}',
            b'{"a":1,"a":2}',
            b'{"a":1e5}',
            b" x",
            b"x ",
            b"---\n",
            b"...\n",
            b"\n",
            b"\xff" * 20,
            b"\xed\xa0\x80",
            b'{"a":"\\ud800"}',
        ]
    ),
)
TEXTS = st.text(max_size=20).filter(lambda text: text.isprintable()) | st.sampled_from(
    [
        "yes",
        "null",
        "1",
        "1.5",
        "2026-01-01",
        "a: b",
        "a #b",
        "-",
        "{}",
        "*x",
        "&x",
        "'",
        '"',
        " a",
        "a ",
        "",
        "!x",
        "=",
        "~",
    ]
)


@hypothesis.settings(max_examples=400)
@hypothesis.given(
    st.lists(BYTES.filter(bool), max_size=6), st.booleans(), st.sampled_from(ENDS), st.none() | BYTES, TEXTS, TEXTS
)
def test_anything__reads_back_the_same(segments, paced, end, sent, name, value) -> None:
    body = Body(tuple(segments), tuple(0.125 for _ in segments) if paced else (), end)
    request = Request("POST", f"https://host/{value}", {name: value}, sent)
    failure = Failure(FAILURES[len(name) % len(FAILURES)], value, ("OSError", 5) if paced else None)
    tape = tape_of(Exchange(request, Response(200, {name: value}, body)), Exchange(request, failure))
    assert read(dumps(tape)) == tape
    assert [line for line in dumps(tape).split("\n") if line != line.rstrip()] == []  # editors would change it


@pytest.mark.skipif(not recordings(), reason=CORPUS_MISSING)
@pytest.mark.parametrize("recording", recordings(), ids=lambda recording: recording["file"])
def test_recordings_of_the_services__can_be_read_by_people(recording) -> None:
    text = dumps(tape_of(exchange([recording["body"]])))
    assert "base64" not in text
    assert "escaped" not in text
    said = {line.strip() for line in text.splitlines()}
    assert {line.strip() for line in recording["body"].decode().splitlines()} <= said


# -- mistakes

# The text, a line of it or its number, and what is said of it.
MISTAKES = {
    "no YAML": (FILE.replace("status: 200", "status: [200", 1), 17, "no YAML"),
    "a tab": (FILE.replace("    status: 200", "\tstatus: 200", 1), "\tstatus: 200", "no YAML"),
    "a control character": (FILE.replace("ping", "pi\x07ng"), "        : pi\x07ng", "no YAML"),
    "no mapping": ("- 1\n", 1, "expected a mapping"),
    "nothing": ("", 1, "expected a mapping"),
    "another mapping": ("a: 1\n", 1, "came another mapping"),
    "a newer format": (FILE.replace("cassette: 1", "cassette: 2"), 2, "Update gemini_sync"),
    "no format": (FILE.replace("cassette: 1", "cassette: one"), 2, "format 'one'"),
    "cut off": (FILE[: FILE.index(": ping")], 21, "is cut off"),
    "cut off at its end": (FILE.removesuffix("...\n"), "    cause: ConnectionRefusedError 111", "is cut off"),
    "no status": (FILE.replace("    status: 200\n", "", 1), 16, "status is missing"),
    "a status in words": (FILE.replace("status: 200", "status: OK", 1), "    status: OK", "status to be a number"),
    "an unknown name": (FILE.replace("  status: 200", "  stutus: 200", 1), "    stutus: 200", "came stutus"),
    "a name twice": (FILE.replace("status: 200", "end: cut\n    end: cut", 1), 17, "end stands there twice"),
    "a mapping as a name": (FILE.replace("status: 200", "{a: b}: 1", 1), "    {a: b}: 1", "expected a name"),
    "two documents": (FILE + "---\nb: 1\n", "---", "a second document begins here"),
    "a name that nothing has": (FILE.replace("status: 200", "status: *a", 1), "    status: *a", "is named 'a'"),
    "no base64": (FILE.replace("status: 200", "status: !!binary a", 1), "    status: !!binary a", "this is no base64"),
    "broken JSON": ('{\n"interactions": [\n}', 3, "this is no JSON"),
    "an unknown end": (FILE.replace("end: cut", "end: bad"), "    end: bad", "came 'bad'"),
    "an unknown format of a body": (FILE.replace("crlf: |+", "cr: |+"), "      text_cr: |+", "came text_cr"),
    "a body of the wrong kind": (FILE.replace("body: null", "body: 5"), "    body: 5  # not known", "body to be"),
    "an unfinished escape": (FILE.replace("\\xe9", "\\q"), "      - escaped: |-", "a backslash begins none"),
    "segments of another size": (FILE.replace("5x3 14", "5x3 99"), "    segments: >-", "remove the line with segments"),
    "segments in words": (FILE.replace("5x3 14", "five"), "    segments: >-", "came 'five'"),
    "pace for fewer segments": (FILE.replace("0.5x2", "0.5"), "    pace: >-", "remove the line with pace"),
    "an unknown failure": (FILE.replace("kind: Conn", "kind: Un"), "    kind: UnectionError", "expected kind to be"),
    "an exchange with more": (FILE.replace("- request:", "- x: 1\n  request:", 1), "- x: 1", "came x"),
    "an exchange that is a text": ("gemini_sync_cassette: 1\nexchanges: [a]\n...\n", 1, "an exchange"),
    "another version of vcrpy": ("interactions: []\nversion: 7\n", 1, "expected version 1"),
    "no URI": ("version: 1\ninteractions:\n- request: {}\n  response: {}\n", 3, "missing"),
}


@pytest.mark.parametrize(("text", "line", "what"), MISTAKES.values(), ids=MISTAKES)
def test_mistake__is_told_with_its_file_and_line(text, line, what) -> None:
    with pytest.raises(CassetteError) as caught:
        read(text)
    number = line if isinstance(line, int) else 1 + text.splitlines().index(line)
    assert str(caught.value).startswith(f"The cassette tape.yaml, line {number}: ")
    assert what in str(caught.value)


@pytest.mark.parametrize("name", ["no YAML", "a control character", "cut off", "a status in words", "two documents"])
def test_mistake__without_the_loader_in_c(name, monkeypatch) -> None:
    monkeypatch.setattr(document, "_Loader", yaml.SafeLoader)
    test_mistake__is_told_with_its_file_and_line(*MISTAKES[name])
    assert read(FILE) == TAPE


def test_mistake__nested_without_end() -> None:
    with pytest.raises(CassetteError, match=r"nested without end|no YAML"):
        read("a: " + "[" * 100_000)


def test_anchors__are_followed() -> None:
    """PyYAML writes them for a value that stands there twice."""
    shared = FILE.replace("    headers:\n      Content-Type: text/event-stream", "    headers: *h").replace(
        "    headers:\n      x-goog-api-key: API-KEY-1", "    headers: &h {A: b}"
    )
    asked, answered = read(shared).exchanges[0].request, read(shared).exchanges[0].response
    assert asked.headers == answered.headers == {"A": "b"}


def test_mistake__bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(FILE.encode().replace(b"ping", b"p\xffng"))
    with pytest.raises(CassetteError, match=r"a\.yaml, line 23: this is no UTF-8"):
        load(tmp_path / "a.yaml")


def test_mistake__no_file(tmp_path: Path) -> None:
    with pytest.raises(CassetteError, match=r"none\.yaml: there is no such file\. Record it first"):
        load(tmp_path / "none.yaml")
    with pytest.raises(CassetteError, match="cannot be read"):
        load(tmp_path)
