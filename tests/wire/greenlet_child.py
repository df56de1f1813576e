"""A program for a child process: calls in greenlets of gevent or eventlet, with the standard library patched.

It is told the library, when to patch ("early" or "late"), what to do, the URL and the key, and prints what came out.
"""

from __future__ import annotations

import importlib
import sys

SECONDS = 20.0


def patch(library):
    if library == "gevent":
        importlib.import_module("gevent.monkey").patch_all()
    else:
        importlib.import_module("eventlet").monkey_patch()


library, when, situation, url, key = sys.argv[1:]
if when == "early":
    patch(library)

import select  # noqa: E402
import socket  # noqa: E402
import threading  # noqa: E402

from gemini_sync import Endpoints, GeminiDualAdapter, GeminiSyncError, Retry, StreamInterrupted, Timeouts  # noqa: E402
from gemini_sync.network.cancelling import Call  # noqa: E402
from gemini_sync.network.connection import current  # noqa: E402

if when == "late":
    patch(library)

NEVER = 600.0
PATIENT = Timeouts(connect=NEVER, first_token=NEVER, idle=NEVER)


def main():
    adapter = GeminiDualAdapter(
        key, endpoints=Endpoints(gemini=url), timeouts=PATIENT, retry=Retry(max_attempts=1), model="m"
    )
    with adapter:
        SITUATIONS[situation](adapter)


def outcome(reply, got_text=None):
    """The text of ``reply``, then the error that ended it, if any."""
    text = ""
    try:
        for piece in reply:
            text += piece
            if got_text is not None:
                got_text.set()
    except GeminiSyncError as exc:
        why = exc.__cause__ if isinstance(exc, StreamInterrupted) else exc
        return f"{text}|{type(exc).__name__}|{getattr(exc, 'cancelled', False)}|{why}"
    return text


def many(adapter):
    """Twenty at once, twice: the second time on the connections of the first."""
    for turn in range(2):
        texts = {}

        def ask(number, turn=turn, texts=texts):
            texts[number] = outcome(adapter.stream(f"{turn} {number}"))

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        for number in range(20):
            print(repr(texts.get(number, "not done")))


def cancel(_, reply):
    reply.cancel()


def own_calls(_):
    """Each greenlet sends for its own call, also while another sends."""
    calls, both, seen = [Call(), Call()], threading.Event(), []

    def first():
        current.set(calls[0])
        both.wait(SECONDS)
        seen.append(current.get() is calls[0])

    def second():
        current.set(calls[1])
        both.set()
        reader.join(SECONDS)
        seen.append(current.get() is calls[1])

    reader, other = (threading.Thread(target=work, daemon=True) for work in (first, second))
    reader.start()
    other.start()
    other.join(SECONDS)
    print(seen)


def wait_for_test(_):
    select.select([sys.stdin], [], [], SECONDS)


def ended_by(end, wait=threading.Event.wait):
    """A situation in which one greenlet reads and another, after ``wait(got_text)``, ends the call."""

    def run(adapter):
        reply, got_text, said = adapter.stream("Why?"), threading.Event(), []
        reader = threading.Thread(target=lambda: said.append(outcome(reply, got_text)), daemon=True)
        reader.start()
        wait(got_text)
        end(adapter, reply)
        reader.join(SECONDS)
        print(said[0] if said else "not woken")

    return run


def asleep(adapter):
    adapter = GeminiDualAdapter(
        key, endpoints=Endpoints(gemini=url), retry=Retry(backoff_base=NEVER, backoff_cap=NEVER), model="m"
    )
    with adapter:
        ended_by(cancel, wait_for_test)(adapter)


def connecting(adapter):
    entered, connect = threading.Event(), socket.socket.connect

    def tell(sock, address):
        entered.set()
        return connect(sock, address)

    socket.socket.connect = tell
    ended_by(cancel, lambda _: entered.wait(SECONDS))(adapter)


def deadline(name):
    limits = {"connect": NEVER, "first_token": NEVER, "idle": NEVER, name: 0.3}
    return lambda adapter: print(outcome(adapter.stream("Why?", timeouts=Timeouts(**limits))))


SITUATIONS = {
    "own calls": own_calls,
    "many": many,
    "cancel": ended_by(cancel),
    "cancel at once": ended_by(cancel, wait_for_test),
    "cancel asleep": asleep,
    "cancel connecting": connecting,
    "close reply": ended_by(lambda adapter, reply: reply.close()),
    "close adapter": ended_by(lambda adapter, reply: adapter.close()),
    **{name: deadline(name) for name in ("connect", "first_token", "idle", "total")},
}

if __name__ == "__main__":
    main()
