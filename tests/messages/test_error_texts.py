"""Holds the errors to what they read out of texts (how long to wait) and keep out of them (credentials)."""

from __future__ import annotations

import json
import pickle
import time
import traceback
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_sync.messages.api_errors import api_error, retry_after_header
from gemini_sync.redaction import redact_text, redacted_excerpt

NOW = 1_700_000_000.0
_RPC = "type.googleapis.com/google.rpc."
# None of them is anybody's.
CANARIES = {
    "api key": "AIzaSyEXAMPLE-canary_00",
    "other api key": "AIzvEXAMPLEcanary00000",
    "new api key": "AQ.Ab8EXAMPLE_canary-0000000",
    "access token": "ya29.a0EXAMPLE_canary-000.more",
    "refresh token": "1//0gEXAMPLE_canary-0000000",
    "client secret": "GOC" + "SPX-example_canary-000",
}


def hint(
    *,
    retry_info: Any = None,
    headers: Optional[dict[str, str]] = None,
    metadata: Any = None,
    message: str = "",
) -> Optional[float]:
    """The delay that ``api_error`` reads out of an answer with these hints."""
    details = [{"@type": _RPC + "ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "metadata": metadata}]
    if retry_info is not None:
        details.append({"@type": _RPC + "RetryInfo", "retryDelay": retry_info})
    body = {"error": {"code": 429, "message": message, "details": details}}
    return api_error(429, body, headers=headers, now=NOW).retry_after


# -- delay hints


def test_delay_hints__in_their_order() -> None:
    hints: dict[str, Any] = {
        "retry_info": "1s",
        "headers": {"Retry-After": "2"},
        "metadata": {"quotaResetDelay": "3s"},
        "message": "Please retry in 4s.",
    }
    seen = []
    for name in list(hints):
        seen.append(hint(**hints))
        del hints[name]
    assert seen == [1, 2, 3, 4]
    assert hint(**hints) is None


@pytest.mark.parametrize(
    ("spelled", "seconds"),
    [
        ("34.07s", 34.07), ("900ms", 0.9), ("0s", 0), ("53.0s", 53), ("1h2m3s", 3723), ("2m0.5s", 120.5),
        ("24h", 86400),
        ("1h16m0.667923083s", 4560.667923083), ("7.5e3s", None), ("", None), ("  ", None), ("-5s", None), ("12", None),
        ("s", None), ("soon", None), ("5s later", None), (" 5s ", 5), ("٣s", None), (5, None), ([], None),
        (None, None), (True, None), ({"seconds": 34, "nanos": 70_000_000}, 34.07), ({"seconds": "34"}, 34),
        ({"nanos": 5e8}, 0.5), ({}, 0), ({"seconds": -5}, 0), ({"seconds": "x"}, None), ({"seconds": []}, 0),
        ({"seconds": [1]}, None), ({"seconds": 10**400}, None),
    ],
)  # fmt: skip
def test_delay_hints__spellings_of_a_duration(spelled: Any, seconds: Optional[float]) -> None:
    for seen in (hint(retry_info=spelled), hint(metadata={"quotaResetDelay": spelled})):
        assert seen == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "given",
    [
        {"retry_info": "9" * 20 + "s"},
        {"retry_info": "9" * 400 + "h"},
        {"retry_info": {"seconds": 10**20}},
        {"retry_info": {"seconds": "inf"}},
        {"headers": {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}},
        {"metadata": {"quotaResetDelay": "1000000000.5s"}},
        {"message": "Please retry in 999999999999h."},
    ],
)
def test_delay_hints__are_never_longer_than_a_wait_can_be(given: Any) -> None:
    assert hint(**given) == 1e9


def test_delay_hints__first_usable_retry_info() -> None:
    delays = [{"@type": _RPC + "RetryInfo", "retryDelay": value} for value in ("?", "8s", "9s")]
    assert api_error(429, {"error": {"details": delays}}).retry_after == 8


@pytest.mark.parametrize("metadata", [None, 5, [], "5s"])
def test_delay_hints__metadata_of_another_shape(metadata: Any) -> None:
    assert hint(metadata=metadata) is None


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("You exceeded your quota. Please retry in 53.0s.", 53),
        ("Please retry in 34.074824224s", 34.074824224),
        ("Your quota will reset after 1h2m3s.", 3723),
        ("please RETRY IN 900ms, thanks", 0.9),
        ("Retry after (a pause), or retry in 5s", 5),
        ("Retry in a minute", None),
        ("Please retry in 5seconds", None),
        ("the 5s after", None),
        ("thereafter 5s", None),
        ("limit: 0", None),
    ],
)
def test_delay_hints__in_the_text(message: str, seconds: Optional[float]) -> None:
    expected = None if seconds is None else pytest.approx(seconds)
    assert hint(message=message) == expected
    assert api_error(429, message).retry_after == expected  # a body that is no JSON


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120), (" 7 ", 7), ("1.5", 1.5), ("0", 0), ("-1", None), ("", None), (None, None), ("soon", None),
        ("123456789", 123456789), ("1234567890", None),
        ("9" * 40, None), ("1e3", None), ("Tue, 14 Nov 2023 22:13:50 GMT", 30), ("Tue, 14 Nov 2023 22:13:50 -0000", 30),
        ("Tue Nov 14 22:13:50 2023", 30), ("Tuesday, 14-Nov-23 22:13:50 GMT", 30),
        ("Tue, 14 Nov 2023 23:13:50 +0100", 30), ("Tue, 14 Nov 2023 22:13:00 GMT", 0), ("Tue, 40 Nov 2023", None),
    ],
)  # fmt: skip
def test_retry_after__seconds_or_a_date(
    value: Optional[str], seconds: Optional[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    if hasattr(time, "tzset"):
        monkeypatch.setenv("TZ", "Asia/Tokyo")  # where this runs is of no concern
        time.tzset()
    try:
        assert retry_after_header(value, NOW) == seconds
    finally:
        monkeypatch.undo()
        if hasattr(time, "tzset"):
            time.tzset()


def test_retry_after__counts_from_now_by_itself() -> None:
    assert retry_after_header("Sun, 06 Nov 1994 08:49:37 GMT") == 0
    assert retry_after_header("Fri, 01 Jan 2999 00:00:00 GMT") == 1e9  # no wait in Python takes much more


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_retry_after__any_text__never_raises(value: str) -> None:
    seconds = retry_after_header(value, NOW)
    assert seconds is None or seconds >= 0


# -- credentials


@pytest.mark.parametrize("secret", CANARIES.values(), ids=CANARIES)
@pytest.mark.parametrize(
    "around", ["{}", "key {}.", '"{}"', "({})", "x={}&y=1", "Bearer {}", "a\n{}\nb", "\t{}", "\\{}", "ключ:{}"]
)
def test_scrub__shapes(secret: str, around: str) -> None:
    text = around.format(secret)
    for scrubbed in (redact_text(text), redacted_excerpt(text)):
        assert "canary" not in scrubbed
        assert "[redacted]" in scrubbed


@pytest.mark.parametrize(
    ("text", "scrubbed"),
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
def test_scrub__places(text: str, scrubbed: str) -> None:
    assert redact_text(text) == scrubbed


@pytest.mark.parametrize("control", ["\x00", "\x07", "\x1b[", "\x9b", "\x9d", "\u202e", "\ud800"])
@pytest.mark.parametrize("secret", ["AIza" + "S" * 35, "ya29.canary-canary", "1//0gCANARYCANARY", "opaque-canary"])
def test_snippet__control_characters_go_and_uncover_no_secret(secret: str, control: str) -> None:
    text = redacted_excerpt(f"sent{control}{secret}{control} refused", [secret] if secret.startswith("opaque") else [])
    assert text.isprintable()
    assert "[redacted]" in text
    assert secret[1:] not in text


def test_snippet__of_a_megabyte_of_anything() -> None:
    """In a time that grows with it: these are the beginnings of sequences that have no end."""
    for piece in ("\x9d", "\x1b]", "\x9b0", "\x1b[;", "a\n", "AIza", "://a:"):
        assert len(redacted_excerpt(piece * 2**18)) <= 500


def test_scrub__given_secrets() -> None:
    assert redact_text("opaque and opaque-too, not 'open'", ["opaque", "opaque-too", ""]) == (
        "[redacted] and [redacted], not 'open'"
    )
    assert redact_text("opaque", iter(("opaque",))) == "[redacted]"


def test_snippet__scrubs_before_it_cuts() -> None:
    key = CANARIES["api key"]
    for offset in range(480, 502):
        text = redacted_excerpt("x" * offset + " " + key)
        assert len(text) <= 500
        assert "AIza" not in text


def test_snippet__one_line_of_at_most_500_characters() -> None:
    assert redacted_excerpt(" a\r\n\tb  c ") == "a b c"
    assert redacted_excerpt("x" * 500) == "x" * 500
    assert redacted_excerpt("x" * 501) == "x" * 499 + "…"


@pytest.mark.parametrize("secret", [*CANARIES.values(), "opaque-canary-1", 'quoted"canary\\2'])
@pytest.mark.parametrize(
    "echo",
    [
        lambda secret: {"error": {"code": 400, "message": f"API key not valid: {secret}", "status": secret}},
        lambda secret: {"error": {"code": 400, "message": f"line\n{secret}\nline"}},
        lambda secret: {"error": {"code": 400, "message": f'"https://x.example/?key={secret}" was refused'}},
        lambda secret: {"error": {"details": [{"@type": _RPC + "ErrorInfo", "reason": secret, secret: [secret]}]}},
        lambda secret: {"error": {"details": [{"@type": _RPC + "Help", "links": [{"url": f"https://x?key={secret}"}]}]}},
        lambda secret: [{"error": secret, "error_description": f"Bearer {secret}"}],
        lambda secret: {"unknown": f"\n{secret}"},
    ],
)  # fmt: skip
def test_api_error__shows_no_secret(secret: str, echo: Any) -> None:
    for body in (echo(secret), json.dumps(echo(secret)), json.dumps(echo(secret), ensure_ascii=False), f"<p>{secret}"):
        error = api_error(400, body, secrets=(secret,))
        shown = f"{error}{error!r}{vars(error)}{pickle.dumps(error)!r}"
        shown += "".join(traceback.format_exception(type(error), error, error.__traceback__))
        assert "canary" not in shown


def test_api_error__a_quoted_url_with_a_key__keeps_the_rest_readable() -> None:
    body = {
        "error": {
            "code": 403,
            "message": 'Requested "https://x.example/v1?key=canary" and was refused.',
            "status": "PERMISSION_DENIED",
        }
    }
    for given_body in (body, json.dumps(body)):
        error = api_error(403, given_body)
        assert error.status == "PERMISSION_DENIED"
        assert 'Requested "https://x.example/v1?key=[redacted]" and was refused.' in str(error)
