"""The emulator's sockets and threads: accept, read, record, hand to the service, play the response."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import threading
import time
from types import TracebackType
from typing import Callable

from gemini_sync.testing.emulator.routes import Route
from gemini_sync.testing.emulator.rpc import status_body
from gemini_sync.testing.emulator.service import Service
from gemini_sync.testing.emulator.wire import (
    BadRequest,
    Connection,
    Exchange,
    Recorded,
    call_hook,
    json_response,
)

_BACKLOG = 256
_JOIN_SECONDS = 2.0


class Emulator(Service):
    """Both Gemini endpoints and the token endpoint on one loopback port; a context manager.

    `url` and `urls` (for `Endpoints(**emulator.urls)`) hold while it runs. `requests` is everything that
    came, each route's own requests are on the route; `connections_open` and `connections_total` count.
    `ssl_context` (a server-side one) makes it https. State that can be set is listed under `Service`,
    scripting under `Route`. A hook that raises ends its connection, and the thread's error is reported.
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
        super().__init__(key=key, client_id=client_id, client_secret=client_secret, clock=clock)
        self.url = ""
        self.urls: dict[str, str] = {}
        self.requests: list[Recorded] = []
        self.connections_open = 0
        self.connections_total = 0
        self._port = port
        self._ssl_context = ssl_context
        # guards requests, the counters, _running and each route's memory; told whenever one of them changes
        self._changed = threading.Condition()
        self._running: dict[Connection, threading.Thread] = {}
        self._numbered = 0
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self.oauth = Route("oauth", self._changed)
        self.api_key = Route("api_key", self._changed)
        self.token = Route("token", self._changed)
        self.load_code_assist = Route("load_code_assist", self._changed)
        self.onboard = Route("onboard", self._changed)
        self.operation = Route("operation", self._changed)
        self.quota = Route("quota", self._changed)

    def start(self) -> Emulator:
        """Listen on 127.0.0.1; raises OSError where the port is taken, RuntimeError when running already."""
        if self._listener is not None:
            raise RuntimeError("the emulator runs already")
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=_BACKLOG)
        scheme = "https" if self._ssl_context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.urls = {"gemini": self.url, "code_assist": self.url, "token": self.url + "/token"}
        self._stopping = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), name="emulator", daemon=True)
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Close every connection, end every thread, free the port. Idempotent; may be called from a hook."""
        with self._changed:
            listener, self._listener = self._listener, None
        if listener is None or self._acceptor is None:
            return
        self._stopping.set()
        with contextlib.suppress(OSError):  # no descriptor to spare: the thread waits on, a daemon
            socket.create_connection(listener.getsockname()).close()  # wakes accept() on every platform
        self._acceptor.join(_JOIN_SECONDS)
        listener.close()
        with self._changed:
            running = dict(self._running)
        for connection in running:
            connection.wake()
        deadline = time.monotonic() + _JOIN_SECONDS
        for connection, thread in running.items():
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                connection.close()  # of a thread that hangs in a hook

    def __enter__(self) -> Emulator:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def clear(self) -> None:
        """Forget all recorded requests; what was scripted stays."""
        with self._changed:
            for requests in (self.requests, *(route.requests for route in self._routes())):
                requests.clear()

    def wait_closed(self, timeout: float = 10.0) -> bool:
        """Block until no connection is open; False after `timeout` seconds with one open."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.connections_open, timeout)

    def _routes(self) -> tuple[Route, ...]:
        return (
            self.oauth, self.api_key, self.token, self.load_code_assist, self.onboard, self.operation, self.quota
        )  # fmt: skip

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(ConnectionAbortedError):  # that client gave up before it was accepted
                self._open(listener.accept()[0])

    def _open(self, sock: socket.socket) -> None:
        if self._stopping.is_set():  # this is stop() waking the thread
            sock.close()
            return
        with contextlib.suppress(OSError):  # the client may have gone already: then reading says so
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ssl_context is not None:
                sock = self._ssl_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with self._changed:
            self.connections_total += 1
            self.connections_open += 1
            connection = Connection(sock, self.connections_total)
            name = f"emulator-{connection.number}"
            thread = threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True)
            self._running = {known: its for known, its in self._running.items() if its.is_alive()}
            self._running[connection] = thread
            thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            with contextlib.suppress(OSError):  # the client went away, or stop() woke this thread
                connection.handshake()
                while not connection.closed:
                    self._serve_next(connection)
        finally:
            connection.close()
            with self._changed:
                self.connections_open -= 1
                self._changed.notify_all()

    def _serve_next(self, connection: Connection) -> None:
        try:
            request = connection.read_request()
        except BadRequest as exc:
            self._play(connection, 400, str(exc), close=True)
            return
        if request is None:
            connection.close()
        elif connection.reset_on_next_request:
            connection.reset()
        else:
            self._serve_request(connection, request)

    def _serve_request(self, connection: Connection, request: Recorded) -> None:
        close = request.headers.get("Connection", "").lower() == "close"
        with self._changed:
            self._numbered += 1
            number = self._numbered
        call = self.locate(request, number)
        if call is None:
            self._record(request)
            text = f"The emulator has no endpoint {request.method} {request.path}"
            self._play(connection, 404, text, close=close)
            return
        route: Route = getattr(self, call.route)
        self._record(dataclasses.replace(request, route=call.route, model=call.name), route)
        call_hook(route.before)
        refused = self.refusal(call, request, route.models)
        step, answer = route.take(call, refused=refused is not None)
        call_hook(step.before if step else None)
        exchange = Exchange(
            connection, lambda: refused or self.respond(call, request, answer), self._stopping, close=close
        )
        if step is not None and step.fault is not None:
            step.fault(exchange)
        else:
            exchange.play(exchange.answer())

    def _record(self, request: Recorded, route: Route | None = None) -> None:
        with self._changed:
            self.requests.append(request)
            if route is not None:
                route.requests.append(request)
            self._changed.notify_all()

    def _play(self, connection: Connection, code: int, message: str, *, close: bool) -> None:
        response = json_response(status_body(code, message=message), code)
        Exchange(connection, lambda: response, self._stopping, close=close).play(response)
