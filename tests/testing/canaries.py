"""Secrets of nobody, every spelling of them, and a scan that finds them."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse

from gemini_sync.testing.cassette.storing import load
from gemini_sync.testing.cassette.values import Body

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
