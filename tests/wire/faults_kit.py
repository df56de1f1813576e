"""What the tests of faults share: an emulator with credentials that are easy to find, and a rig that looks for them."""

from __future__ import annotations

import contextlib
import logging

from gemini_sync.testing.emulator import default_text
from tests.adapter_kit import Rig
from tests.auth.credentials_kit import told
from tests.wire.support import drain

TEXT = default_text("Why?")
KEY, SECRET = "canary-api-key", "canary-client-secret"
CANARIES = (KEY, SECRET, "emulator-access-token", "emulator-refresh-token")


@contextlib.contextmanager
def guarded_rig(emulator, folder, caplog):
    """A rig on the emulator; at the end it checks that no log, message or repr has shown a credential."""
    caplog.set_level(logging.DEBUG)
    with Rig(emulator, folder) as rig:
        rig.shown = []
        yield rig
        rig.shown += [caplog.text, *map(str, rig.flips), *map(repr, rig.flips)]
        shown = "\n".join(rig.shown)
        assert not [canary for canary in CANARIES if canary in shown]


def run(rig, **settings):
    """The adapter, a reply, its texts and its error."""
    adapter = rig.adapter(**settings)
    reply = adapter.stream("Why?")
    texts, error = drain(reply)
    rig.shown += [repr(adapter), repr(adapter.route_status()), repr(reply), repr(reply.attempts)]
    rig.shown += [told(attempt.error) for attempt in reply.attempts if attempt.error] + ([told(error)] if error else [])
    return adapter, reply, texts, error
