"""Tools that record or fake HTTP by patching urllib3 or sockets: they see each request, and nothing passes them by."""

from __future__ import annotations

import pytest
import requests
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from gemini_sync import DeadlineExceeded, StreamInterrupted, Timeouts
from gemini_sync.testing import replay
from tests.adapter_kit import Rig
from tests.support import run_python
from tests.testing.cassette_kit import outcome
from tests.wire.support import ask, drain, event

MISSING = "{} is not installed; tox -e recorders installs it"


@pytest.fixture(params=["our sessions", "sessions of the caller"])
def rig(request, server, tmp_path):
    with Rig(server, tmp_path) as rig:
        if request.param == "sessions of the caller":
            settings = rig.settings
            rig.settings = lambda **changes: settings(session_factory=requests.Session, **changes)
        yield rig


@pytest.fixture
def vcr():
    return pytest.importorskip("vcr", reason=MISSING.format("vcrpy"))


# -- vcrpy


def test_vcrpy__records_and_replays_a_stream(rig, server, vcr, tmp_path):
    server.oauth.answer(text="one two three four")
    adapter = rig.adapter(project=server.project)
    for mode in ("once", "none"):
        with vcr.use_cassette(str(tmp_path / "cassette.yaml"), record_mode=mode) as cassette:
            assert adapter.generate("Why?").text == "one two three four"
        assert cassette.play_count == (0 if mode == "once" else 1)
    assert len(server.oauth.requests) == 1
    assert "three" in (tmp_path / "cassette.yaml").read_text()


def test_vcrpy__sends_nothing_in_mode_none(rig, server, vcr, tmp_path):
    from vcr.errors import CannotOverwriteExistingCassetteException

    adapter = rig.adapter(project=server.project)
    adapter.generate("Before")  # its connection stays idle, and must not be used
    connections = server.connections_total
    with vcr.use_cassette(str(tmp_path / "empty.yaml"), record_mode="none"):  # noqa: SIM117 (for Python 3.9)
        with pytest.raises(CannotOverwriteExistingCassetteException):
            adapter.generate("Why?")
    assert (rig.counts, server.connections_total) == ((1, 0), connections)
    assert not adapter.fallback_active


def test_vcrpy__leaves_the_calls_after_it_alone(rig, server, vcr, tmp_path):
    adapter = rig.adapter(project=server.project)
    for number in range(3):
        with vcr.use_cassette(str(tmp_path / f"{number}.yaml")) as cassette:
            adapter.generate(f"Inside {number}")
        adapter.generate(f"Outside {number}")
        assert [f"side {number}" in str(request.body) for request in cassette.requests][-1:] == [True]
    assert len(server.oauth.requests) == 6
    with rig.adapter(project=server.project, timeouts=Timeouts(idle=0.1)) as later:
        server.oauth.fail("stall", after=1)
        _, error = drain(later.stream("Why?"))
        assert (type(error), type(error.__cause__)) == (StreamInterrupted, DeadlineExceeded)


def test_vcrpy__records_what_failed_as_well(rig, server, vcr, tmp_path):
    server.oauth.fail(403, times=None)
    for mode in ("once", "none"):
        adapter = rig.adapter(project=server.project)
        with vcr.use_cassette(str(tmp_path / "cassette.yaml"), record_mode=mode) as cassette:
            assert adapter.generate("Why?").route == "api_key"
        assert cassette.requests[-1].path.startswith("/v1beta/")
    assert rig.counts == (1, 1)


def test_vcrpy__that_is_on_while_the_package_is_imported(emulator, vcr, tmp_path):
    del vcr
    program = """
import sys, vcr
url, key, path = sys.argv[1:]
ask = lambda text: "".join(stream_gemini_api_key(text, key, endpoints=Endpoints(gemini=url)))
with vcr.use_cassette(path) as cassette:
    from gemini_sync import Endpoints, stream_gemini_api_key
    from gemini_sync.network import connection
    ask("one")
ask("two")
print(len(cassette), connection.HTTPConnection.__module__, connection.HTTPSConnection.__module__)
"""
    done = run_python("-W", "ignore", "-c", program, emulator.url, emulator.key, str(tmp_path / "cassette.yaml"))
    assert (done.stdout.split(), done.stderr) == (["1", "urllib3.connection", "urllib3.connection"], "")
    assert len(emulator.api_key.requests) == 2


def test_vcrpy__its_cassettes_replay_with_ours(emulator, vcr, tmp_path):
    emulator.api_key.answer(text="one two three four")
    emulator.api_key.fail(503, times=1)
    path = str(tmp_path / "cassette.yaml")
    with vcr.use_cassette(path):
        live = outcome(ask(emulator))
    emulator.stop()
    with replay(path):
        assert outcome(ask(emulator)) == live


def test_pytest_recording__blocks_the_network_and_replays(emulator, tmp_path):
    pytest.importorskip("pytest_recording", reason=MISSING.format("pytest-recording"))
    (tmp_path / "test_it.py").write_text(
        f"""
import pytest
from gemini_sync import Endpoints, stream_gemini_api_key

@pytest.mark.vcr(filter_headers=["x-goog-api-key"])
def test_it():
    assert "".join(stream_gemini_api_key("Why?", {emulator.key!r}, endpoints=Endpoints(gemini={emulator.url!r})))
"""
    )
    command = ("-m", "pytest", "-q", "-p", "pytest_recording.plugin", "-p", "no:cacheprovider")
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    outcomes = [
        run_python(*command, f"--record-mode={mode}", cwd=tmp_path, env=alone).returncode
        for mode in ("none", "once", "none")
    ]
    assert outcomes == [1, 0, 0]
    assert len(emulator.api_key.requests) == 1
    cassette = (tmp_path / "cassettes" / "test_it" / "test_it.yaml").read_text()
    assert emulator.key not in cassette


# -- other tools


def test_patched_class__of_urllib3_carries_the_requests(rig, server, monkeypatch):
    """As vcrpy and wsgi-intercept do: another class in place of the one that urllib3's pools make."""
    seen = []

    class Http(HTTPConnection):
        def request(self, method, url, *args, **kwargs):
            seen.append(method)
            return super().request(method, url, *args, **kwargs)

    class Https(HTTPSConnection):
        def request(self, method, url, *args, **kwargs):
            seen.append(method)
            return super().request(method, url, *args, **kwargs)

    adapter = rig.adapter(project=server.project)
    adapter.generate("Before")
    with monkeypatch.context() as patch:
        patch.setattr(HTTPConnectionPool, "ConnectionCls", Http)
        patch.setattr(HTTPSConnectionPool, "ConnectionCls", Https)
        adapter.generate("Inside")
    adapter.generate("After")
    assert (seen, len(server.oauth.requests)) == (["POST"], 3)


def test_patched_class__keeps_deadlines_between_reads(server, monkeypatch):
    class Http(HTTPConnection):
        pass

    class Https(HTTPSConnection):
        pass

    monkeypatch.setattr(HTTPConnectionPool, "ConnectionCls", Http)
    monkeypatch.setattr(HTTPSConnectionPool, "ConnectionCls", Https)
    server.api_key.answer(body=(b": ping\r\n\r\n" * 2000), pieces=[b": ping\r\n\r\n"] * 2000, pace=0.01)
    _, error = drain(ask(server, timeouts=Timeouts(first_token=0.1)))
    assert (type(error), error.deadline) == (DeadlineExceeded, "first_token")


def test_own_class__of_an_adapter_of_the_caller(emulator, tmp_path):
    """It may choose the class for a pool that the package has made."""
    made = []

    class Mine(HTTPConnection):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    class Adapter(requests.adapters.HTTPAdapter):
        def get_connection_with_tls_context(self, *args, **kwargs):
            pool = super().get_connection_with_tls_context(*args, **kwargs)
            pool.ConnectionCls = Mine
            return pool

    def session():
        session = requests.Session()
        session.mount("http://", Adapter())
        return session

    with Rig(emulator, tmp_path) as rig:
        rig.adapter(oauth_creds_path=None, session_factory=session).generate("Why?")
    assert len(made) == 1


def test_httpretty__answers():
    """In a child process, because it leaves sockets open. With its default, since without it requests fails as well."""
    pytest.importorskip("httpretty", reason=MISSING.format("httpretty"))
    program = """
import sys, httpretty
from gemini_sync import Endpoints, stream_gemini_api_key
for url in ("http://127.0.0.1:9", "https://gemini.example"):
    with httpretty.enabled():
        target = url + "/v1beta/models/m:streamGenerateContent"
        httpretty.register_uri(httpretty.POST, target, body=sys.argv[1], content_type="text/event-stream")
        print(*stream_gemini_api_key("Why?", "a-key", model="m", endpoints=Endpoints(gemini=url)))
        print(httpretty.last_request().headers["x-goog-api-key"])
"""
    done = run_python("-W", "ignore", "-c", program, (event("one") + event("two", "STOP")).decode())
    assert done.stdout.splitlines() == ["one two", "a-key"] * 2


# -- any tool


def test_tool__gets_plain_headers_and_bodies(rig, server, monkeypatch):
    """A tool that writes YAML can store no other types than those of the standard library."""
    kinds = set()

    def recording(cls):
        class Recording(cls):
            def request(self, method, url, body=None, headers=None, **rest):
                kinds.update({type(body), *map(type, headers.values())})
                return super().request(method, url, body=body, headers=headers, **rest)

        return Recording

    monkeypatch.setattr(HTTPConnectionPool, "ConnectionCls", recording(HTTPConnection))
    monkeypatch.setattr(HTTPSConnectionPool, "ConnectionCls", recording(HTTPSConnection))
    rig.path = server.write_credentials(rig.path, expires_in=-60)
    assert rig.adapter().generate("Why?").route == "oauth"
    assert rig.adapter(oauth_creds_path=None).generate("Why?").route == "api_key"
    assert server.token.requests
    assert kinds == {bytes, str}
