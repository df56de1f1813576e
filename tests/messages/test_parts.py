"""Tests of the values in parts: inline data and function calls."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_sync.errors import ProtocolError
from gemini_sync.messages.parts import Blob, FunctionCall
from tests.messages.reply_kit import chunk, reply_of


def test_blob__repr_hides_the_data() -> None:
    assert repr(Blob("image/png", b"canary")) == "Blob(mime_type='image/png')"


@given(st.binary(max_size=40))
@settings(max_examples=50, deadline=None)
def test_inline_data__both_alphabets_with_and_without_padding(data: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for text in (encode(data).decode(), encode(data).decode().rstrip("=")):
            assert chunk({"inlineData": {"mimeType": "a/b", "data": text}}).inline_data == (Blob("a/b", data),)


@pytest.mark.parametrize(
    "data", ["a", "aGk=x", "aGk==", "a b", "aGk\n", "é", "====", "a$$$", "AAAA!", "AAAA\n", "AAAAA"]
)
def test_inline_data__that_is_no_base64__raises(data: str) -> None:
    with pytest.raises(ProtocolError, match=rf"Expected base64 in inlineData, came {len(data)} characters"):
        _ = chunk({"inlineData": {"mimeType": "a/b", "data": data}}).inline_data


def test_inline_data__fields_that_are_not_set() -> None:
    for empty in ({}, {"data": None, "mimeType": None}):
        assert chunk({"inlineData": empty}, {"inlineData": None}).inline_data == (Blob("", b""),)


@pytest.mark.parametrize("wrong", ["x", 5, ["x"], {"data": 5}, {"data": ["aGk="]}])
def test_inline_data__wrong_types__raise(wrong: Any) -> None:
    with pytest.raises(ProtocolError, match=r"Expected .* inlineData, came"):
        _ = chunk({"inlineData": wrong}).inline_data


# -- function calls


def test_function_call__arguments_as_text() -> None:
    one = chunk({"functionCall": {"name": "f", "args": '{"a": {"b": 1}}'}})
    assert one.function_calls == (FunctionCall("f", {"a": {"b": 1}}),)


@pytest.mark.parametrize("unset", [None, "", {}, "{}"])
def test_function_call__without_arguments(unset: Any) -> None:
    assert chunk({"functionCall": {"name": "f", "args": unset}}).function_calls == (FunctionCall("f", {}),)


@pytest.mark.parametrize("args", [["a"], [], 5, 0, False, "{bad", "[1]", '"text"', "[" * 100_000])
def test_function_call__arguments_that_are_no_object__raise_when_asked_for(args: Any) -> None:
    one = chunk("a", {"functionCall": {"name": "f", "args": args}}, finishReason="STOP")
    reply = reply_of(one)
    assert list(reply) == ["a"], "the text comes, and the call is in the history as it came"
    for view in (one, reply):
        with pytest.raises(ProtocolError, match=r"Expected a JSON object in functionCall\.args, came"):
            _ = view.function_calls


@pytest.mark.parametrize("call", ["f", 5, ["f"], True])
def test_function_call__that_is_no_object__raises_when_asked_for(call: Any) -> None:
    with pytest.raises(ProtocolError, match="Expected a JSON object in functionCall, came"):
        _ = chunk({"functionCall": call}).function_calls


@pytest.mark.parametrize("call", [None, {}, {"name": ""}, {"name": None}, {"args": {"a": 1}}, {"willContinue": True}])
def test_function_call__without_a_name_is_none(call: Any) -> None:
    first = {"functionCall": {"name": "f"}}
    assert chunk(first, {"functionCall": call}).function_calls == (FunctionCall("f", {}),)
