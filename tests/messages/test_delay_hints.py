"""Tests of the delays that servers ask for: which hint counts, and how a duration is spelled."""

from __future__ import annotations

import time
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_sync.messages.api_errors import api_error
from gemini_sync.messages.delay_hints import retry_after_header

NOW = 1_700_000_000.0
_RPC = "type.googleapis.com/google.rpc."


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


def test_delay_hints__the_first_in_order_counts() -> None:
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
    ("spelled", "seconds"),
    [
        ("2023-11-14T22:14:20Z", 60), ("2023-11-14T22:14:20.999999999Z", 60), ("2023-11-14T23:14:20+01:00", 60),
        ("2023-11-14T21:14:20-01:00", 60), ("2023-11-14T22:13:20Z", 0), ("2023-11-14T22:13:19Z", 0),
        ("9999-12-31T23:59:59Z", 1e9), ("2023-11-14", None), ("2023-11-14T22:14:20", None),
        ("2023-02-30T22:14:20Z", None), ("2023-11-14T22:14:20+99:00", None), ("0001-01-01T00:00:00+14:00", 0),
        ("\u0662023-11-14T22:14:20Z", None), ("soon", None), ("", None), (None, None), (5, None), ([], None),
    ],
)  # fmt: skip
def test_delay_hints__time_of_the_reset(spelled: Any, seconds: Optional[float]) -> None:
    assert hint(metadata={"quotaResetTimeStamp": spelled}) == seconds
    assert hint(metadata={"quotaResetTimeStamp": spelled, "quotaResetDelay": "7s"}) == 7


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
def test_delay_hints__longer_than_any_wait__are_cut(given: Any) -> None:
    assert hint(**given) == 1e9


def test_delay_hints__the_first_usable_retry_info_counts() -> None:
    delays = [{"@type": _RPC + "RetryInfo", "retryDelay": value} for value in ("?", "8s", "9s")]
    assert api_error(429, {"error": {"details": delays}}).retry_after == 8


@pytest.mark.parametrize("metadata", [None, 5, [], "5s"])
def test_delay_hints__metadata_that_is_no_dict(metadata: Any) -> None:
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
        monkeypatch.setenv("TZ", "Asia/Tokyo")  # the result must not depend on the local time zone
        time.tzset()
    try:
        assert retry_after_header(value, NOW) == seconds
    finally:
        monkeypatch.undo()
        if hasattr(time, "tzset"):
            time.tzset()


def test_retry_after__counts_from_now() -> None:
    assert retry_after_header("Sun, 06 Nov 1994 08:49:37 GMT") == 0
    assert retry_after_header("Fri, 01 Jan 2999 00:00:00 GMT") == 1e9  # no wait in Python takes much more


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_retry_after__any_text__never_raises(value: str) -> None:
    seconds = retry_after_header(value, NOW)
    assert seconds is None or seconds >= 0
