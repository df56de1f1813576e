"""Code Assist's names of models: the table, a table of the caller's own, and what a 404 says about them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from gemini_sync import CODE_ASSIST_MODELS, DEFAULT_MODEL, CodeAssist, ConfigError, NotFoundError, Timeouts
from gemini_sync.adapter import GeminiDualAdapter
from tests.adapter_kit import Rig


def _sent(rig: Rig, adapter: GeminiDualAdapter, model: str) -> list[str]:
    """The names under which ``model`` goes into a generating and a counting request."""
    adapter.generate("Hi", model=model)
    adapter.count_tokens("Hi", model=model)
    generated, counted = rig.emulator.oauth.requests[-2:]
    return [generated.json["model"], counted.json["request"]["model"]]


def test_model__in_the_spelling_of_code_assist(rig: Rig) -> None:
    adapter = rig.adapter()
    assert DEFAULT_MODEL == "gemini-3.8-flash"
    assert _sent(rig, adapter, DEFAULT_MODEL) == ["gemini-3.8-flash", "models/gemini-3.8-flash"]
    assert _sent(rig, adapter, "models/gemini-3.5-flash") == ["gemini-3-flash", "models/gemini-3-flash"]
    assert _sent(rig, adapter, "models/gemini-2.5-pro") == ["gemini-2.5-pro", "models/gemini-2.5-pro"]


def test_model__in_a_spelling_of_the_caller(rig: Rig) -> None:
    given = {**CODE_ASSIST_MODELS, "models/gemini-3.8-flash": " models/their-flash "}
    adapter = rig.adapter(oauth_service=CodeAssist(models=given))
    given.clear()
    assert _sent(rig, adapter, "gemini-3.8-flash") == ["their-flash", "models/their-flash"]
    assert _sent(rig, adapter, "gemini-3.5-flash") == ["gemini-3-flash", "models/gemini-3-flash"]
    assert _sent(rig, rig.adapter(oauth_service=CodeAssist({})), "gemini-3.5-flash")[0] == "gemini-3.5-flash"
    copy = pickle.loads(pickle.dumps(CodeAssist({"a": "b"})))
    assert copy == CodeAssist({"a": "b"}) != CodeAssist()
    assert hash(copy) == hash(CodeAssist({"a": "b"}))


@pytest.mark.parametrize("counting", [False, True])
def test_404__says_that_the_table_can_be_changed(rig: Rig, counting: bool) -> None:
    rig.emulator.oauth.models = {"something-else"}
    adapter = rig.adapter(api_key=None, model="gemini-3.5-flash")
    with pytest.raises(NotFoundError, match="sent as 'gemini-3-flash'") as caught:
        adapter.count_tokens("Hi") if counting else adapter.generate("Hi")
    assert "oauth_service=CodeAssist(models={'gemini-3.5-flash': 'the other name'})" in str(caught.value)
    assert str(caught.value).count("Check the model name.") == 1
    assert (caught.value.code, caught.value.route) == (404, "oauth")


def test_404__with_a_link_keeps_the_link(rig: Rig) -> None:
    rig.emulator.oauth.fail(404, link="https://help.example")
    with pytest.raises(NotFoundError, match=r"See https://help\.example Check the model name"):
        rig.adapter(api_key=None).generate("Hi")


def test_404__of_the_api_key_route_says_nothing_of_it(rig: Rig) -> None:
    rig.emulator.models = {"something-else"}
    with pytest.raises(NotFoundError) as caught:
        rig.adapter(oauth_creds_path=None).generate("Hi")
    assert "CodeAssist" not in str(caught.value)


@pytest.mark.parametrize("models", [None, ["a"], {"a": 1}, {1: "a"}, {"a": ""}, {" ": "a"}, "ab"])
def test_models__that_are_no_table(models: Any) -> None:
    with pytest.raises(ConfigError, match=r"CodeAssist\.models must map model names"):
        CodeAssist(models)


@pytest.mark.parametrize("service", [None, "code_assist", CodeAssist, Timeouts()])
def test_oauth_service__of_another_type(rig: Rig, service: Any) -> None:
    with pytest.raises(ConfigError, match="oauth_service must be CodeAssist"):
        rig.adapter(oauth_service=service)
