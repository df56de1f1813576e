"""Fixtures of the tests on real sockets: both routes, over plain connections and over TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest
import trustme

from gemini_sync.testing.emulator import Emulator


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
