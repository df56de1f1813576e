"""Tests of thought signatures: which service made them, what replaces them, and how a refusal is mended."""

from __future__ import annotations

import base64
import copy
import logging
from collections.abc import Iterable
from typing import Any, Optional

import pytest

from gemini_sync.errors import InvalidRequestError
from gemini_sync.messages.request import CODE_ASSIST, GEMINI_API, body_for, build
from gemini_sync.messages.signatures import PLACEHOLDER, Signatures
from tests.routing.fallback_kit import in_threads

OURS, THEIRS = CODE_ASSIST, GEMINI_API


def response(*signatures: str) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": "a", "thoughtSignature": made}]}} for made in signatures]}


def turns(*signatures: Any) -> list[Any]:
    """A history whose turns of the model have these signatures."""
    call = {"functionCall": {"name": "f", "args": {"thoughtSignature": "an argument"}}}
    return ["Hi", *({"role": "model", "parts": [{**call, "thoughtSignature": made}]} for made in signatures), "Go on"]


def signatures_in(body: Any) -> list[Any]:
    parts = (part for content in body["contents"] for part in content["parts"])
    return [part["thoughtSignature"] for part in parts if "thoughtSignature" in part]


def sent(known: Optional[Signatures], service: str, *signatures: Any) -> list[Any]:
    """The signatures in the body for ``service`` of a history with ``signatures``."""
    return signatures_in(body_for(build(turns(*signatures)), service, known))


def knowing(service: str, *signatures: str, most: int = 100) -> Signatures:
    known = Signatures(most)
    known.learn(service, response(*signatures))
    return known


def refusal(message: str = "Corrupted thought signature.", code: int = 400) -> InvalidRequestError:
    return InvalidRequestError(f"{code} INVALID_ARGUMENT: {message} Change the request.", code=code)


def mend(known: Signatures, service: str, signatures: Iterable[Any], error: InvalidRequestError) -> bool:
    return known.mend({"contents": build(turns(*signatures)).fields["contents"]}, service, error)


# -- which signatures are sent


def test_signature__of_another_service_becomes_the_placeholder() -> None:
    known = knowing(OURS, "b3Vy", "c2Vjb25k")
    assert sent(known, OURS, "b3Vy", "c2Vjb25k") == ["b3Vy", "c2Vjb25k"]
    assert sent(known, THEIRS, "b3Vy", "c2Vjb25k") == [PLACEHOLDER, PLACEHOLDER]


def test_signature__of_unknown_origin_is_sent_as_it_is() -> None:
    assert sent(knowing(OURS, "b3Vy"), THEIRS, "b2xk", "b3Vy") == ["b2xk", PLACEHOLDER]
    assert sent(None, THEIRS, "b2xk") == ["b2xk"]


def test_signature__alone_is_replaced() -> None:
    history = turns("b3Vy")
    request = build(history)
    before = copy.deepcopy(request.fields)
    body = body_for(request, THEIRS, knowing(OURS, "b3Vy"))
    assert body["contents"][1]["parts"][0].pop("thoughtSignature") == PLACEHOLDER
    assert history[1]["parts"][0].pop("thoughtSignature") == "b3Vy"
    assert body["contents"][1] == history[1]
    assert request.fields == before


@pytest.mark.parametrize("odd", [None, 5, "", [], {}])
def test_signature__that_is_none_passes_through(odd: Any) -> None:
    assert sent(knowing(OURS, "b3Vy"), THEIRS, odd, "b3Vy") == [odd, PLACEHOLDER]


def test_signature__of_every_candidate_is_learned() -> None:
    known = knowing(OURS, "Zmlyc3Q=", "c2Vjb25k")
    assert sent(known, THEIRS, "Zmlyc3Q=", "c2Vjb25k") == [PLACEHOLDER] * 2


@pytest.mark.parametrize("odd", [{}, {"candidates": None}, {"candidates": [None, {}, {"content": {"parts": [1]}}]}])
def test_learn__odd_responses(odd: Any) -> None:
    known = Signatures()
    known.learn(OURS, odd)
    assert sent(known, THEIRS, "b2xk") == ["b2xk"]


def test_signature__in_another_spelling_of_base64_is_the_same() -> None:
    """google-genai writes the bytes in the alphabet for URLs."""
    made = b"\xfb\xff\xfe?"
    standard, for_urls = base64.b64encode(made).decode(), base64.urlsafe_b64encode(made).decode()
    assert standard != for_urls
    known = knowing(OURS, standard)
    assert sent(known, THEIRS, for_urls, for_urls.rstrip("="), standard) == [PLACEHOLDER] * 3


def test_signature__seen_twice_belongs_to_the_last_that_made_it() -> None:
    known = knowing(OURS, "b3Vy", "b3Vy")
    known.learn(OURS, response("b3Vy"))
    assert sent(known, THEIRS, "b3Vy") == [PLACEHOLDER]
    known.learn(THEIRS, response("b3Vy"))
    assert (sent(known, THEIRS, "b3Vy"), sent(known, OURS, "b3Vy")) == (["b3Vy"], [PLACEHOLDER])


# -- a refusal


@pytest.mark.parametrize(
    "message",
    [
        "Corrupted thought signature.", "Invalid thought signature", "Thought signature is not valid", "bad: Invalid "
        "`thought_signature` in part 3", "`thought_signature` is invalid", "the Thought Signature is corrupted",
    ],
)  # fmt: skip
def test_refusal__of_unknown_signatures_is_mended(message: str, caplog: pytest.LogCaptureFixture) -> None:
    known = knowing(OURS, "b3Vy")
    assert mend(known, OURS, ["b2xk", "b3Vy"], refusal(message))
    assert sent(known, OURS, "b2xk", "b3Vy") == [PLACEHOLDER, "b3Vy"]
    assert sent(known, THEIRS, "b2xk", "b3Vy") == ["b2xk", PLACEHOLDER]
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert f"{OURS} refused" in line.getMessage()
    assert "b2xk" not in line.getMessage()


@pytest.mark.parametrize(
    "error",
    [
        refusal("Function call `f` in the 2. content block is missing a `thought_signature`."),
        refusal("Please use a valid role: user, model."),
        refusal("Corrupted image."),
        refusal(code=409),
    ],
)
def test_refusal__of_something_else_is_not_mended(error: InvalidRequestError, caplog: pytest.LogCaptureFixture) -> None:
    known = Signatures()
    assert not mend(known, OURS, ["b2xk"], error)
    assert sent(known, OURS, "b2xk") == ["b2xk"]
    assert caplog.records == []


def test_refusal__of_its_own_signatures_is_mended() -> None:
    """Another account or model of the same service may have made them."""
    known = knowing(OURS, "b3Vy")
    assert mend(known, OURS, ["b3Vy"], refusal())
    assert sent(known, OURS, "b3Vy") == [PLACEHOLDER]


def test_refusal__is_forgotten_if_the_service_makes_the_signature_itself() -> None:
    known = Signatures()
    assert mend(known, OURS, ["b2xk", "b3Vy"], refusal())
    known.learn(OURS, response("b3Vy"))
    assert sent(known, OURS, "b2xk", "b3Vy") == [PLACEHOLDER, "b3Vy"]
    known.learn(THEIRS, response("b2xk"))
    assert sent(known, OURS, "b2xk", "b3Vy") == [PLACEHOLDER, "b3Vy"]


@pytest.mark.parametrize(
    "signatures", [[], [PLACEHOLDER], [base64.b64encode(PLACEHOLDER.encode()).decode(), PLACEHOLDER], [5, None]]
)
def test_refusal__with_nothing_to_replace_is_not_mended(signatures: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert not mend(Signatures(), OURS, signatures, refusal())
    assert caplog.records == []


def test_refusal__that_two_threads_see_is_mended_for_both() -> None:
    """Both have sent the same history before one of them learned that it is refused."""
    known = Signatures()
    assert mend(known, OURS, ["b2xk"], refusal())
    assert mend(known, OURS, ["b2xk"], refusal())


# -- memory


def test_memory__is_bounded_and_forgets_the_oldest() -> None:
    known = Signatures(10)
    for number in range(1000):
        known.learn(OURS, response(f"made{number}"))
        assert sum(map(len, known._makers._newer_and_older)) <= 20
    newest = [f"made{number}" for number in range(990, 1000)]
    assert sent(known, THEIRS, *newest) == [PLACEHOLDER] * 10
    assert sent(known, THEIRS, "made0") == ["made0"]


def test_memory__keeps_what_is_in_use() -> None:
    """A long conversation sends its first signature with each turn."""
    known = knowing(OURS, "first", most=10)
    for number in range(1000):
        known.learn(THEIRS, response(f"made{number}"))
        assert sent(known, THEIRS, "first") == [PLACEHOLDER]


def test_memory__of_refusals_is_bounded() -> None:
    known = Signatures(10)
    for number in range(1000):
        assert mend(known, OURS, [f"old{number}"], refusal())
    assert sum(map(len, known._refused._newer_and_older)) <= 20
    assert sent(known, OURS, "old999", "old0") == [PLACEHOLDER, "old0"]


def test_memory__holds_no_signature() -> None:
    known = knowing(OURS, "b3Vy" * 50)
    assert mend(known, OURS, ["b2xk" * 50], refusal())
    held = repr([known._makers._newer_and_older, known._refused._newer_and_older])
    assert "b3Vy" not in held
    assert "b2xk" not in held


@pytest.mark.parametrize("most", [64, 10_000])
def test_memory__of_threads_that_learn_and_ask_at_once(most: int) -> None:
    """Of a memory that is large enough, no thread loses what another one has learned."""
    known = Signatures(most)

    def work(number: int) -> list[Any]:
        made = [f"made{number}x{count}" for count in range(500)]
        for signature in made:
            known.learn(OURS, response(signature))
            sent(known, THEIRS, signature, "made0x0")
        return made

    made = [signature for signatures in in_threads(4, work) for signature in signatures]
    if most > len(made):
        assert sent(known, THEIRS, *made) == [PLACEHOLDER] * len(made)
    assert sum(map(len, known._makers._newer_and_older)) <= 2 * most + 8
