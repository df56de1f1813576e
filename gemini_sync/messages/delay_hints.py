"""How long a server asks to wait before another request."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Optional

from gemini_sync.config import LONGEST_SECONDS
from gemini_sync.messages.rest_json import dict_of, of_type

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)")
_DURATIONS = re.compile(rf"(?:{_DURATION.pattern})+")
_DURATION_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_HINT_IN_TEXT = re.compile(r"\b(?:retry in|after)\s+((?:\d+(?:\.\d+)?(?:ms|h|m|s))+)(?![\w])", re.IGNORECASE)


def first_hint(
    details: Iterable[Mapping[str, Any]],
    info: Mapping[str, Any],
    headers: Mapping[str, str],
    message: str,
    now: Optional[float],
) -> Optional[float]:
    """The first delay hint. Google's own clients use this order: RetryInfo, header, ErrorInfo metadata, text."""
    in_text = _HINT_IN_TEXT.search(message)
    hints = [
        *(_duration(retry_info.get("retryDelay")) for retry_info in of_type(details, "RetryInfo")),
        retry_after_header(headers.get("Retry-After"), now),
        quota_reset_hint(info, now),
        _duration(in_text.group(1)) if in_text else None,
    ]
    return next((min(seconds, LONGEST_SECONDS) for seconds in hints if seconds is not None), None)


def quota_reset_hint(info: Mapping[str, Any], now: Optional[float]) -> Optional[float]:
    """The seconds until a quota is reset, by an ErrorInfo of Code Assist, which names the delay and the time."""
    metadata = dict_of(info.get("metadata"))
    delay = _duration(metadata.get("quotaResetDelay"))
    if delay is None:
        found = _TIMESTAMP.fullmatch(str(metadata.get("quotaResetTimeStamp")))
        if found is None:
            return None
        try:
            at = datetime.fromisoformat(found[1] + (found[2].replace("Z", "+00:00"))).timestamp()
        except (ValueError, OverflowError):
            return None
        delay = max(0.0, at - (time.time() if now is None else now))
    return min(delay, LONGEST_SECONDS)


def _duration(value: Any) -> Optional[float]:
    """The seconds of a duration in one of Google's forms: ``"34.07s"``, ``"1h2m3s"`` or ``{seconds, nanos}``."""
    if isinstance(value, dict):
        try:
            return max(0.0, float(value.get("seconds") or 0) + float(value.get("nanos") or 0) / 1e9)
        except (TypeError, ValueError, OverflowError):
            return None
    if not isinstance(value, str) or not _DURATIONS.fullmatch(value.strip()):
        return None
    return sum(float(number) * _DURATION_SECONDS[unit] for number, unit in _DURATION.findall(value))


def retry_after_header(value: Optional[str], now: Optional[float] = None) -> Optional[float]:
    """The seconds of a ``Retry-After`` (RFC 9110 section 10.2.3), or None if it is neither seconds nor an HTTP date."""
    value = (value or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    try:
        at = calendar.timegm(parsedate_to_datetime(value).utctimetuple())  # a date without a zone is in UTC
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return min(max(0.0, at - (time.time() if now is None else now)), LONGEST_SECONDS)
