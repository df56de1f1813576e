"""The emulator: a server, the emulated services and their accounts, and a script for each route."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import ssl
import threading
import time
from collections.abc import Collection
from types import TracebackType
from typing import Any, Callable

from gemini_sync.testing.emulator.accounts import Accounts
from gemini_sync.testing.emulator.connection import Connection, ResponseWriter, call_hook
from gemini_sync.testing.emulator.messages import Recorded, refusal
from gemini_sync.testing.emulator.script import Route
from gemini_sync.testing.emulator.server import Server
from gemini_sync.testing.emulator.service import ENDPOINTS, Service


class Emulator:
    """Both Gemini endpoints and the token endpoint on one loopback port; a context manager.

    ``requests`` holds every request that came. Each route is a ``Route``, which has its own requests and its script:
    ``oauth``, ``api_key``, ``token``, ``load_code_assist``, ``onboard``, ``operation`` and ``quota``.
    ``accounts``, ``service`` and ``server`` are the parts of the emulator.

    A server-side ``ssl_context`` makes it https. ``clock`` (seconds since the epoch) decides when a token expires.
    If a hook raises an error, its connection ends, and the error is reported as an error of its thread.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        key: str = "emulator-api-key",
        client_id: str = "emulator-client-id",
        client_secret: str = "emulator-client-secret",
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.accounts = Accounts(key=key, client_id=client_id, client_secret=client_secret, clock=clock)
        self.service = Service(self.accounts)
        self.server = Server(port=port, ssl_context=ssl_context)
        self.requests: list[Recorded] = []
        # guards requests, and what each route has recorded and scripted; notified at each request
        self._changed = threading.Condition()
        self._routes = {name: Route(name, self._changed) for name in ENDPOINTS}
        self.oauth = self._routes["oauth"]
        self.api_key = self._routes["api_key"]
        self.token = self._routes["token"]
        self.load_code_assist = self._routes["load_code_assist"]
        self.onboard = self._routes["onboard"]
        self.operation = self._routes["operation"]
        self.quota = self._routes["quota"]

    def start(self) -> Emulator:
        """Listen on 127.0.0.1; raises OSError if the port is taken, RuntimeError if the emulator runs already."""
        self.server.start(self._serve)
        return self

    def stop(self) -> None:
        """Close every connection, end every thread, free the port. Idempotent; a hook may call it."""
        self.server.stop()

    def __enter__(self) -> Emulator:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def clear(self) -> None:
        """Forget all recorded requests, and keep what is scripted."""
        with self._changed:
            for requests in (self.requests, *(route.requests for route in self._routes.values())):
                requests.clear()

    def wait_closed(self, timeout: float = 10.0) -> bool:
        """Block until no connection is open; False if one is still open after ``timeout`` seconds."""
        return self.server.wait_closed(timeout)

    def _serve(self, connection: Connection, request: Recorded) -> None:
        close = request.headers.get("Connection", "").lower() == "close"
        parsed = self.service.parse(request)
        if parsed is None:
            self._record(request)
            response = refusal(404, f"The emulator has no endpoint {request.method} {request.path}").response
            ResponseWriter(connection, lambda: response, close=close).write(response)
            return
        route = self._routes[parsed.route]
        self._record(dataclasses.replace(request, route=parsed.route, model=parsed.name), route)
        call_hook(route.before)
        refused = self.service.refusal(parsed, request, route.models)
        step, answer = route.take(parsed, refused=refused is not None)
        call_hook(step.before if step else None)
        writer = ResponseWriter(
            connection, lambda: refused or self.service.respond(parsed, request, answer), close=close
        )
        if step is not None and step.fault is not None:
            step.fault(writer)
        else:
            writer.write(writer.make_response())

    def _record(self, request: Recorded, route: Route | None = None) -> None:
        with self._changed:
            self.requests.append(request)
            if route is not None:
                route.requests.append(request)
            self._changed.notify_all()

    # -- the server

    @property
    def url(self) -> str:
        """The base URL; empty until the first start."""
        return self.server.url

    @property
    def urls(self) -> dict[str, str]:
        """The arguments of ``Endpoints(**emulator.urls)``; empty until the first start."""
        url = self.server.url
        return {"gemini": url, "code_assist": url, "token": url + "/token"} if url else {}

    @property
    def connections_open(self) -> int:
        """How many connections are open."""
        return self.server.connections_open

    @property
    def connections_total(self) -> int:
        """How many connections were accepted so far."""
        return self.server.connections_total

    # -- the accounts

    @property
    def key(self) -> str:
        """The API key that is accepted. Can be set."""
        return self.accounts.key

    @key.setter
    def key(self, value: str) -> None:
        self.accounts.key = value

    @property
    def client_id(self) -> str:
        """The id of the OAuth client that is accepted. Can be set."""
        return self.accounts.client_id

    @client_id.setter
    def client_id(self, value: str) -> None:
        self.accounts.client_id = value

    @property
    def client_secret(self) -> str:
        """The secret of the OAuth client that is accepted. Can be set."""
        return self.accounts.client_secret

    @client_secret.setter
    def client_secret(self, value: str) -> None:
        self.accounts.client_secret = value

    @property
    def token_lifetime(self) -> float:
        """The seconds until an access token from the token endpoint expires. Can be set."""
        return self.accounts.token_lifetime

    @token_lifetime.setter
    def token_lifetime(self, value: float) -> None:
        self.accounts.token_lifetime = value

    @property
    def rotates_refresh_tokens(self) -> bool:
        """True if each refresh gives a new refresh token and ends the old one. Can be set."""
        return self.accounts.rotates_refresh_tokens

    @rotates_refresh_tokens.setter
    def rotates_refresh_tokens(self, value: bool) -> None:
        self.accounts.rotates_refresh_tokens = value

    def issue_token(self, expires_in: float = 3600) -> str:
        """A new access token that expires after that many seconds of the clock."""
        return self.accounts.issue_token(expires_in)

    def issue_refresh_token(self) -> str:
        """A new refresh token; it is accepted until it is revoked."""
        return self.accounts.issue_refresh_token()

    def revoke(self, token: str) -> None:
        """Accept an access or refresh token no longer."""
        self.accounts.revoke(token)

    def revoke_all(self) -> None:
        """Accept none of the tokens issued so far."""
        self.accounts.revoke_all()

    def write_credentials(
        self, path: str | os.PathLike[str], *, expires_in: float = 3600, style: str = "gemini-cli"
    ) -> pathlib.Path:
        """Write a credentials file (mode 0600) with new tokens; missing folders are made.

        ``style="gemini-cli"`` writes an access token that expires after ``expires_in`` seconds, and no client id.
        ``style="authorized_user"`` writes gcloud's file: a client id and secret, and no access token.
        Raises ValueError for another style, FileExistsError for a file that may hold a login from elsewhere.
        """
        return self.accounts.write_credentials(path, expires_in=expires_in, style=style)

    # -- the services

    @property
    def models(self) -> Collection[str] | None:
        """The models that are served; None serves any. Can be set."""
        return self.service.models

    @models.setter
    def models(self, value: Collection[str] | None) -> None:
        self.service.models = value

    @property
    def project(self) -> str | None:
        """The user's Code Assist project; None if the user has none. Can be set."""
        return self.service.project

    @project.setter
    def project(self, value: str | None) -> None:
        self.service.project = value

    @property
    def tier(self) -> str | None:
        """The id of the user's tier; None if the user has to be onboarded. Can be set."""
        return self.service.tier

    @tier.setter
    def tier(self, value: str | None) -> None:
        self.service.tier = value

    @property
    def allowed_tiers(self) -> list[dict[str, Any]]:
        """The ``allowedTiers`` of loadCodeAssist. Can be set."""
        return self.service.allowed_tiers

    @allowed_tiers.setter
    def allowed_tiers(self, value: list[dict[str, Any]]) -> None:
        self.service.allowed_tiers = value

    @property
    def ineligible_tiers(self) -> list[dict[str, Any]]:
        """The ``ineligibleTiers`` of loadCodeAssist. Can be set."""
        return self.service.ineligible_tiers

    @ineligible_tiers.setter
    def ineligible_tiers(self, value: list[dict[str, Any]]) -> None:
        self.service.ineligible_tiers = value

    @property
    def onboarding_polls(self) -> int:
        """How often a client must ask for the onboarding operation until it is done; 0 is done at once. Can be set."""
        return self.service.onboarding_polls

    @onboarding_polls.setter
    def onboarding_polls(self, value: int) -> None:
        self.service.onboarding_polls = value
