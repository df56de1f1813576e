"""What the tests of error answers share: the parts of a google.rpc.Status."""

from __future__ import annotations

from typing import Any

TYPES = [f"type.googleapis.com/google.rpc.{name}" for name in ("ErrorInfo", "RetryInfo", "QuotaFailure", "Help")]


def status(code: Any = None, **fields: Any) -> dict[str, Any]:
    return {"error": {**({} if code is None else {"code": code}), **fields}}


def info(reason: str, **metadata: str) -> dict[str, Any]:
    return {"@type": TYPES[0], "reason": reason, "domain": "googleapis.com", "metadata": metadata}
