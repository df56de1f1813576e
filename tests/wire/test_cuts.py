"""A recorded stream that is cut at every byte: each whole event before the cut arrives, and no text comes twice."""

from __future__ import annotations

import pytest

from gemini_sync import StreamInterrupted
from tests.support import CORPUS_MISSING, find_corpus
from tests.wire.support import FRAMINGS, ask, drain

FILE = "streams/googleai/streaming-success-basic-reply-short.txt"
TEXTS = ("The", " capital of Wyoming", " is **Cheyenne**.\n")
# An event ends with the CR of its blank line. If the body ends with the connection, a cut looks clean, and a last event
# counts even without its blank line.
#: A body of known length is cut at every third byte only, because http.client treats it like chunks.
STEPS = {"chunked": 1, "close": 1, "length": 3}
MISSING_BYTES = {"chunked": 1, "length": 1, "close": 4}

pytestmark = pytest.mark.skipif(find_corpus() is None, reason=CORPUS_MISSING)


def ends_of(body):
    """The offset behind each event."""
    ends = [0]
    while ends[-1] < len(body):
        ends.append(body.index(b"\r\n\r\n", ends[-1]) + 4)
    return ends[1:]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_cut__at_every_byte(emulator, corpus, framing):
    body, script = (corpus / FILE).read_bytes(), emulator.api_key
    complete_at = [end - MISSING_BYTES[framing] for end in ends_of(body)]
    assert (len(body), len(complete_at)) == (882, len(TEXTS))
    script.answer(body=body, framing=framing)
    for offset in range(0, len(body), STEPS[framing]):
        script.fail("cut", at=offset)
        came = sum(offset >= end for end in complete_at)
        reply = ask(emulator)
        texts, error = drain(reply)
        if came == 0:  # the caller has seen nothing, so the request is sent again
            assert (texts, error) == (list(TEXTS), None), offset
            assert [attempt.outcome for attempt in reply.attempts] == ["failed", "answered"], offset
        elif came == len(TEXTS) and framing == "close":
            assert (texts, error) == (list(TEXTS), None), offset
        else:
            assert texts == list(TEXTS[:came]), offset
            assert type(error) is StreamInterrupted, offset
            assert error.partial.text == reply.text == "".join(texts), offset
            assert len(error.attempts) == 1, offset
        assert len(script.requests) == (2 if came == 0 else 1), offset
        emulator.clear()
