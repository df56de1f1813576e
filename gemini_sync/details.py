"""Knows the details of a google.rpc.Status (https://aip.dev/193) and the delays servers ask for; raises nothing."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Optional

LONGEST_SECONDS = 1e9  # no wait in Python takes more than a few times that


def text_of(value: Any) -> Optional[str]:
    return value if isinstance(value, str) and value else None


def list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def of_type(details: Iterable[Mapping[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    return (dict(d) for d in details if str(d.get("@type", "")).endswith("google.rpc." + name))


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)")
_DURATIONS = re.compile(rf"(?:{_DURATION.pattern})+")
_DURATION_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_HINT_IN_TEXT = re.compile(r"\b(?:retry in|after)\s+((?:\d+(?:\.\d+)?(?:ms|h|m|s))+)(?![\w])", re.IGNORECASE)


def _seconds(value: Any) -> Optional[float]:
    """A duration as Google writes it: ``"34.07s"``, ``"900ms"``, ``"1h2m3s"`` or ``{seconds, nanos}``."""
    if isinstance(value, dict):
        try:
            return max(0.0, float(value.get("seconds") or 0) + float(value.get("nanos") or 0) / 1e9)
        except (TypeError, ValueError, OverflowError):
            return None
    if not isinstance(value, str) or not _DURATIONS.fullmatch(value.strip()):
        return None
    return sum(float(number) * _DURATION_SECONDS[unit] for number, unit in _DURATION.findall(value))


def retry_after_header(value: Optional[str], now: Optional[float] = None) -> Optional[float]:
    """``Retry-After`` in seconds, from seconds or an HTTP date (RFC 9110 section 10.2.3); None for anything else."""
    if not value:
        return None
    value = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    try:
        at = calendar.timegm(parsedate_to_datetime(value).utctimetuple())  # a date without a zone is in UTC, too
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return min(max(0.0, at - (time.time() if now is None else now)), LONGEST_SECONDS)


def first_hint(
    details: Iterable[Mapping[str, Any]],
    info: Mapping[str, Any],
    headers: Mapping[str, str],
    message: str,
    now: Optional[float],
) -> Optional[float]:
    """The first delay hint in the order of Google's own clients: RetryInfo, header, ErrorInfo metadata, text."""
    metadata, in_text = info.get("metadata"), _HINT_IN_TEXT.search(message)
    hints = [
        *(_seconds(retry_info.get("retryDelay")) for retry_info in of_type(details, "RetryInfo")),
        retry_after_header(headers.get("Retry-After"), now),
        _seconds(metadata.get("quotaResetDelay")) if isinstance(metadata, dict) else None,
        _seconds(in_text.group(1)) if in_text else None,
    ]
    return next((min(seconds, LONGEST_SECONDS) for seconds in hints if seconds is not None), None)
