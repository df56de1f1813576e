"""TCP options by which the system finds out that the other side of a connection is gone.

A router forgets idle connections, and a laptop sleeps. Nothing tells this side, so that a read would wait for its
deadline. With these options the system ends such a connection itself, and the read fails with ETIMEDOUT.
"""

from __future__ import annotations

import contextlib
import math
import socket
import sys
from typing import Any, Optional

PROBE_AFTER_SECONDS = 30  # without a byte from the other side
PROBE_EVERY_SECONDS = 10
PROBES = 3  # so that the connection is dead after about a minute

#: Sent bytes that are not acknowledged for so long end the connection. Only Linux has this option.
UNACKNOWLEDGED_MILLISECONDS = 30_000
#: Linux also applies that limit to the probes, so one lost probe would end a connection that only waits. After this
#: time without a byte all that was sent has been acknowledged. Then the limit is raised, before the second probe.
SILENCE_SECONDS = 35.0 if hasattr(socket, "TCP_USER_TIMEOUT") else math.inf

_IDLE = getattr(socket, "TCP_KEEPIDLE", None)
if _IDLE is None and sys.platform == "darwin":
    _IDLE = 0x10  # TCP_KEEPALIVE in the system's headers; Python names it from 3.10 on
_INTERVAL = getattr(socket, "TCP_KEEPINTVL", None)
_COUNT = getattr(socket, "TCP_KEEPCNT", None)
_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)


def watch_peer(sock: socket.socket) -> None:
    """Set all options on a socket that is about to connect."""
    with contextlib.suppress(OSError):  # not a TCP socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set(sock, _IDLE, PROBE_AFTER_SECONDS)
    _set(sock, _INTERVAL, PROBE_EVERY_SECONDS)
    _set(sock, _COUNT, PROBES)
    _set(sock, _USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS)


def expect_silence(sock: Any) -> None:
    """What was sent on ``sock`` has arrived: from now on as many probes may be lost as without the limit."""
    _change_limit(sock, UNACKNOWLEDGED_MILLISECONDS, _limit_in_silence())


def expect_acknowledgement(sock: Any) -> None:
    """The silence is over: the short limit applies again."""
    _change_limit(sock, _limit_in_silence(), UNACKNOWLEDGED_MILLISECONDS)


def _limit_in_silence() -> int:
    return 1000 * (PROBE_AFTER_SECONDS + PROBES * PROBE_EVERY_SECONDS)


def _change_limit(sock: socket.socket, before: int, after: int) -> None:
    if _USER_TIMEOUT is not None:
        with contextlib.suppress(OSError):
            # The session of a caller may have set another limit, which stays.
            if sock.getsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT) == before:
                sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, after)


def _set(sock: socket.socket, option: Optional[int], value: int) -> None:
    if option is not None:
        with contextlib.suppress(OSError):  # an old Windows, or not a TCP socket
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
