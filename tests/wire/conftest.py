"""Fixtures of the tests on real sockets: both routes, plain and over TLS, and calls by a clock that stands still."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
import trustme

from gemini_sync import Endpoints, GeminiDualAdapter, Reply
from gemini_sync.testing.emulator import Emulator
from tests.network.call_kit import Clock
from tests.wire.support import ONCE


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server-side TLS context for 127.0.0.1, and the CA file that vouches for it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return context, path


@pytest.fixture
def tls(authority: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server-side TLS context that clients of the test trust."""
    context, path = authority
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    return context


@pytest.fixture(params=["plain", "tls"])
def context(request: pytest.FixtureRequest) -> Optional[ssl.SSLContext]:
    """None, then a server-side TLS context: the test runs over both."""
    return request.getfixturevalue("tls") if request.param == "tls" else None


@pytest.fixture
def server(context: Optional[ssl.SSLContext]) -> Iterator[Emulator]:
    """A running emulator for one test, which runs once plain and once over TLS."""
    with Emulator(ssl_context=context) as running:
        yield running


@pytest.fixture(params=["api_key", "oauth"])
def route(request: pytest.FixtureRequest) -> str:
    """The test runs on both routes."""
    return request.param


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def asking(emulator: Emulator, clock: Clock) -> Iterator[Callable[..., Reply]]:
    """A function that calls the API-key route of the emulator once, by a clock that stands still."""
    with contextlib.ExitStack() as stack:

        def ask(**settings: Any) -> Reply:
            url = settings.pop("url", emulator.url)
            chosen = {"endpoints": Endpoints(gemini=url), "retry": ONCE, "clock": clock, **settings}
            return stack.enter_context(GeminiDualAdapter(emulator.key, **chosen)).stream("Why?")

        yield ask
