"""Proxy and TLS settings of this machine that cannot work, on real sockets: one try, no flip, and a remedy."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.oauth2.credentials
import pytest
import requests
import requests.adapters
import trustme

import gemini_sync
from gemini_sync import ConfigError, TransportError
from gemini_sync.testing.emulator import Emulator
from tests.adapter_kit import Rig
from tests.wire.raw_server import Peer, RawServer

PASSWORD = "pass-canary"


@pytest.fixture
def rig(tls: ssl.SSLContext, tmp_path: Path) -> Iterator[Rig]:
    with Emulator(ssl_context=tls) as emulator, Rig(emulator, tmp_path) as rig:
        yield rig


def answering(status: str) -> RawServer:
    """A proxy that answers each request with ``status``."""

    def script(peer: Peer) -> None:
        request = peer.read_request()
        if request:
            proxy.requests.append(request)
            peer.send(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    proxy = RawServer(script)
    return proxy


def surfaces(rig: Rig, reason: str, says: str, **settings: Any) -> ConfigError:
    """The error of a call that is tried once, on OAuth alone, and flips nothing."""
    adapter = rig.adapter(**settings)
    with pytest.raises(ConfigError, match=says) as caught:
        adapter.generate("Hi")
    error = caught.value
    assert (error.reason, gemini_sync.explain(error).rule) == (reason, "setting")
    assert PASSWORD not in f"{error!r} {error}"
    assert ([attempt.route for attempt in error.attempts], rig.slept) == (["oauth"], [])
    assert (rig.flips, adapter.fallback_active, rig.emulator.requests) == ([], False, [])
    with pytest.raises(ConfigError):
        adapter.count_tokens("Hi")
    return error


# -- proxies


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "401 No", "405 No", "501 No"])
def test_proxy__that_refuses_the_tunnel_is_asked_once(rig: Rig, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    with answering(status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", f"//user:{PASSWORD}@"))
        error = surfaces(rig, "PROXY_REFUSED", "HTTPS_PROXY")
    assert status[:3] in str(error)
    assert len(proxy.requests) == 2  # the answer, and the count


def test_proxy__that_refuses_the_plain_functions(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering("407 Proxy Authentication Required") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(ConfigError, match="407"):
            list(
                gemini_sync.stream_gemini_api_key(
                    "Hi", "a-key", endpoints=gemini_sync.Endpoints(gemini=rig.emulator.url)
                )
            )
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("status", ["503 Busy", "502 Bad Gateway", "504 Timeout", "429 Slow down"])
def test_proxy__that_cannot_connect_at_present_is_asked_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    with answering(status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        adapter = rig.adapter()
        with pytest.raises(TransportError, match=status[:3]) as caught:
            adapter.generate("Hi")
    assert len(caught.value.attempts) == 6
    assert (rig.flips, adapter.fallback_active) == ([], False)


@pytest.mark.parametrize("expired", [False, True])
def test_proxy__that_refuses_the_refresh(rig: Rig, monkeypatch: pytest.MonkeyPatch, expired: bool) -> None:
    rig.path = rig.emulator.write_credentials(rig.path, expires_in=-60 if expired else 3600)
    with answering("407 Proxy Authentication Required") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        surfaces(rig, "PROXY_REFUSED", "407")


def test_proxy__that_refuses_a_refresh_of_google_auth(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = google.oauth2.credentials.Credentials(  # type: ignore[no-untyped-call]
        None, refresh_token="r", token_uri=rig.emulator.urls["token"], client_id="c", client_secret="s"
    )
    with answering("407 Proxy Authentication Required") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        surfaces(rig, "PROXY_REFUSED", "407", oauth_creds_path=credentials)
    assert 1 <= len(proxy.requests) <= 2  # the answer, and the count unless the failure is remembered


@pytest.mark.parametrize("scheme", ["ftp", "socks", "tcp"])
@pytest.mark.parametrize("whose", ["environment", "session"])
def test_proxy__of_an_unknown_scheme(rig: Rig, monkeypatch: pytest.MonkeyPatch, scheme: str, whose: str) -> None:
    proxy, settings = f"{scheme}://user:{PASSWORD}@127.0.0.1:9", {}
    if whose == "environment":
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    else:
        settings["session_factory"] = lambda: session_with(proxies={"https": proxy})
    surfaces(rig, "PROXY_INVALID", f"scheme {scheme}; expected one of http, https, socks4", **settings)


def test_proxy__with_https_in_its_url_that_speaks_no_tls(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(peer: Peer) -> None:
        peer.socket.recv(65536)  # a ClientHello, which an HTTP server takes for a bad request
        peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with RawServer(script) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http:", "https:"))
        surfaces(rig, "PROXY_INVALID", "does not speak TLS. Begin its URL with http://")


def test_socks__without_its_library(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **named: Any) -> None:
        raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

    monkeypatch.setattr(requests.adapters, "SOCKSProxyManager", missing)  # as requests defines it without PySocks
    monkeypatch.setenv("HTTPS_PROXY", f"socks5://user:{PASSWORD}@127.0.0.1:9")
    surfaces(rig, "PROXY_INVALID", r"pip install 'requests\[socks\]'")


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([b"\x05\x02", b"\x01\x01"], "SOCKS5 authentication failed"),
        ([b"\x05\xff"], "SOCKS5 authentication methods were rejected"),
        ([b"\x05\x00", b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"], "not allowed by ruleset"),
    ],
)
def test_socks__that_refuses(rig: Rig, monkeypatch: pytest.MonkeyPatch, answers: list[bytes], says: str) -> None:
    """The words of RFC 1928 and 1929: a wrong password, no way to log in, and a host that the proxy does not allow."""
    pytest.importorskip("socks")

    def script(peer: Peer) -> None:
        for answer in answers:
            if peer.socket.recv(65536):
                peer.send(answer)

    with RawServer(script) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"socks5h://user:{PASSWORD}@127.0.0.1:{proxy.port}")
        surfaces(rig, "PROXY_REFUSED", says)


# -- files of a session


def session_with(**attributes: Any) -> requests.Session:
    session = requests.Session()
    for name, value in attributes.items():
        setattr(session, name, value)
    return session


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """PEM files that do not fit: no PEM at all, a certificate, and the key of another certificate."""
    authority = trustme.CA()
    one, two = authority.issue_cert("one"), authority.issue_cert("two")
    contents = {"garbage": b"no PEM", "one": one.cert_chain_pems[0].bytes(), "key of two": two.private_key_pem.bytes()}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {"missing": str(tmp_path / "missing"), **{name: str(tmp_path / name) for name in contents}}


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("cert", ["missing"]),
        ("cert", ["one", "missing"]),
        ("cert", ["garbage"]),
        ("cert", ["one", "key of two"]),
        ("verify", ["missing"]),
        ("verify", ["garbage"]),
    ],
)
def test_session__with_a_file_that_cannot_be_used(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], setting: str, names: list[str]
) -> None:
    value: Any = files[names[0]] if len(names) == 1 else tuple(files[name] for name in names)
    if setting == "verify":
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")  # requests prefers it to the session's own
    error = surfaces(
        rig, "TLS_FILE_INVALID", "Check cert and verify", session_factory=lambda: session_with(**{setting: value})
    )
    assert names[-1] != "missing" or files["missing"] in str(error)


def test_session__without_an_adapter(rig: Rig) -> None:
    def session() -> requests.Session:
        made = requests.Session()
        del made.adapters["https://"]
        return made

    surfaces(rig, "SESSION_INVALID", "has no adapter", session_factory=session)


def test_environment__with_a_ca_bundle_that_is_missing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    adapter = rig.adapter()
    with pytest.raises(gemini_sync.GeminiSyncError, match="REQUESTS_CA_BUNDLE") as caught:
        adapter.generate("Hi")
    assert gemini_sync.explain(caught.value).decision is gemini_sync.Decision.SURFACE
    assert (len(caught.value.attempts), rig.flips, adapter.fallback_active) == (1, [], False)
