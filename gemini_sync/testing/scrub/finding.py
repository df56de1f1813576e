"""Finds secrets in a text: by the name of their field, and by their shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus

# The kinds of secrets. A number follows, so that two keys stay two: API-KEY-1.
API_KEY, ACCESS_TOKEN, REFRESH_TOKEN, ID_TOKEN = "API-KEY", "ACCESS-TOKEN", "REFRESH-TOKEN", "ID-TOKEN"
CLIENT_ID, CLIENT_SECRET, ASSERTION, AUTH_CODE = "CLIENT-ID", "CLIENT-SECRET", "ASSERTION", "AUTH-CODE"
PASSWORD, PRIVATE_KEY, COOKIE, EMAIL, PROJECT = "PASSWORD", "PRIVATE-KEY", "COOKIE", "EMAIL", "PROJECT"
KINDS = (
    *(API_KEY, ACCESS_TOKEN, REFRESH_TOKEN, ID_TOKEN, CLIENT_ID, CLIENT_SECRET, ASSERTION, AUTH_CODE),
    *(PASSWORD, PRIVATE_KEY, COOKIE, EMAIL, PROJECT),
)
_SHORTEST_RANDOM = 24
PLACEHOLDER = re.compile(rf"\b({'|'.join(KINDS)})-\d+\b")

_FIELDS = {
    "access_token": ACCESS_TOKEN,
    "subject_token": ACCESS_TOKEN,
    "actor_token": ACCESS_TOKEN,
    "refresh_token": REFRESH_TOKEN,
    "id_token": ID_TOKEN,
    "client_id": CLIENT_ID,
    "client_secret": CLIENT_SECRET,
    "assertion": ASSERTION,
    "api_key": API_KEY,
    "password": PASSWORD,
    "private_key": PRIVATE_KEY,
    "private_key_id": PRIVATE_KEY,
    "client_email": EMAIL,
    "cloudaicompanion_project": PROJECT,
    "duet_project": PROJECT,
    "quota_project_id": PROJECT,
    "project_number": PROJECT,
}
_FORM_FIELDS = {**_FIELDS, "key": API_KEY, "code": AUTH_CODE, "token": ACCESS_TOKEN}
HEADERS = {
    "x-goog-api-key": API_KEY,
    "x-api-key": API_KEY,
    "authorization": ACCESS_TOKEN,
    "proxy-authorization": PASSWORD,
    "cookie": COOKIE,
    "set-cookie": COOKIE,
    "x-goog-user-project": PROJECT,
}


def _squeezed(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


_BY_NAME = {_squeezed(name): kind for name, kind in _FIELDS.items()}
_BY_FORM_NAME = {_squeezed(name): kind for name, kind in _FORM_FIELDS.items()}


def _any_of(names: dict[str, str]) -> str:
    spelled = (name.replace("_", "[_-]?") for name in names)
    return "|".join(sorted(spelled, key=len, reverse=True))


# A field of JSON, also of JSON inside a JSON string, in which each quote has backslashes before it.
_JSON_FIELD = re.compile(
    rf"(?P<name>\b(?:{_any_of(_FIELDS)}))(?P<quote>\\*[\"'])\s*:\s*(?:\{{\s*\\*\"id\\*\"\s*:\s*)?(?P=quote)"
    r"(?P<value>(?:(?!(?P=quote)).)+)(?P=quote)",
    re.IGNORECASE | re.DOTALL,
)
# In a query or a form; nowhere else, because answers hold programs, with arguments such as key=lambda.
_FORM_FIELD = re.compile(rf"(?:(?<=[?&])|\A)(?P<name>{_any_of(_FORM_FIELDS)})=(?P<value>[^&\s\"'\\<>]+)", re.IGNORECASE)
_EMAIL = r"(?<![\w.+-])[\w.+-]{1,64}(?:@|%40|\\u0040)(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,}\b"
_BEARER = r"ya29\.[\w.-]{6,}|(?<=Bearer )(?=[A-Za-z_.~+/=-]*\d)[\w.~+/=-]{8,}|(?<=Bearer%20)[\w.~%=-]{8,}"
# Kind, pattern, and texts of which one is in each text that the pattern matches: most texts have none of them, and a
# pattern takes a hundred times as long.
_SHAPES = (
    (PRIVATE_KEY, r"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----", ("PRIVATE KEY",)),
    (ASSERTION, r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*", ("eyJ",)),
    (API_KEY, r"AIza[\w-]{10,}|AIzv[\w-]{10,}|\bAQ\.[\w-]{10,}", ("AIz", "AQ.")),
    (ACCESS_TOKEN, _BEARER, ("ya29.", "Bearer")),
    (REFRESH_TOKEN, r"\b1(?://|%2F%2F|\\/\\/)0[\w-]{10,}", ("1//", "1%2F%2F", "1\\/\\/")),
    (AUTH_CODE, r"\b4/0A[\w-]{20,}", ("4/0A",)),
    (CLIENT_SECRET, r"GOCSPX-[\w-]{6,}", ("GOCSPX-",)),
    (CLIENT_ID, r"(?<![\w-])[\w-]{1,100}\.apps\.googleusercontent\.com", (".apps.googleusercontent.com",)),
    (EMAIL, _EMAIL, ("@", "%40", "\\u0040")),
    (PASSWORD, r"(?<=://)[^/\s:@\"'<>]+:[^/\s@\"'<>]+(?=@)", ("://",)),
    (
        PROJECT,
        r"(?<=projects/)[a-z][a-z0-9-]{4,28}[a-z0-9](?=/locations/)|(?<=projects/)\d{6,}\b|(?<=project )\d{6,}\b",
        ("project",),
    ),
)
_COMPILED = [(kind, re.compile(pattern, re.ASCII | re.DOTALL), needed) for kind, pattern, needed in _SHAPES]
_NAMES = sorted({spelled for name in _FIELDS for spelled in (name, name.replace("_", "-"), name.replace("_", ""))})
_FORM_NAMES = [f"{name}=" for name in (*_NAMES, "key", "code", "token")]


def is_random(value: str) -> bool:
    """True for a value that is no word or placeholder of a programmer's, so that it may be looked for elsewhere."""
    return any(map(str.isdigit, value)) or len(value) >= _SHORTEST_RANDOM


class Found(NamedTuple):
    """A secret in a text: where it stands, as it is spelled there, and what it means without that spelling."""

    kind: str
    start: int
    end: int
    value: str


def find(text: str) -> Iterator[Found]:
    """All that is or looks like a secret in ``text``; placeholders are none."""
    lower = text.lower()
    if any(name in lower for name in _NAMES):
        for hit in _JSON_FIELD.finditer(text):
            yield from _field(hit, _BY_NAME, plain_json(hit["value"]))
    if any(name in lower for name in _FORM_NAMES):
        for hit in _FORM_FIELD.finditer(text):
            yield from _field(hit, _BY_FORM_NAME, unquote_plus(hit["value"]))
    for kind, shape, needed in _COMPILED:
        for hit in shape.finditer(text) if any(part in text for part in needed) else ():
            spelled = hit.group()
            if not PLACEHOLDER.search(spelled):
                value = plain_json(unquote(spelled) if "%" in spelled else spelled)
                yield Found(kind, hit.start(), hit.end(), value)


def _field(hit: re.Match[str], kinds: dict[str, str], value: str) -> Iterator[Found]:
    if not PLACEHOLDER.fullmatch(value):
        yield Found(kinds[_squeezed(hit["name"])], hit.start("value"), hit.end("value"), value)


def plain_json(spelled: str) -> str:
    """What ``spelled`` means in a JSON string; as it is if it means nothing there."""
    for _ in range(3):  # JSON in JSON in JSON
        if "\\" not in spelled:
            break
        try:
            spelled = json.loads(f'"{spelled}"', strict=False)
        except ValueError:
            break
    return spelled
