"""Tests of redaction: texts that people read hold no credentials and no control characters."""

from __future__ import annotations

import pytest

from gemini_sync.redaction import beginning, link_advice, redact_text, redacted_excerpt, redacted_name, safe_link

# Shaped like credentials, but not real ones.
CANARIES = {
    "api key": "AIzaSyEXAMPLE-canary_00",
    "other api key": "AIzvEXAMPLEcanary00000",
    "new api key": "AQ.Ab8EXAMPLE_canary-0000000",
    "access token": "ya29.a0EXAMPLE_canary-000.more",
    "refresh token": "1//0gEXAMPLE_canary-0000000",
    "client secret": "GOC" + "SPX-example_canary-000",
}


@pytest.mark.parametrize("secret", CANARIES.values(), ids=CANARIES)
@pytest.mark.parametrize(
    "around", ["{}", "key {}.", '"{}"', "({})", "x={}&y=1", "Bearer {}", "a\n{}\nb", "\t{}", "\\{}", "ключ:{}"]
)
def test_redact__each_shape_of_a_credential(secret: str, around: str) -> None:
    text = around.format(secret)
    for redacted in (redact_text(text), redacted_excerpt(text)):
        assert "canary" not in redacted
        assert "[redacted]" in redacted


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Authorization: Bearer opaque/canary+1==", "Authorization: Bearer [redacted]"),
        ("GET https://x.example/v1?alt=sse&key=canary-1 now", "GET https://x.example/v1?alt=sse&key=[redacted] now"),
        ("https://x.example/?key=canary&alt=sse", "https://x.example/?key=[redacted]&alt=sse"),
        ("proxy http://user:can:ary@proxy.example:3128/", "proxy http://[redacted]@proxy.example:3128/"),
        ("https://x.example:443/a@b", "https://x.example:443/a@b"),
        ("the AIza prefix and ya29 alone", "the AIza prefix and ya29 alone"),
        ("FAQ.Questions-and-answers", "FAQ.Questions-and-answers"),
        ("https://x.example/v1//path-of-a-model", "https://x.example/v1//path-of-a-model"),
        ("", ""),
    ],
)  # fmt: skip
def test_redact__by_what_stands_before_it(text: str, redacted: str) -> None:
    assert redact_text(text) == redacted


@pytest.mark.parametrize("control", ["\x00", "\x07", "\x1b[", "\x9b", "\x9d", "\u202e", "\ud800"])
@pytest.mark.parametrize("secret", ["AIza" + "S" * 35, "ya29.canary-canary", "1//0gCANARYCANARY", "opaque-canary"])
def test_excerpt__control_characters_hide_no_secret(secret: str, control: str) -> None:
    text = redacted_excerpt(f"sent{control}{secret}{control} refused", [secret] if secret.startswith("opaque") else [])
    assert text.isprintable()
    assert "[redacted]" in text
    assert secret[1:] not in text


def test_excerpt__of_a_megabyte() -> None:
    """It takes linear time. Each piece is the beginning of a sequence that has no end."""
    for piece in ("\x9d", "\x1b]", "\x9b0", "\x1b[;", "a\n", "AIza", "://a:"):
        assert len(redacted_excerpt(piece * 2**18)) <= 500


def test_redact__the_given_secrets() -> None:
    assert redact_text("opaque and opaque-too, not 'open'", ["opaque", "opaque-too", ""]) == (
        "[redacted] and [redacted], not 'open'"
    )
    assert redact_text("opaque", iter(("opaque",))) == "[redacted]"


def test_excerpt__redacts_before_it_cuts() -> None:
    key = CANARIES["api key"]
    for offset in range(480, 502):
        text = redacted_excerpt("x" * offset + " " + key)
        assert len(text) <= 500
        assert "AIza" not in text


def test_excerpt__is_one_line_of_at_most_500_characters() -> None:
    assert redacted_excerpt(" a\r\n\tb  c ") == "a b c"
    assert redacted_excerpt("x" * 500) == "x" * 500
    assert redacted_excerpt("x" * 501) == "x" * 499 + "…"


@pytest.mark.parametrize("before", [" ", "x", "x ", "\n"])
@pytest.mark.parametrize("secret", ["AIza" + "S" * 35, "a-plain-secret-without-a-shape"])
def test_excerpt__of_a_huge_text_shows_no_half_of_a_secret_at_the_cut(before: str, secret: str) -> None:
    for shown in range(1, len(secret), 3):
        text = (
            "key "
            + before * ((2**17 - shown - 4) // len(before))
            + " " * (2 - len(before))
            + secret
            + " and more" * 10**5
        )
        told = redacted_excerpt(text, [secret], 2**20)
        assert not any(secret[:size] in told for size in range(5, len(secret)))


def test_excerpt__of_a_huge_text_ends_with_a_whole_word() -> None:
    words = beginning("one two " * 2**20)
    assert 2**17 - 10 < len(words) <= 2**17
    assert words.split()[-1] in ("one", "two")
    assert beginning("x" * 2**20) == "x" * (2**17 - 4096)
    assert beginning("x" * 2**17) == "x" * 2**17


@pytest.mark.parametrize(
    "said", ["canary+a/b=", "CANARY+A/B=", "canary%2Ba%2Fb%3D", "canary%2ba/b%3d", "Canary%2BA/b%3D"]
)
def test_redact__a_given_secret_in_another_spelling(said: str) -> None:
    assert redact_text(f"<{said}>", ["canary+a/b="]) == "<[redacted]>"


HIDING = "\u200e\u200f\u061c\u2028\u2029\u202e\u2066\u2069\x00\x1b\x9b\x7f\U000e0041\U000e007f\ufeff\ud800"


@pytest.mark.parametrize("character", HIDING)
def test_excerpt__holds_no_character_that_hides_or_turns_text(character: str) -> None:
    assert redacted_excerpt(f"a{character}b") == redacted_name(f"a{character}b") == "a b"


def test_name__is_short() -> None:
    assert redacted_name("x" * 100) == "x" * 100
    assert redacted_name("x" * 101) == "x" * 99 + "…"


LONG = "https://example.com/" + "x" * 280


@pytest.mark.parametrize("link", ["https://example.com/a?b=c#d", LONG])
def test_link__that_is_safe(link: str) -> None:
    assert safe_link(link, ["canary"]) == link
    assert link_advice(link, link, "Wait.") == f"See {link}"


@pytest.mark.parametrize(
    "link",
    [
        LONG + "x", "http://example.com/", "javascript:alert(1)", "https://", "https://a\nb", "https://a.example/\u202e",
        "https://a.example/ b", "https://a.example/?q=CANARY", "https://u:p@a.example/", "HTTPS://a.example", 7, None,
    ],
)  # fmt: skip
def test_link__that_is_not_safe(link: object) -> None:
    assert safe_link(link, ["canary"]) is None
    said = "A link of the server was left out, because it is not safe to show. Wait."
    assert link_advice(link, None, "Wait.") == (said if link else "Wait.")
