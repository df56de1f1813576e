"""Cassettes that other tools, or another Python, have written."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from gemini_sync import Endpoints, stream_gemini_api_key
from gemini_sync.testing import record, replay
from gemini_sync.testing.cassette.storing import load, save
from tests.testing.cassette_kit import ask, outcome

FOLDER = Path(__file__).parent / "cassettes"
TEXT = "Schöne Grüße aus der Kassette \U0001f600"


@pytest.mark.parametrize(
    "name", ["own.yaml", "vcrpy.yaml", "vcrpy.json", "vcrpy_compressed.yaml", "responses_recorder.yaml"]
)
def test_file__replays_the_stream(name):
    with replay(FOLDER / name) as player:
        reply = stream_gemini_api_key("Why?", "a-fake-key", "m")
        assert list(reply) == ["Schöne", " Grüße aus", " der Kassette \U0001f600"]
        assert player.unused == []


def test_file__of_an_old_recorder_of_responses():
    """It drops the content type of a stream."""
    with replay(FOLDER / "responses_recorder_0.25.yaml"):
        assert "".join(stream_gemini_api_key("Why?", "a-fake-key", "m")) == "Schöne"


def test_file__of_the_recorder_of_responses_by_hand(tmp_path):
    responses = "responses: [{response: {method: GET, url: 'https://host/', body: caf\xe9, content_type: text/plain}}]"
    (tmp_path / "a.yaml").write_text(responses, encoding="utf-8")
    with replay(tmp_path / "a.yaml"):
        assert requests.get("https://host/", timeout=5).content == "caf\xe9".encode()


def test_file__of_vcrpy_becomes_one_of_ours(tmp_path):
    tape = load(FOLDER / "vcrpy.yaml")
    save(tape, tmp_path / "a.yaml")
    assert load(tmp_path / "a.yaml").exchanges == tape.exchanges
    assert '{"text": "Schöne"}' in (tmp_path / "a.yaml").read_text(encoding="utf-8")


def test_file__of_an_old_vcrpy(tmp_path):
    """Bodies in base64, as bytes, or missing."""
    (tmp_path / "a.yaml").write_text(
        """
interactions:
- request: {body: null, headers: {}, method: GET, uri: 'https://host/1'}
  response: {body: {base64_string: YWI=, encoding: utf-8}, headers: {}, status: {code: 200, message: OK}}
- request: {body: !!binary YWI=, headers: {A: [b, c]}, method: POST, uri: 'https://host/2'}
  response: {body: {string: !!binary YWL/}, headers: {X: [1, z]}, status: {code: 404, message: No}}
- request: {body: {string: ab}, headers: {}, method: POST, uri: 'https://host/3'}
  response: {body: {string: null}, headers: {}, status: {code: 204, message: No}}
version: 1
"""
    )
    with replay(tmp_path / "a.yaml", match=("method", "url", "raw_body")):
        assert requests.get("https://host/1", timeout=5).content == b"ab"
        second = requests.post("https://host/2", b"ab", timeout=5)
        assert (second.status_code, second.content, second.headers["X"]) == (404, b"ab\xff", "1, z")
        assert requests.post("https://host/3", "ab", timeout=5).content == b""


def test_file__of_the_recorder_of_responses_itself(emulator, tmp_path):
    from responses import _recorder

    emulator.api_key.answer(text=TEXT)
    path = tmp_path / "a.yaml"

    @_recorder.record(file_path=path)
    def work():
        return outcome(ask(emulator.urls, "api_key", emulator.key))

    live = work()
    emulator.stop()
    with replay(path):
        assert outcome(ask(emulator.urls, "api_key", "a-fake-key")) == live


def test_recording__to_the_file_of_another_tool(emulator, tmp_path):
    """What it holds is kept if that is asked for, in our format."""
    path = tmp_path / "a.yaml"
    path.write_bytes((FOLDER / "vcrpy.yaml").read_bytes())
    with record(path, keep=True):
        "".join(stream_gemini_api_key("New?", emulator.key, "m", endpoints=Endpoints(gemini=emulator.url)))
    assert len(load(path).exchanges) == 2
    with replay(path):
        assert "".join(stream_gemini_api_key("Why?", "a-fake-key", "m")) == TEXT
        assert "New?" in "".join(stream_gemini_api_key("New?", "a-fake-key", "m"))
