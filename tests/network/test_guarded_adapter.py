"""Tests of the adapter of our own sessions, and of the guard on adapters of a caller's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

import pytest
import requests
from requests.adapters import HTTPAdapter

from gemini_sync.network.adapters import DefaultAdapter
from gemini_sync.network.connection import current, keep_deadlines
from gemini_sync.network.sessions import default_session
from gemini_sync.testing.emulator import Emulator


@pytest.fixture
def adapter() -> Iterator[DefaultAdapter]:
    made = DefaultAdapter()
    yield made
    made.close()


def pool_for(adapter: HTTPAdapter, url: str, verify: Any = True) -> Any:
    request = requests.Request("GET", url).prepare()
    return adapter.get_connection_with_tls_context(request, verify)


def test_close__closes_the_connections_and_forgets_their_pools(emulator: Emulator) -> None:
    session = default_session()
    adapter: Any = session.get_adapter(emulator.url)
    assert session.get(emulator.url).status_code == 404
    kept = pool_for(adapter, emulator.url)  # as the traceback of an error may keep it
    assert len(adapter.poolmanager.pools) == 1
    session.close()
    assert (len(adapter.poolmanager.pools), kept.pool) == (0, None)
    assert emulator.wait_closed()


def test_pool__of_the_same_url_is_found_again(adapter: DefaultAdapter) -> None:
    one, two = "https://one.example/a", "https://two.example/a"
    assert pool_for(adapter, one) is pool_for(adapter, one)
    assert pool_for(adapter, one) is not pool_for(adapter, two)
    assert pool_for(adapter, one) is not pool_for(adapter, one, verify=False)


def test_pool__that_was_closed_is_made_anew(adapter: DefaultAdapter) -> None:
    closed = pool_for(adapter, "https://one.example/")
    closed.close()
    adapter.poolmanager.clear()
    assert pool_for(adapter, "https://one.example/") is not closed


def test_tls__one_context_verifies_for_all_hosts_and_adapters(adapter: DefaultAdapter) -> None:
    context = pool_for(adapter, "https://one.example/").conn_kw["ssl_context"]
    assert context.check_hostname
    assert pool_for(adapter, "https://two.example/").conn_kw["ssl_context"] is context
    other = DefaultAdapter()
    assert pool_for(other, "https://one.example/").conn_kw["ssl_context"] is context
    assert "ssl_context" not in pool_for(adapter, "https://one.example/", verify=False).conn_kw
    other.close()


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:3128"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_keep_deadlines__direct_connections_and_those_through_proxies(scheme: str, proxy: Optional[str]) -> None:
    adapter = HTTPAdapter()
    keep_deadlines(adapter)
    keep_deadlines(adapter)
    manager: Any = adapter.proxy_manager_for(proxy) if proxy else adapter.poolmanager
    guarded, plain = manager.connection_from_url(f"{scheme}://one.example"), pool_for(HTTPAdapter(), f"{scheme}://x")
    assert issubclass(guarded.ConnectionCls, plain.ConnectionCls)
    assert guarded.ConnectionCls is not plain.ConnectionCls
    adapter.close()


def test_keep_deadlines__leaves_what_is_no_adapter_with_connections_alone() -> None:
    thing = object()
    keep_deadlines(thing)


def test_connection__of_no_call_is_as_requests_made_it(emulator: Emulator) -> None:
    """Its timeout is the owner's, and no call is told of its socket."""
    session, timeouts = default_session(), []
    pool = pool_for(session.get_adapter(emulator.url), emulator.url)  # type: ignore[arg-type]
    connect = pool.ConnectionCls.connect

    def watched(connection: Any) -> None:
        connect(connection)
        timeouts.append(connection.sock.gettimeout())

    assert current.get() is None
    with session, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool.ConnectionCls, "connect", watched)
        assert session.get(emulator.url, timeout=17.0).status_code == 404
    assert timeouts == [17.0]
