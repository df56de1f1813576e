"""Which values the settings accept, and messages for all others, which show no credential."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import pytest

from gemini_sync.config import Endpoints, OAuthClient, Retry, Timeouts, check_secret, check_settings
from gemini_sync.errors import ConfigError


@pytest.mark.parametrize("value", ["AQ.key-1", "  AQ.key-1\n", "\tAQ.key-1 "])
def test_check_secret__white_space_around_it_is_removed(value: str) -> None:
    assert check_secret(value, "api_key") == "AQ.key-1"


@pytest.mark.parametrize("value", ['"AQ.key-1"', "'AQ.key-1'\n", ' " AQ.key-1 " '])
def test_check_secret__quotes_around_it_are_removed(value: str) -> None:
    assert check_secret(value, "api_key") == "AQ.key-1"


@pytest.mark.parametrize(
    "value", ['"canary', "canary'", "\"canary'", "`canary`", "\u201ccanary\u201d", "''canary''", '"']
)
def test_check_secret__other_quotes_are_named(value: str) -> None:
    with pytest.raises(ConfigError, match="api_key begins or ends with a quote") as caught:
        check_secret(value, "api_key")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("value", ["canary\nx", "canary x", "canary\x00", "canary\x7f", "cänary", "canary\u200b"])
def test_check_secret__other_characters(value: str) -> None:
    with pytest.raises(ConfigError, match="api_key holds white space") as caught:
        check_secret(value, "api_key")
    assert "nary" not in str(caught.value)


@pytest.mark.parametrize("value", ["", "  ", "\n", '""', "' '"])
def test_check_secret__empty(value: str) -> None:
    with pytest.raises(ConfigError, match="api_key is empty"):
        check_secret(value, "api_key")


@pytest.mark.parametrize("value", [None, 5, b"canary", ["canary"]])
def test_check_secret__of_another_type(value: Any) -> None:
    with pytest.raises(ConfigError, match="api_key must be a string, not") as caught:
        check_secret(value, "api_key")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://example.com", "https://example.com"),
        (" https://example.com/base/ ", "https://example.com/base"),
        ("HTTPS://example.com:8443//", "HTTPS://example.com:8443"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://LOCALHOST", "http://LOCALHOST"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
        ("https://b\u00fccher.example/a%20b", "https://b\u00fccher.example/a%20b"),
        ("https://a_b.example:", "https://a_b.example:"),
    ],
)
def test_endpoints__https_or_loopback(url: str, kept: str) -> None:
    assert Endpoints(gemini=url).gemini == kept
    assert Endpoints(token=url).token == kept


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com", "http://127.0.0.1.example.com", "http://10.0.0.1", "http://0.0.0.0", "http://[::2]",
        "ftp://example.com", "file:///etc/passwd", "//example.com", "example.com", "https://", "https:///path", "",
    ],
)  # fmt: skip
def test_endpoints__other_schemes_and_hosts(url: str) -> None:
    with pytest.raises(ConfigError, match=r"Endpoints\.code_assist must be an https:// URL"):
        Endpoints(code_assist=url)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:canary@example.com", "https://canary@example.com", "https://example.com/?key=canary",
        "https://example.com#canary", "http://example.com?key=canary", "https://user:canary/more@example.com",
        "https://exam\nple.com/canary", "https://exam ple.com/canary", "https://example.com/?", "https://a\\@b/canary",
        "https://example.com\\.canary", "https://example.com/\x7fcanary", "http://127.0.0.1\\.canary",
        "http://[::1]@canary", "http://localhost:80@canary", "http://localhost\u2003canary", "https://a%40b@canary",
    ],
)  # fmt: skip
def test_endpoints__more_than_a_base_url(url: str) -> None:
    with pytest.raises(ConfigError, match=r"Endpoints\.gemini must be a plain base URL") as caught:
        Endpoints(gemini=url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://example.com:port", "https://example.com:99999", "https://[::1"])
def test_endpoints__text_that_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match=r"Endpoints\.gemini is not a URL") as caught:
        Endpoints(gemini=url)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1].evil", "http://[::1]evil", "http://[::1]:80:90", "http://x[::1]", "http://[::1][::1]",
        "http://[::1%25evil]", "http://[localhost]", "http://localhost:80:80", "http://localhost:-1",
        "http://localhost:0", "http://localhost:65536", "http://localhost:\u0661", "http://localhost:+80",
        "https://example.com%2eevil", "https://example.com;evil", "https://exa<mple.com", "https://a,b",
        "https://example.com\u200b.evil", "https://example.com\u2044evil", "https://example.com\uff0fevil",
    ],
)  # fmt: skip
def test_endpoints__host_or_port_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"Endpoints\.gemini is not a URL"):
        Endpoints(gemini=url)


@pytest.mark.parametrize("url", [None, b"https://example.com", 5])
def test_endpoints__of_another_type(url: Any) -> None:
    with pytest.raises(ConfigError, match="must be a URL string"):
        Endpoints(token=url)


def test_endpoints__defaults_are_those_of_google() -> None:
    assert dataclasses.astuple(Endpoints()) == (
        "https://generativelanguage.googleapis.com",
        "v1beta",
        "https://cloudcode-pa.googleapis.com",
        "https://oauth2.googleapis.com/token",
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "https://generativelanguage.googleapis.com/v1beta"),
        ({"gemini_version": "v1"}, "https://generativelanguage.googleapis.com/v1"),
        ({"gemini": "https://host/v1beta"}, "https://host/v1beta"),
        ({"gemini": "https://host/v1alpha/"}, "https://host/v1alpha"),
        ({"gemini": "https://host/v1", "gemini_version": "v1"}, "https://host/v1"),
        ({"gemini": "https://host/v1/base"}, "https://host/v1/base/v1beta"),
        ({"gemini": "https://host/v1/v1beta1"}, "https://host/v1/v1beta1"),
        ({"gemini": "https://host/preview1", "gemini_version": "v1alpha"}, "https://host/preview1/v1alpha"),
    ],
)
def test_endpoints__version_of_the_gemini_api(given: dict[str, str], expected: str) -> None:
    endpoints = Endpoints(**given)
    assert endpoints.gemini_api == expected
    assert dataclasses.replace(endpoints, token="https://token.example").gemini_api == expected


@pytest.mark.parametrize(
    "url", ["https://host", "https://host/", "https://host/v1internal", "https://host/v1internal/"]
)
def test_endpoints__version_of_code_assist(url: str) -> None:
    assert Endpoints(code_assist=url).code_assist_api == "https://host/v1internal"


def test_endpoints__two_versions() -> None:
    with pytest.raises(ConfigError, match="ends in the API version 'v1beta', but gemini_version is 'v1'"):
        Endpoints(gemini="https://host/v1beta", gemini_version="v1")


@pytest.mark.parametrize("version", ["", "beta", "1", "v1/../x", "v1?key=x", None, 1])
def test_endpoints__text_that_is_no_version(version: Any) -> None:
    with pytest.raises(ConfigError, match=r"Endpoints\.gemini_version must be an API version"):
        Endpoints(gemini_version=version)


def test_oauth_client__repr_hides_the_secret() -> None:
    client = OAuthClient(" emulator-client-id ", "emulator-canary\n")
    assert (client.id, client.secret) == ("emulator-client-id", "emulator-canary")
    assert "canary" not in repr(client)
    assert "canary" not in f"{client}"


@pytest.mark.parametrize(("arguments", "name"), [(("", "x"), "id"), (("x", ""), "secret"), ((None, "x"), "id")])
def test_oauth_client__incomplete(arguments: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"OAuthClient\.{name}"):
        OAuthClient(*arguments)


@pytest.mark.parametrize("name", ["connect", "first_token", "idle", "total"])
def test_timeouts__seconds_above_zero_or_none(name: str) -> None:
    for good in (0.001, 5, math.inf, None):
        assert getattr(Timeouts(**{name: good}), name) == good
    wrong: list[Any] = [0, -1, math.nan, "5", True, [], 1j]
    for bad in wrong:
        with pytest.raises(ConfigError, match=rf"Timeouts\.{name} must be a number above 0, not"):
            Timeouts(**{name: bad})
    with pytest.raises(ConfigError, match="at most 1e"):  # no socket accepts it
        Timeouts(**{name: 1e12})


def test_timeouts__defaults() -> None:
    assert dataclasses.astuple(Timeouts()) == (10, 900, 900, None)


@pytest.mark.parametrize("name", ["wait_limit", "backoff_base", "backoff_cap"])
def test_retry__seconds_of_at_least_zero(name: str) -> None:
    for good in (0, 0.5, 10):
        assert getattr(Retry(**{name: good}), name) == good  # type: ignore[arg-type]
    for bad in (-0.1, math.nan, "5", None, False):
        with pytest.raises(ConfigError, match=rf"Retry\.{name} must be a number of at least 0, not"):
            Retry(**{name: bad})  # type: ignore[arg-type]


def test_retry__attempts_are_whole_and_at_least_one() -> None:
    assert Retry(max_attempts=1).max_attempts == 1
    wrong: list[Any] = [0, -3, 1.5, "2", True, None]
    for bad in wrong:
        with pytest.raises(ConfigError, match=r"Retry\.max_attempts must be a whole number"):
            Retry(max_attempts=bad)


def test_max_event_bytes__one_is_enough() -> None:
    check_settings({"max_event_bytes": 1})
    with pytest.raises(ConfigError, match="max_event_bytes must be at least 1 byte, not 0"):
        check_settings({"max_event_bytes": 0})


@pytest.mark.parametrize("value", [Endpoints(), OAuthClient("a", "b"), Timeouts(total=5), Retry()])
def test_settings__frozen_hashable_and_picklable(value: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, "other")
    assert pickle.loads(pickle.dumps(value)) == value
    assert len({value, dataclasses.replace(value)}) == 1
