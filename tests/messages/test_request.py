"""Tests of how prompts become JSON: every form of a prompt, copies of it, and clear errors."""

from __future__ import annotations

import copy
import json
import pickle
from collections import UserList, deque
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_sync.errors import ConfigError
from gemini_sync.messages.request import GEMINI_API, Request, body_for, build, check_model
from gemini_sync.services.base import encode_json


def encoded(request: Request) -> Any:
    """The body that a server receives."""
    return json.loads(encode_json(body_for(request, GEMINI_API)))


def body_of(*arguments: Any, **options: Any) -> Any:
    return encoded(build(*arguments, **options))


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


IMAGE = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
MODEL_TURN = {"role": "model", "parts": [{"text": "", "thoughtSignature": "c2ln"}], "unknownField": {"a": [1, None]}}


# -- contents


@pytest.mark.parametrize(
    ("contents", "turns"),
    [
        ("Hi", [user({"text": "Hi"})]),
        ({"text": "Hi"}, [user({"text": "Hi"})]),
        (IMAGE, [user(IMAGE)]),
        (user({"text": "Hi"}), [user({"text": "Hi"})]),
        ({"parts": [{"text": "Hi"}]}, [{"parts": [{"text": "Hi"}]}]),
        ({"role": "user", "parts": ["Hi", IMAGE]}, [user({"text": "Hi"}, IMAGE)]),
        ({"role": "user", "parts": ("Hi",)}, [user({"text": "Hi"})]),
        (["Hi", IMAGE], [user({"text": "Hi"}, IMAGE)]),
        (("Hi", "there"), [user({"text": "Hi"}, {"text": "there"})]),
        (["Hi", MODEL_TURN, "more", IMAGE], [user({"text": "Hi"}), MODEL_TURN, user({"text": "more"}, IMAGE)]),
        ([MODEL_TURN, MODEL_TURN], [MODEL_TURN, MODEL_TURN]),
        (["", "Hi"], [user({"text": ""}, {"text": "Hi"})]),
        ({"text": "", "thoughtSignature": "c2ln"}, [user({"text": "", "thoughtSignature": "c2ln"})]),
        ({"functionResponse": {"name": "f"}}, [user({"functionResponse": {"name": "f"}})]),
        (MappingProxyType({"text": "Hi"}), [user({"text": "Hi"})]),
        ({"newKind": {"x": 1}}, [user({"newKind": {"x": 1}})]),
    ],
)  # fmt: skip
def test_contents__every_form(contents: Any, turns: Any) -> None:
    before = copy.deepcopy(contents) if not isinstance(contents, MappingProxyType) else contents
    request = build(contents)
    assert encoded(request) == {"contents": turns}
    assert contents == before


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("", "The prompt is empty"), (" \n", "The prompt is empty"), (["", " "], "The prompt is empty"),
        ({"text": ""}, "The prompt is empty"), ({"text": " ", "thought": True}, "The prompt is empty"),
        (user({"text": ""}), "The prompt is empty"), ([], "contents is empty"), ((), "contents is empty"),
        ({}, "An empty dict in contents is no part"), (["Hi", {}], "An empty dict in contents is no part"),
        (user(), "a Content's parts must be a list of at least one"), (user({}), "An empty dict in a Content's parts"),
        ({"role": "user"}, "a Content's parts must be a list"), ({"parts": "Hi"}, "parts must be a list"),
        ({"parts": {"text": "Hi"}}, "parts must be a list"), ({"parts": [5]}, "parts must be a string"),
        (None, "contents must be a string.*not NoneType"), (5, "not int"), (b"Hi", "not bytes"), ([b"Hi"], "not bytes"),
        ([["Hi"]], "not list"), ({"Hi"}, "not set"), (iter(["Hi"]), "not list_iterator"), ([None], "not NoneType"),
    ],
)  # fmt: skip
def test_contents__that_cannot_be_a_prompt__are_refused(contents: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(contents)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (float("nan"), "came nan"), (float("-inf"), "came -inf"), (b"PNG", "came bytes.*base64"),
        (bytearray(b"PNG"), "came bytearray.*base64"), ({1, 2}, "came set"), (object(), "came object"),
        ("\ud800", "half a character"), ({(1, 2): 3}, "expected field names"), ({1: 2}, "expected field names"),
    ],
)  # fmt: skip
def test_contents__that_json_cannot_hold__are_refused_by_their_path(value: Any, why: str) -> None:
    path = r"contents\[0\]\.parts\[1\]\.inlineData\.data"
    with pytest.raises(ConfigError, match=rf"^{path} cannot be written as JSON: .*{why}"):
        build(["Hi", {"inlineData": {"mimeType": "image/png", "data": value}}])
    with pytest.raises(ConfigError, match=rf"^generationConfig\.stopSequences\[0\] cannot be written as JSON: .*{why}"):
        build("Hi", generation_config={"stopSequences": [value]})


def test_contents__only_bytes_get_the_advice_on_base64() -> None:
    with pytest.raises(ConfigError) as caught:
        build({"text": object()})
    assert "base64" not in str(caught.value)


def test_contents__any_mapping__becomes_an_object() -> None:
    assert body_of({"functionCall": MappingProxyType({"name": "f"})})["contents"][0]["parts"] == [
        {"functionCall": {"name": "f"}}
    ]


def test_contents__circular_or_too_deep__are_refused() -> None:
    circle: dict[str, Any] = {"text": "Hi"}
    circle["self"] = circle
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    try:
        values: list[Any] = [circle, {"functionCall": deep}]
        for value in values:
            with pytest.raises(ConfigError, match="cannot be written as JSON"):
                build(value)
    finally:
        while deep:  # taken apart in a loop, because older interpreters overflow the stack when they free it
            deep = deep.pop()


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), min_size=1).filter(str.strip))
@settings(max_examples=50, deadline=None)
def test_contents__any_text__arrives_as_it_is(text: str) -> None:
    assert encoded(build(text))["contents"][0]["parts"][0]["text"] == text


# -- the rest of the body


def test_body__has_each_field_by_its_rest_name() -> None:
    request = build(
        "Hi",
        system_instruction="Be brief.",
        tools=({"googleSearch": {}},),
        tool_config={"functionCallingConfig": {"mode": "ANY"}},
        safety_settings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        generation_config={"temperature": 0, "thinkingConfig": {"thinkingBudget": -1}},
        cached_content="cachedContents/x",
        labels={"team": "a"},
    )
    assert encoded(request) == {
        "contents": [user({"text": "Hi"})],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "tools": [{"googleSearch": {}}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "generationConfig": {"temperature": 0, "thinkingConfig": {"thinkingBudget": -1}},
        "cachedContent": "cachedContents/x",
        "labels": {"team": "a"},
    }


def test_body__is_compact_utf8() -> None:
    body = encode_json(body_for(build("Grüße\n"), GEMINI_API))
    assert body == '{"contents":[{"role":"user","parts":[{"text":"Grüße\\n"}]}]}'.encode()


def test_body__keeps_empty_lists_and_dicts() -> None:
    assert body_of("Hi", tools=[], generation_config={}) == {
        "contents": [user({"text": "Hi"})],
        "tools": [],
        "generationConfig": {},
    }


@pytest.mark.parametrize(("option", "name"), [("tools", "tools"), ("safety_settings", "safetySettings")])
@pytest.mark.parametrize("kind", [tuple, UserList, deque])
def test_body__any_sequence__becomes_a_list(option: str, name: str, kind: Any) -> None:
    assert body_of("Hi", **{option: kind([{"a": (1, 2)}, {"b": 2}])})[name] == [{"a": [1, 2]}, {"b": 2}]


@pytest.mark.parametrize(
    ("option", "name", "values"),
    [
        ("tools", "tools", ["x", b"x", {"googleSearch": {}}, 5, iter([])]),
        ("tool_config", "toolConfig", [[], "x", 5]),
        ("safety_settings", "safetySettings", ["x", {"category": "x"}, 5]),
        ("generation_config", "generationConfig", [[], "x", 0.5]),
        ("cached_content", "cachedContent", [5, b"x", {}]),
        ("labels", "labels", [[], "x"]),
    ],
)
def test_body__wrong_types__are_refused(option: str, name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"{name} must be a .*, not {type(value).__name__}"):
            build("Hi", **{option: value})


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Be brief.", {"parts": [{"text": "Be brief."}]}),
        ({"text": "Be brief."}, {"parts": [{"text": "Be brief."}]}),
        (["Be", {"text": "brief."}], {"parts": [{"text": "Be"}, {"text": "brief."}]}),
        (("Be", "brief."), {"parts": [{"text": "Be"}, {"text": "brief."}]}),
        ({"role": "system", "parts": ["Be brief."]}, {"role": "system", "parts": [{"text": "Be brief."}]}),
    ],
)
def test_system_instruction__every_form(instruction: Any, expected: Any) -> None:
    assert body_of("Hi", system_instruction=instruction)["systemInstruction"] == expected


@pytest.mark.parametrize(
    "instruction", [5, b"x", [], {}, [5], [["x"]], {"parts": []}, {"parts": "x"}, {"role": "system"}]
)
def test_system_instruction__that_is_none__is_refused(instruction: Any) -> None:
    with pytest.raises(ConfigError, match="system_instruction"):
        build("Hi", system_instruction=instruction)


def test_request__does_not_change_with_the_callers_dicts() -> None:
    part: Any = {"text": "Hi"}
    turn: Any = {"role": "user", "parts": [part]}
    contents: Any = [turn]
    config: Any = {"topK": 1}
    tools: Any = [{"googleSearch": {}}]
    request = build(contents, generation_config=config, tools=tools, labels={"a": "b"})
    before = encoded(request)
    part["text"], turn["role"], config["topK"] = "changed", "model", 99
    turn["parts"].append("more")
    contents.append("more")
    tools.clear()
    assert encoded(request) == before
    assert before["contents"] == [user({"text": "Hi"})]


def test_request__is_frozen_and_picklable() -> None:
    request = build("Hi")
    with pytest.raises(AttributeError):
        request.model = "models/other"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(request)) == request


# -- models


@pytest.mark.parametrize(
    ("model", "resource", "path"),
    [
        ("gemini-x", "models/gemini-x", "models/gemini-x"),
        ("models/gemini-x", "models/gemini-x", "models/gemini-x"),
        ("tunedModels/mine-1", "tunedModels/mine-1", "tunedModels/mine-1"),
        ("a?key=x", "models/a?key=x", "models/a%3Fkey%3Dx"),
        ("a#f", "models/a#f", "models/a%23f"),
        ("x:countTokens", "models/x:countTokens", "models/x%3AcountTokens"),
        ("%2e%2e", "models/%2e%2e", "models/%252e%252e"),
        ("..\\..\\x", "models/..\\..\\x", "models/..%5C..%5Cx"),
        ("...", "models/...", "models/..."),
        ("модель", "models/модель", "models/%D0%BC%D0%BE%D0%B4%D0%B5%D0%BB%D1%8C"),
    ],
)
def test_model__is_quoted_in_the_path(model: str, resource: str, path: str) -> None:
    request = build("Hi", model=model)
    assert (request.model, request.path) == (resource, path)
    url = urlsplit(f"https://example.com/v1beta/{request.path}:generateContent?alt=sse")
    assert (url.path, url.query, url.fragment) == (f"/v1beta/{path}:generateContent", "alt=sse", "")


@pytest.mark.parametrize(
    "model",
    [
        "", " ", ".", "..", "/", "models/", "models/..", "models/.", "tunedModels/", "../../x", "models/../x", "/../",
        "publishers/google/models/x", "models/models/x", "x/", "other/x", "a b", "a\nb", "a\tb", "a\x00b", "a\u2028b",
        "a\u00a0b", "a\ud800b", "MODELS/x",
    ],
)  # fmt: skip
def test_model__that_is_no_name__is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="model must be a name such as"):
        build("Hi", model=model)


@pytest.mark.parametrize("model", [None, 5, b"gemini", ["gemini"]])
def test_model__of_another_type__is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match=f"model must be a string.*not {type(model).__name__}"):
        check_model(model)


@given(st.text(max_size=20))
@settings(max_examples=200, deadline=None)
def test_model__any_text__cannot_change_the_url(model: str) -> None:
    try:
        request = build("Hi", model=model)
    except ConfigError:
        return
    url = urlsplit(f"https://example.com/v1beta/{request.path}:generateContent?alt=sse")
    assert (url.netloc, url.query, url.fragment) == ("example.com", "alt=sse", "")
    head, collection, name = url.path.rpartition(":")[0][1:].split("/")
    assert (head, collection in ("models", "tunedModels"), name in ("", ".", "..")) == ("v1beta", True, False)
