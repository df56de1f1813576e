"""No secret reaches a cassette, in whatever spelling; and what is around it stays as it is."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse

import hypothesis
import pytest
import requests
from hypothesis import strategies as st

from gemini_sync import Endpoints, GeminiDualAdapter, OAuthClient
from gemini_sync.testing import CassetteError, Emulator, record, replay
from gemini_sync.testing.cassette.storing import load, save
from gemini_sync.testing.cassette.values import Body, Exchange, Request, Response
from gemini_sync.testing.scrub.scrubber import Scrubber
from tests.testing.cassette_kit import QUICK, SSE, ask, event, exchange, outcome, tape_of
from tests.testing.test_record_replay import ANSWERS, FAULTS, fault_arguments

KEY = "AI" + "zaSyCanary_Key-0123456789"  # in two parts, so that no scan of this file takes it for a key
TOKEN = "ya" + "29.canary-token.0123456789"
CLIENT_ID = "1234-canary.apps.googleusercontent.com"
CLIENT_SECRET = "canary/+=&<odd>'0123-secret"  # has no shape of its own, and needs escapes everywhere
REFRESH = "1/" + "/0canary-refresh-token"
JWT = ".".join(
    base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
    for part in (
        {"alg": "RS256", "typ": "JWT"},
        {"email": "canary@example.org", "aud": "canary-audience"},
        "signature",
    )
)
EMAIL = "canary.person@corp.example.org"
PROJECT = "canary-project-77"
SECRETS = (KEY, TOKEN, CLIENT_ID, CLIENT_SECRET, REFRESH, JWT, EMAIL, PROJECT)


def spellings(secret):
    """Every way in which a server, a library or a program may write it."""
    inner = json.dumps(secret)[1:-1]
    escaped = "".join(char if char.isalnum() else f"\\u{ord(char):04x}" for char in secret)
    yield from (secret, inner, json.dumps(inner)[1:-1], escaped, escaped.replace("\\", "\\\\"))
    yield from (secret.replace("/", "\\/"), urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret))
    yield urllib.parse.quote(secret, safe="").replace("%2F", "%2f").replace("%40", "%40")
    for before in ("", "a", "ab", "user:", '{"token": "'):
        data = f'{before}{secret}"}} and more'.encode()
        yield base64.b64encode(data).decode()
        yield base64.urlsafe_b64encode(data).decode().rstrip("=")
        yield base64.b64encode(base64.b64encode(data)).decode()
        yield base64.b64encode(b"\xff\x00\xfe" + data + b"\x80" * 5).decode()  # in data that is no text


def readings(data):
    """A text, and all that can be decoded from it."""
    text = data.decode("latin-1")
    yield text
    yield urllib.parse.unquote(text)
    for _ in range(3):
        text = re.sub(r"\\+u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text).replace("\\/", "/")
    yield text
    for run in re.findall(r"[A-Za-z0-9+/_-]{12,}", text):
        for shift in range(4):
            part = run[shift:].replace("-", "+").replace("_", "/")
            decoded = base64.b64decode(part[: len(part) // 4 * 4])
            yield decoded.decode("latin-1")
            for nested in re.findall(rb"[A-Za-z0-9+/]{12,}", decoded):
                yield base64.b64decode(nested[: len(nested) // 4 * 4]).decode("latin-1")


def found_in(data, secrets=SECRETS):
    return {secret for reading in readings(data) for secret in secrets if secret in reading}


def assert_clean(path, secrets=SECRETS):
    tape = load(path)
    assert found_in(path.read_bytes(), secrets) == set()
    for recorded in tape.exchanges:
        assert found_in(recorded.request.body or b"", secrets) == set()
        body = getattr(recorded.response, "body", Body())
        assert found_in(body.data, secrets) == set()
        told = re.findall(rb'"text": ?"((?:[^"\\]|\\.)*)"', body.data)
        assert found_in(b"".join(told), secrets) == set()
    return tape


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


# -- whole recordings


@pytest.fixture
def canaries(tmp_path):
    emulator = Emulator(key=KEY, client_id=CLIENT_ID, client_secret=CLIENT_SECRET)
    emulator.accounts.token_prefix = TOKEN + "-"
    emulator.project = PROJECT
    with emulator:
        yield emulator


def use(emulator, credentials, prompt="Why?"):
    with GeminiDualAdapter(
        emulator.key,
        credentials,
        oauth_client=OAuthClient(CLIENT_ID, CLIENT_SECRET),
        endpoints=Endpoints(**emulator.urls),
        on_fallback=lambda event: None,
        sleep=lambda seconds: None,
        **QUICK,
    ) as adapter:
        return outcome(adapter.stream(prompt)), outcome(adapter.stream(prompt))


CASES = {
    **{name: ("answer", fields) for name, fields in ANSWERS.items()},
    **{f"fault {name}": fault for name, fault in FAULTS.items()},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_recording__holds_no_canary(canaries, tmp_path, case):
    kind, fields = case
    if kind == "answer":
        canaries.oauth.answer(**fields)
    else:
        kind, arguments = fault_arguments(case)
        canaries.oauth.fail(kind, times=1, **arguments)
    credentials = canaries.write_credentials(tmp_path / "creds.json", expires_in=-60)
    stored = json.loads(credentials.read_text())
    tokens = (stored["access_token"], stored["refresh_token"])
    with record(tmp_path / "a.yaml"):
        use(canaries, credentials, f"I am {EMAIL}. My key is {KEY}.")
    assert len(assert_clean(tmp_path / "a.yaml", (*SECRETS, *tokens)).exchanges) >= 3


@pytest.mark.parametrize("place", ["text", "error", "header", "error event", "quoted form"])
def test_recording__in_which_the_server_repeats_them(canaries, tmp_path, place):
    said = " ; ".join(form for secret in SECRETS for form in spellings(secret))
    if place == "text":
        canaries.oauth.answer(
            chunks=[{"candidates": [{"content": {"parts": [{"text": said}]}, "finishReason": "STOP"}]}]
        )
    elif place == "error":
        canaries.oauth.fail(400, message=said, times=None)
    elif place == "header":
        canaries.oauth.answer(text="Hi", headers={"X-Goog-Request-Id": KEY, "Set-Cookie": f"a={TOKEN}"})
    elif place == "error event":
        canaries.oauth.fail("error_event", after=1, message=said, times=None)
    else:
        canaries.token.fail(
            400, body=f"bad form: {urllib.parse.quote_plus(REFRESH)} {CLIENT_SECRET}".encode(), times=None
        )
    credentials = canaries.write_credentials(tmp_path / "creds.json", expires_in=-60)
    with record(tmp_path / "a.yaml"):
        use(canaries, credentials)
    assert_clean(tmp_path / "a.yaml")


def test_recording__can_be_read_in_a_review(canaries, tmp_path):
    canaries.api_key.answer(text="The answer is forty-two, said Jürgen.")
    with record(tmp_path / "a.yaml"):
        "".join(ask(canaries.urls, "api_key", KEY, "What is the answer?"))
    lines = (tmp_path / "a.yaml").read_text().splitlines()
    assert any('"text": "What is the answer?"' in line for line in lines)
    assert any("said J" in line and line.strip().startswith("data: {") for line in lines)
    assert "      x-goog-api-key: API-KEY-1" in lines


def test_compressed_answers__are_recorded_in_the_clear(canaries, tmp_path):
    canaries.api_key.fail("gzip", times=None)
    canaries.api_key.answer(text=f"It is {KEY}.")
    with record(tmp_path / "a.yaml"):
        live = "".join(ask(canaries.urls, "api_key", KEY))
    canaries.stop()
    assert live == f"It is {KEY}."
    assert_clean(tmp_path / "a.yaml")
    with replay(tmp_path / "a.yaml"):
        assert "".join(ask(canaries.urls, "api_key", "a-key")) == "It is API-KEY-1."


def test_requests_of_other_code__lose_their_credentials_as_well(canaries, tmp_path):
    with record(tmp_path / "a.yaml"):
        requests.get(
            canaries.url + f"/x?key={urllib.parse.quote(KEY)}", auth=("canary-user", "canary-password"), timeout=5
        )
        requests.get(canaries.url + "/y", headers={"Cookie": "session=canary-cookie", "X-Api-Key": "canary"}, timeout=5)
    assert "canary" not in (tmp_path / "a.yaml").read_text().lower()


@pytest.mark.parametrize(
    "put",
    [
        lambda secret: secret,
        lambda secret: urllib.parse.quote(secret, safe=""),
        lambda secret: json.dumps(json.dumps(secret)),
        lambda secret: base64.b64encode(b"xy" + secret.encode() + b"z").decode(),
        lambda secret: base64.urlsafe_b64encode(b"x" + secret.encode()).decode(),
        lambda secret: "".join(char if char.isalnum() else f"\\u{ord(char):04x}" for char in secret),
    ],
    ids=["plain", "URL", "JSON", "base64", "base64 for URLs", "escapes"],
)
@pytest.mark.parametrize("where", ["request", "response", "url"])
def test_saving__refuses_while_a_secret_is_left(canaries, tmp_path, where, put):
    """A scrubber of the user's own brings one back."""

    def bring_back(found):
        request, response = found.request, found.response
        if where == "request":
            request = Request(request.method, request.url, {}, put(KEY).encode())
        elif where == "url":
            request = Request(request.method, request.url + "&x=" + put(KEY).replace('"', ""), {}, b"")
        else:
            response = Response(200, SSE, Body((put(KEY).encode(),)))
        return Exchange(request, response)

    refused = pytest.raises(CassetteError, match="was not saved, because it would hold secrets: API-KEY in ")
    with refused as caught, record(tmp_path / "a.yaml", scrub=[bring_back]):
        "".join(ask(canaries.urls, "api_key", KEY))
    assert KEY not in str(caught.value)
    assert not (tmp_path / "a.yaml").exists()


def test_saving__looks_at_what_another_recording_has_written(canaries, tmp_path):
    save(tape_of(exchange(body=KEY.encode())), tmp_path / "a.yaml")
    with pytest.raises(CassetteError, match="API-KEY in"), record(tmp_path / "a.yaml", keep=True):
        "".join(ask(canaries.urls, "api_key", KEY))
