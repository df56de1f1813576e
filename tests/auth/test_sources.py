"""Tests of a callable, a TokenSource and a given token as sources of tokens."""

from __future__ import annotations

from typing import Any

import pytest

from gemini_sync.auth.access_token import AccessToken
from gemini_sync.auth.credentials import Credentials
from gemini_sync.errors import ConfigError, CredentialsError, RefreshError
from gemini_sync.network.cancelling import Call
from tests.auth.credentials_kit import (
    Clock,
    ScriptedTransport,
    fetch,
    scripted,
)


def _of(source: Any) -> Credentials:
    return scripted(source, ScriptedTransport(AssertionError()), Clock())


def test_callable__is_asked_each_time() -> None:
    tokens = iter(["kit-1", " kit-2\n"])
    credentials = _of(lambda: next(tokens))
    assert credentials.fetch(Call()) == AccessToken("kit-1", None)
    assert credentials.fetch(Call()) == AccessToken("kit-2", None)


def test_callable__same_token_after_a_refusal() -> None:
    credentials = _of(lambda: "kit-only")
    credentials.invalidate("kit-only")
    assert [fetch(credentials), fetch(credentials)] == ["kit-only"] * 2


@pytest.mark.parametrize("given", [None, b"bytes", 7, "", "  ", "two words", "canary\nline"], ids=repr)
def test_callable__no_token(given: Any) -> None:
    with pytest.raises(CredentialsError, match="What the token source gave") as caught:
        fetch(_of(lambda: given))
    assert "canary" not in str(caught.value)


def test_callable__failure() -> None:
    def fail() -> str:
        raise LookupError("no agent at ya29.canary-canary")

    with pytest.raises(CredentialsError, match="LookupError: no agent") as caught:
        fetch(_of(fail))
    assert isinstance(caught.value.__cause__, LookupError)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("error", [RefreshError("ours"), ConfigError("ours"), KeyboardInterrupt()], ids=repr)
def test_callable__errors_that_stay_as_they_are(error: BaseException) -> None:
    def fail() -> str:
        raise error

    with pytest.raises(type(error)) as caught:
        fetch(_of(fail))
    assert caught.value is error


class _Source:
    def __init__(self) -> None:
        self.number, self.told = 1, []  # type: tuple[int, list[str]]

    def token(self) -> str:
        return f"kit-{self.number}"

    def invalidate(self, token: str) -> None:
        self.told.append(token)
        if token == "kit-9":
            raise OSError("no agent for kit-9")
        self.number += 1


def test_token_source__is_told_of_a_refusal() -> None:
    source = _Source()
    credentials = _of(source)
    assert fetch(credentials) == "kit-1"
    credentials.invalidate("kit-1")
    assert fetch(credentials) == "kit-2"
    assert source.told == ["kit-1"]


def test_token_source__failure_at_a_refusal() -> None:
    with pytest.raises(CredentialsError, match="OSError: no agent") as caught:
        _of(_Source()).invalidate("kit-9")
    assert "kit-9" not in str(caught.value)
