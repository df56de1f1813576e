"""A server on one loopback port: it accepts connections, and a thread for each reads the requests."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import Callable

from gemini_sync.testing.emulator.connection import BadRequest, Connection, ResponseWriter
from gemini_sync.testing.emulator.messages import Recorded, refusal

_BACKLOG = 256
_JOIN_SECONDS = 2.0

#: Answers one request; called in the thread of the connection.
Handler = Callable[[Connection, Recorded], None]


class Server:
    """The sockets and threads; ``url`` is empty until the first start, and the two counters count connections."""

    def __init__(self, *, port: int, ssl_context: ssl.SSLContext | None) -> None:
        self.url = ""
        self.connections_open = 0
        self.connections_total = 0
        self._port = port
        self._ssl_context = ssl_context
        self._changed = threading.Condition()  # guards the counters, _listener and _threads; notified at each close
        self._threads: dict[Connection, threading.Thread] = {}
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None

    def start(self, handle: Handler) -> None:
        """Listen, and call ``handle`` for each request; raises OSError if the port is taken."""
        if self._listener is not None:
            raise RuntimeError("the emulator runs already")
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=_BACKLOG)
        scheme = "https" if self._ssl_context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._stopping = threading.Event()
        self._acceptor = threading.Thread(
            target=self._accept, args=(self._listener, handle), name="emulator", daemon=True
        )
        self._acceptor.start()

    def stop(self) -> None:
        """Close every connection, end every thread, free the port. Idempotent; a hook may call it."""
        with self._changed:
            listener, self._listener = self._listener, None
        if listener is None or self._acceptor is None:
            return
        self._stopping.set()
        # A connection wakes accept() on every platform. It fails if the process has no free file descriptor;
        # the thread then keeps waiting, but as a daemon it does not keep the process alive.
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname()).close()
        self._acceptor.join(_JOIN_SECONDS)
        listener.close()
        with self._changed:
            threads = dict(self._threads)
        for connection in threads:
            connection.wake()
        deadline = time.monotonic() + _JOIN_SECONDS
        for connection, thread in threads.items():
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                connection.close()  # the thread may still hang in a hook

    def wait_closed(self, timeout: float) -> bool:
        """Block until no connection is open; False if one is still open after ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.connections_open, timeout)

    def _accept(self, listener: socket.socket, handle: Handler) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(ConnectionAbortedError):  # the client left before it was accepted
                self._open(listener.accept()[0], handle)

    def _open(self, sock: socket.socket, handle: Handler) -> None:
        if self._stopping.is_set():  # this connection is the one that stop() makes
            sock.close()
            return
        with contextlib.suppress(OSError):  # the client may have gone already; the first read tells
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ssl_context is not None:
                sock = self._ssl_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with self._changed:
            self.connections_total += 1
            self.connections_open += 1
            connection = Connection(sock, self.connections_total, self._stopping)
            name = f"emulator-{connection.number}"
            thread = threading.Thread(target=self._serve, args=(connection, handle), name=name, daemon=True)
            self._threads = {known: its for known, its in self._threads.items() if its.is_alive()}
            self._threads[connection] = thread
            thread.start()

    def _serve(self, connection: Connection, handle: Handler) -> None:
        try:
            with contextlib.suppress(OSError):  # the client left, or stop() woke this thread
                connection.handshake()
                while not connection.closed:
                    self._serve_next(connection, handle)
        finally:
            connection.close()
            with self._changed:
                self.connections_open -= 1
                self._changed.notify_all()

    def _serve_next(self, connection: Connection, handle: Handler) -> None:
        try:
            request = connection.read_request()
        except BadRequest as exc:
            response = refusal(400, str(exc)).response
            ResponseWriter(connection, lambda: response, close=True).write(response)
            return
        if request is None:
            connection.close()
        elif connection.reset_on_next_request:
            connection.reset()
        else:
            handle(connection, request)
