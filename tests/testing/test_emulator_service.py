"""The emulated services: which requests they refuse, and how they answer the small requests of Code Assist."""

from __future__ import annotations

import pytest

from tests.testing.support import MODEL, PROMPT, STREAM, WRAPPED, ask, ask_oauth, events, send


def test_count_tokens__every_form(emulator):
    count = {"generateContentRequest": {"model": "models/m", **PROMPT}}
    assert ask(emulator, MODEL + ":countTokens").content == {"totalTokens": 1}
    assert ask(emulator, MODEL + ":countTokens", count).content == {"totalTokens": 1}
    body = {"request": {"model": "models/gemini-3-flash", **PROMPT}}
    assert ask_oauth(emulator, "/v1internal:countTokens", body).content == {"totalTokens": 1}
    assert emulator.oauth.requests[-1].model == "gemini-3-flash"


def test_signature__of_the_other_route_is_corrupted(emulator):
    emulator.oauth.answer(thoughts="Hm.", text="Yes")
    chunk = events(ask_oauth(emulator).content)[-1]["response"]
    model_turn = chunk["candidates"][0]["content"]
    history = {"contents": [*PROMPT["contents"], model_turn, *PROMPT["contents"]]}
    assert ask_oauth(emulator, body={**WRAPPED, "request": history}).status == 200
    assert ask(emulator, body=history).content["error"]["message"] == "Corrupted thought signature."
    model_turn["parts"][0]["thoughtSignature"] = "skip_thought_signature_validator"
    assert ask(emulator, body=history).status == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "Invalid JSON payload received"),
        (b"[]", "The root is not an object"),
        ({}, "contents is not specified"),
        ({"contents": "Why?"}, "a list of objects"),
        ({"contents": [1]}, "a list of objects"),
        ({"contents": [{"role": "user"}]}, "a list of parts"),
        ({"contents": [{"role": "system", "parts": [{"text": "x"}]}]}, "Please use a valid role"),
    ],
)
def test_body__malformed(emulator, body, message):
    error = ask(emulator, body=body).content["error"]
    assert error["code"] == 400
    assert message in error["message"]
    assert error["details"][0]["@type"].endswith("BadRequest")
    assert ask_oauth(emulator, body=body).status == 400


def test_model__missing(emulator):
    assert "model" in ask_oauth(emulator, body={"request": PROMPT}).content["error"]["message"]


def test_models__unknown_one(emulator):
    emulator.models = {"gemini-3.5-flash"}
    assert ask(emulator).status == 200
    error = ask(emulator, "/v1beta/models/other:generateContent").content["error"]
    assert (error["code"], error["status"]) == (404, "NOT_FOUND")
    assert error["message"].startswith("models/other is not found for API version v1beta")
    emulator.oauth.models = {"gemini-3-flash"}
    assert ask_oauth(emulator).status == 200
    emulator.oauth.models = set()
    assert ask_oauth(emulator).status == 404


def test_path__names_are_unquoted_and_unknown_paths_404(emulator):
    assert ask(emulator, "/v1beta/tunedModels/my%3Aown:generateContent").status == 200
    assert emulator.api_key.requests[0].model == "tunedModels/my:own"
    for method, path in [("POST", "/v1beta/models/a/b:generateContent"), ("GET", STREAM), ("POST", "/v1internal:no")]:
        assert send(emulator, method, path, b"" if method == "POST" else None).status == 404
    assert [request.route for request in emulator.requests] == ["api_key", "", "", ""]


# --- Code Assist


def test_load_code_assist__with_and_without_tier(emulator):
    loaded = ask_oauth(emulator, "/v1internal:loadCodeAssist", {}).content
    assert loaded["currentTier"]["id"] == "free-tier"
    assert loaded["cloudaicompanionProject"] == "emulator-project"
    assert [tier["id"] for tier in loaded["allowedTiers"]] == ["free-tier", "standard-tier"]
    emulator.tier = None
    emulator.ineligible_tiers = [{"reasonCode": "UNSUPPORTED_CLIENT", "tierId": "free-tier"}]
    loaded = ask_oauth(emulator, "/v1internal:loadCodeAssist", {}).content
    assert loaded.keys() == {"allowedTiers", "ineligibleTiers"}
    emulator.tier = "legacy-tier"
    assert ask_oauth(emulator, "/v1internal:loadCodeAssist", {}).content["currentTier"] == {"id": "legacy-tier"}


def test_onboard__polled_until_done(emulator):
    emulator.tier, emulator.onboarding_polls = None, 2
    operation = ask_oauth(emulator, "/v1internal:onboardUser", {"tierId": "free-tier"}).content
    assert "done" not in operation
    polled = [ask_oauth(emulator, f"/v1internal/{operation['name']}", None).content for _ in range(3)]
    assert [answer.get("done") for answer in polled] == [None, True, True]
    assert polled[2]["response"]["cloudaicompanionProject"]["id"] == "emulator-project"
    assert emulator.tier == "free-tier"
    assert len(emulator.operation.requests) == 3
    assert ask_oauth(emulator, "/v1internal/operations/other", None).status == 404


def test_onboard__at_once_and_refused(emulator):
    emulator.tier = emulator.project = None
    both = {"tierId": "free-tier", "cloudaicompanionProject": "mine"}
    error = ask_oauth(emulator, "/v1internal:onboardUser", both).content["error"]
    assert (error["status"], error["message"]) == ("FAILED_PRECONDITION", "Precondition failed")
    assert ask_oauth(emulator, "/v1internal:onboardUser", {"tierId": "none"}).status == 400
    assert emulator.tier is None
    answer = ask_oauth(emulator, "/v1internal:onboardUser", {"tierId": "free-tier"}).content
    assert (answer["done"], answer["response"]) == (True, {})
    answer = ask_oauth(emulator, "/v1internal:onboardUser", {**both, "tierId": "standard-tier"}).content
    assert answer["response"]["cloudaicompanionProject"]["id"] == "mine"
    assert (emulator.tier, emulator.project) == ("standard-tier", "mine")


def test_quota(emulator):
    emulator.models = {"m"}
    bucket = ask_oauth(emulator, "/v1internal:retrieveUserQuota", {"project": "p"}).content["buckets"][0]
    assert (bucket["modelId"], bucket["tokenType"]) == ("m", "REQUESTS")
