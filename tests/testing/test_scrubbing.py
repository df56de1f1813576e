"""No secret reaches a cassette, in whatever spelling; and what is around it stays as it is."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse

import hypothesis
import pytest
from hypothesis import strategies as st

from gemini_sync.testing import record, replay
from gemini_sync.testing.cassette.values import Body, Exchange, Request, Response
from gemini_sync.testing.scrub.scrubber import Scrubber
from tests.testing.canaries import (
    CLIENT_ID,
    CLIENT_SECRET,
    EMAIL,
    JWT,
    KEY,
    PROJECT,
    REFRESH,
    SECRETS,
    TOKEN,
    found_in,
    spellings,
)
from tests.testing.cassette_kit import SSE, ask, event


def test_scan__finds_each_spelling():
    """The scan of these tests would find what it looks for."""
    for secret in SECRETS:
        assert [form for form in spellings(secret) if found_in(b'{"x": "%s"}' % form.encode()) == set()] == []


def scrubbed(data, *, headers=None, own=(), environ=None, sizes=None):
    """The body of a response that came for a request with all the credentials."""
    sent = {"x-goog-api-key": KEY, "Authorization": f"Bearer {TOKEN}", "X-Goog-User-Project": PROJECT}
    form = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH, "assertion": JWT}
    form["login_hint"] = EMAIL
    request = Request("POST", "https://host/token", sent, urllib.parse.urlencode(form).encode())
    segments = [data] if sizes is None else sizes
    scrubber = Scrubber(own, environ or {})
    found = scrubber.scrub([Exchange(request, Response(200, {**SSE, **(headers or {})}, Body(tuple(segments))))])
    again = Scrubber(own, environ or {}).scrub(found)
    assert again == found  # what is scrubbed stays as it is
    return found[0].response if found else None


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[-12:])
def test_body__holds_no_spelling(secret):
    for form in spellings(secret):
        for around in (b'{"error": {"message": "Not valid: %s"}}', b"%s", b"a=%s&b=1", b'{"a":"{\\"b\\":\\"%s\\"}"}'):
            data = around % form.encode()
            assert found_in(scrubbed(data).body.data) == set(), form


@pytest.mark.parametrize(
    "secret", [KEY, TOKEN, "GOC" + "SPX-canary-secret", REFRESH, EMAIL], ids=lambda secret: secret[-12:]
)
def test_shape__of_a_secret_that_was_never_sent(secret):
    other = secret.replace("canary", "other").replace("Canary", "Other")
    assert found_in(scrubbed(f"Wrong: {other} !".encode()).body.data, (other, other[6:])) == set()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ('{"access_token": "abc", "expires_in": 3599}', '{"access_token": "ACCESS-TOKEN-1", "expires_in": 3599}'),
        ("{'refresh_token': 'abc'}", "{'refresh_token': 'REFRESH-TOKEN-1'}"),
        ('{"a": "{\\"client_secret\\": \\"abc\\"}"}', '{"a": "{\\"client_secret\\": \\"CLIENT-SECRET-1\\"}"}'),
        ("grant_type=x&refresh_token=a%2Fb&z=1", "grant_type=x&refresh_token=REFRESH-TOKEN-1&z=1"),
        ("https://host/?key=abc&alt=sse", "https://host/?key=API-KEY-1&alt=sse"),
        ('{"cloudaicompanionProject": {"id": "abc-de"}}', '{"cloudaicompanionProject": {"id": "PROJECT-1"}}'),
        ("consumer projects/123456789 or project 12345678", "consumer projects/PROJECT-1 or project PROJECT-2"),
        ("/v1/projects/my-proj-1/locations/global", "/v1/projects/PROJECT-1/locations/global"),
        ("http://user:pass-word@host/", "http://PASSWORD-1@host/"),
        ("write to a.b+c@mail.example.com, or a.b+c@mail.example.com", "write to EMAIL-1, or EMAIL-1"),
        ("-----BEGIN PRIVATE KEY-----\\nMIIB\\n-----END PRIVATE KEY-----", "PRIVATE-KEY-1"),
        ("Authorization: Bearer abcdefg1", "Authorization: Bearer ACCESS-TOKEN-1"),
    ],
)
def test_field__is_known_by_its_name(text, clean):
    assert Scrubber().text(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        '{"text": "The key to success is a token effort, at example.com."}',
        "monkey=banana&turkey=1",
        '{"totalTokens": 5, "key": "value", "keys": ["a"]}',
        'data: {"thoughtSignature": "' + base64.b64encode(bytes(range(200))).decode() + '"}',
        "projects/p/locations/global",
        "streamGenerateContent?alt=sse",
        "f(x) = a@b; @decorator, x@1.2",
        "ACCESS-TOKEN-1 and EMAIL-12",
        "sorted(items, key=lambda item: item.code, code=5, token=9, api_key=None)",
        "It uses Bearer authentication, see projects/backend/main.py and 1//comment-of-a-program.",
    ],
)
def test_ordinary_text__stays(text):
    assert Scrubber().text(text) == text


def test_short_credentials__are_replaced_in_their_fields_alone():
    sent = Request("POST", "https://host/", {"x-goog-api-key": "sky"}, b'{"text": "Why is the sky blue?"}')
    (clean,) = Scrubber().scrub([Exchange(sent, Response())])
    assert clean.request == Request("POST", "https://host/", {"x-goog-api-key": "API-KEY-1"}, sent.body)


def test_word__in_a_field_is_not_looked_for_elsewhere():
    """An answer may show a program, or a schema."""
    text = '{"client_id": "undefined", "api_key": "required"} An undefined key is required.'
    clean = '{"client_id": "CLIENT-ID-1", "api_key": "API-KEY-1"} An undefined key is required.'
    (found,) = Scrubber().scrub([Exchange(Request("POST", "https://host/", {}, text.encode()), Response())])
    assert found.request.body.decode() == clean


def test_project__in_a_longer_word_does_not_hinder_saving(emulator, tmp_path):
    emulator.oauth.answer(text="Use a-project-of-mine-2 or a-project-of-mine.")
    with record(tmp_path / "a.yaml"):
        "".join(ask(emulator.urls, "oauth", emulator.issue_token()))
    assert "a-project-of-mine-2 " in (tmp_path / "a.yaml").read_text()
    assert "a-project-of-mine." not in (tmp_path / "a.yaml").read_text()


def test_project__is_replaced_as_a_word_alone():
    sent = Request(
        "POST", "https://cloudcode-pa.googleapis.com/v1internal:x", {}, b'{"project":"gemini","a":"gemini-3"}'
    )
    (clean,) = Scrubber().scrub([Exchange(sent, Response())])
    assert clean.request.body == b'{"project":"PROJECT-1","a":"gemini-3"}'


def test_environment__is_known():
    environ = {"GEMINI_API_KEY": "key-of-the-environment", "GOOGLE_CLOUD_PROJECT": "project-of-env"}
    said = scrubbed(b"key-of-the-environment or project-of-env", environ=environ).body.data
    assert said == b"API-KEY-2 or PROJECT-2"  # other ones have been sent before


def test_names__are_stable_and_tell_two_secrets_apart():
    sent = [Request("POST", "https://h/", {"Authorization": f"Bearer {name * 10}"}) for name in "abab"]
    clean = Scrubber().scrub([Exchange(request, Response()) for request in sent])
    numbers = [item.request.headers["Authorization"] for item in clean]
    assert numbers == [f"Bearer ACCESS-TOKEN-{number}" for number in (1, 2, 1, 2)]


def test_secret_in_pieces__over_events_of_a_stream():
    pieces = (event("Your key is " + KEY[:9]), event(KEY[9:15]), event(KEY[15:] + ". Keep it"), event(" safe.", "STOP"))
    body = scrubbed(b"", sizes=pieces).body
    assert b"".join(re.findall(rb'"text": "([^"]*)"', body.data)) == b"Your key is API-KEY-1. Keep it safe."
    assert [segment.endswith(b"\r\n\r\n") for segment in body.segments] == [True] * 4


@hypothesis.settings(max_examples=200)
@hypothesis.given(st.data())
def test_borders__stay_where_they_were(data):
    """A border inside a secret moves to the end of its name; all others keep the text on both sides."""
    words = data.draw(st.lists(st.sampled_from([KEY, TOKEN, PROJECT, " ", "x", "\r\n\r\n", "é"]), max_size=8))
    plain = " ".join(words).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(plain)), max_size=6)))
    pieces = [plain[start:end] for start, end in zip([0, *cuts], [*cuts, len(plain)]) if start < end]
    body = scrubbed(b"", sizes=pieces).body
    clean = plain
    for secret, name in ((KEY, b"API-KEY-1"), (TOKEN, b"ACCESS-TOKEN-1"), (PROJECT, b"PROJECT-1")):
        clean = clean.replace(secret.encode(), name)
    assert body.data == clean
    expected, at = set(), 0
    for piece in pieces[:-1]:
        at += len(piece)
        before, behind = plain[:at], plain[at:]
        for secret in (KEY, TOKEN, PROJECT):
            whole = secret.encode()
            for cut in range(1, len(whole)):
                if before.endswith(whole[:cut]) and behind.startswith(whole[cut:]):
                    before, behind = before[:-cut] + whole, behind[len(whole) - cut :]
                    break
        for secret, name in ((KEY, b"API-KEY-1"), (TOKEN, b"ACCESS-TOKEN-1"), (PROJECT, b"PROJECT-1")):
            before = before.replace(secret.encode(), name)
        expected.add(len(before))
    borders, at = set(), 0
    for segment in body.segments[:-1]:
        at += len(segment)
        borders.add(at)
    assert borders == expected - {0, len(clean)}


def test_secret_in_pieces__leaves_the_letters_around_it():
    pieces = (event("Schlüssel \\u00fc \U0001f600: " + KEY[:9]), event(KEY[9:] + " für dich."), event("\\q", "STOP"))
    body = scrubbed(b"", sizes=pieces).body
    texts = [json.loads(text) for text in re.findall(r'"text": ("[^"]*")', body.data.decode())[:2]]
    assert texts == ["Schlüssel ü \U0001f600: API-KEY-1", " für dich."]
    assert body.segments[2] == pieces[2]


def test_delays__of_a_segment_that_vanishes_are_kept():
    key = KEY.encode()
    sent = Request("POST", "https://h/", {"x-goog-api-key": KEY})
    body = Body((b"a " + key[:5], key[5:9], key[9:] + b" b"), (1, 2, 4))
    (clean,) = Scrubber().scrub([Exchange(sent, Response(200, {}, body))])
    assert clean.response.body == Body((b"a API-KEY-1", b" b"), (1, 6))


# -- scrubbers of the user's own


def test_own__texts_patterns_and_functions():
    def without_header(found):
        return None if b"drop" in found.response.body.data else found

    own = [("Jürgen", "NAME"), (re.compile(r"\bT-\d+\b"), "TICKET"), without_header]
    said = scrubbed("Jürgen has T-123, J\\u00fcrgen too. J%C3%BCrgen.".encode(), own=own).body.data
    assert said == b"NAME has TICKET, NAME too. NAME."
    assert scrubbed(b"please drop", own=own) is None


def test_own__match_in_replay_as_well(emulator, tmp_path):
    emulator.api_key.answer(text="Hello Jane.")
    own = [("Jane", "NAME")]
    with record(tmp_path / "a.yaml", scrub=own):
        "".join(ask(emulator.urls, "api_key", emulator.key, "I am Jane."))
    assert "Jane" not in (tmp_path / "a.yaml").read_text()
    with replay(tmp_path / "a.yaml", scrub=own):
        assert "".join(ask(emulator.urls, "api_key", "a-key", "I am Jane.")) == "Hello NAME."
