"""The pytest plugin: an emulator, an adapter and recorded responses as fixtures, and a guard in front of real hosts.

It stands beside the package, because pytest imports it whenever it starts, and any import from the package takes in
requests as well. So this module imports what it needs inside its functions. It has no assertions, and pytest need not
look for any: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from gemini_sync import GeminiDualAdapter
    from gemini_sync.testing import Emulator
    from gemini_sync.testing.cassette_fixture import CassetteFixture

_MARKERS = (
    "gemini_cassette(match, pace, allow_repeats, scrub, keep_headers): replay the cassette of this test; "
    "the arguments are those of gemini_sync.testing.replay and record.",
    "gemini_live: this test may reach the real hosts.",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gemini_sync")
    group.addoption(
        "--gemini-record",
        choices=("none", "once", "rewrite"),
        default="none",
        help="what the fixture gemini_cassette records: nothing (the default), what is missing, or everything again",
    )
    parser.addini("gemini_guard", "fail tests that would reach Gemini's real hosts", type="bool", default=True)


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    config.stash[_GUARD] = guard = Guard()
    config.add_cleanup(guard.remove)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test with the marker has the fixture, also if it does not ask for it."""
    for item in items:
        names = getattr(item, "fixturenames", None)
        if names is not None and "gemini_cassette" not in names and item.get_closest_marker("gemini_cassette"):
            names.insert(0, "gemini_cassette")


# -- fixtures


@pytest.fixture
def gemini_emulator() -> Iterator[Emulator]:
    """A running ``gemini_sync.testing.Emulator``."""
    from gemini_sync.testing.emulator import Emulator

    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def gemini_adapter(gemini_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeminiDualAdapter]:
    """An adapter with both routes to ``gemini_emulator``; it does not wait between its tries."""
    from gemini_sync import Endpoints, GeminiDualAdapter, OAuthClient

    credentials = gemini_emulator.write_credentials(tmp_path_factory.mktemp("gemini") / "oauth_creds.json")
    with GeminiDualAdapter(
        gemini_emulator.key,
        credentials,
        oauth_client=OAuthClient(gemini_emulator.client_id, gemini_emulator.client_secret),
        endpoints=Endpoints(**gemini_emulator.urls),
        sleep=lambda seconds: None,
    ) as adapter:
        yield adapter


@pytest.fixture
def gemini_cassette(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The recorded responses of this test, in a file beside its module and named after both.

    The value is what ``replay()`` gives; while ``--gemini-record`` records, it is what ``record()`` gives.
    """
    from gemini_sync.testing.cassette_fixture import CassetteFixture

    item = request.node
    guard, cassette = item.config.stash[_GUARD], CassetteFixture(item, item.config.getoption("gemini_record"))
    item.stash[_CASSETTE] = cassette
    guard.is_lifted = cassette.records
    try:
        yield cassette.start()
    finally:
        guard.is_lifted = False
        cassette.stop(passed=item.stash.get(_PASSED, False))


# -- the guard, and what is reported

_TOKEN_HOST = "oauth2.googleapis.com"
_REAL_HOSTS = (  # compiled when the first name is looked up
    r"generativelanguage\.googleapis\.com|cloudcode-pa\.googleapis\.com|oauth2\.googleapis\.com"
    r"|([a-z0-9-]+-)?aiplatform\.([a-z]+\.rep\.)?googleapis\.com"
)


class RealHostError(AssertionError):
    """A test would have reached a real host. It is no network error, so that no client tries again."""


class Guard:
    """Refuses connections to Gemini's hosts while a test runs, also those through a proxy, in all threads.

    The names are checked as they are looked up, because all libraries meet there, and no tool that replays gets there.

    Attributes:
        is_on: True while a test runs that may not reach the hosts.
        is_lifted: True while a test records.
        refused: the errors since the test began.
    """

    def __init__(self) -> None:
        self.is_on = self.is_lifted = False
        self.refused: list[RealHostError] = []
        self._patches: list[tuple[Any, str, Any, Any]] = []

    def install(self) -> None:
        """Begin to check names; a second call does nothing."""
        if self._patches:
            return
        import socket

        original = socket.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
            self._watch_tunnels()
            self.check(host)
            return original(host, *arguments, **named)

        self._patch(socket, "getaddrinfo", getaddrinfo)

    def remove(self) -> None:
        for owner, name, original, ours in reversed(self._patches):
            if getattr(owner, name) is ours:  # else another tool has come in between, and ours does nothing now
                setattr(owner, name, original)
        self._patches.clear()
        self.is_on = False

    def check(self, host: Any) -> None:
        """Raises ``RealHostError`` if a test may not reach ``host``."""
        name = (host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)).lower().rstrip(".")
        if not self.is_on or self.is_lifted or not re.fullmatch(_REAL_HOSTS, name):
            return
        if name == _TOKEN_HOST and not _is_called_by_package():
            return  # other libraries of Google's need it as well
        error = RealHostError(
            f"This test would have reached {name}. Replay a recording with the fixture gemini_cassette, use the "
            "fixture gemini_emulator, or mark the test with gemini_live if it may."
        )
        self.refused.append(error)
        raise error

    def _patch(self, owner: Any, name: str, ours: Any) -> None:
        self._patches.append((owner, name, getattr(owner, name), ours))
        setattr(owner, name, ours)

    def _watch_tunnels(self) -> None:
        """Through a proxy, a host is named in CONNECT. The classes may be imported in the middle of a test."""
        for module in ("http.client", "urllib3.connection"):
            owner = getattr(sys.modules.get(module), "HTTPConnection", None)
            tunnel = vars(owner).get("_tunnel") if owner is not None else None
            if tunnel is not None and not any(patch[3] is tunnel for patch in self._patches):
                self._patch(owner, "_tunnel", self._checked_tunnel(tunnel))

    def _checked_tunnel(self, tunnel: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def checked(connection: Any) -> Any:
            self.check(connection._tunnel_host)
            return tunnel(connection)

        return checked


def _is_called_by_package() -> bool:
    frame: Any = sys._getframe()
    while frame is not None and not str(frame.f_globals.get("__name__")).startswith("gemini_sync."):
        frame = frame.f_back
    return frame is not None


_GUARD = pytest.StashKey[Guard]()
_CASSETTE: pytest.StashKey[CassetteFixture] = pytest.StashKey()
_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    guard = item.config.stash[_GUARD]
    guard.refused, guard.is_on = [], item.get_closest_marker("gemini_live") is None
    if item.config.getini("gemini_guard"):
        guard.install()  # not before the first test, because not every pytest has imported socket at its start
    try:
        return (yield)
    finally:
        guard.is_on = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    _raise_what_was_swallowed(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    if item.stash.get(_PASSED, False):
        _raise_what_was_swallowed(item)
    return result


def _raise_what_was_swallowed(item: pytest.Item) -> None:
    """Fail the test also if its code has caught the refusal, as code that falls back may do."""
    cassette = item.stash.get(_CASSETTE, None)
    for error in (*item.config.stash[_GUARD].refused, *(cassette.misses if cassette else ())):
        raise error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    elif report.when == "teardown" and _CASSETTE in item.stash:
        vars(report)["gemini_unused"] = item.stash[_CASSETTE].unused  # xdist takes attributes of a report along
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    for unused in (line for report in reports for line in getattr(report, "gemini_unused", ())):
        terminalreporter.write_line(f"gemini_sync: not used: {unused}", yellow=True)
