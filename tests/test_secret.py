"""Tests of secrets: they equal their text and are sent as it, and no report shows them."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import pickle
from typing import Any

import pytest
import requests
import rich.console
import rich.pretty
import rich.traceback

from gemini_sync.config import check_secret
from gemini_sync.secret import Secret, SecretBytes, conceal, conceal_source, type_name

PLAIN = "canary" * 30  # longer than the 80 characters that rich shows of a string
SECRET = Secret(PLAIN)


@pytest.mark.parametrize(
    "shown",
    [
        repr(SECRET),
        f"{SECRET!r}",
        repr(SECRET[:80]),
        repr(SECRET[0]),
        repr(SECRET.strip()),
        repr({"a": [SECRET], "b": (SECRET,)}),
        repr(copy.deepcopy(SECRET)),
        repr(pickle.loads(pickle.dumps(SECRET))),
        repr(SecretBytes(PLAIN.encode())),
        repr(SecretBytes(PLAIN.encode())[:80]),
        rich.pretty.pretty_repr(SECRET, max_string=80),
        rich.pretty.pretty_repr(SecretBytes(PLAIN.encode()), max_string=80),
        repr(requests.structures.CaseInsensitiveDict({"Authorization": SECRET})),
    ],
)
def test_secret__is_not_shown(shown: str) -> None:
    assert "canary" not in shown
    assert "[redacted]" in shown


def test_secret__equals_its_text() -> None:
    assert (SECRET, hash(SECRET), {SECRET: 1}) == (PLAIN, hash(PLAIN), {PLAIN: 1})
    assert (type(str(SECRET)), str(SECRET), f"Bearer {SECRET}") == (str, PLAIN, f"Bearer {PLAIN}")
    assert json.loads(json.dumps([SECRET], indent=2)) == [PLAIN]
    assert hashlib.sha256(SecretBytes(b"a")).digest() == hashlib.sha256(b"a").digest()
    assert (SecretBytes(b"ab"), SecretBytes(b"ab")[0]) == (b"ab", 97)
    assert pickle.loads(pickle.dumps(SECRET)) == PLAIN


def test_secret__in_a_traceback_of_rich_with_its_defaults() -> None:
    def fails(secret: str) -> None:
        raise ValueError(len(secret))

    with pytest.raises(ValueError, match="180") as caught:
        fails(SECRET)
    file, error = io.StringIO(), caught.value
    shown = rich.traceback.Traceback.from_exception(ValueError, error, error.__traceback__, show_locals=True)
    rich.console.Console(file=file).print(shown)
    assert "secret = [redacted]" in file.getvalue()
    assert "canarycanary" not in file.getvalue()


@pytest.mark.parametrize(
    ("value", "kind"),
    [(PLAIN, Secret), (SECRET, Secret), (PLAIN.encode(), SecretBytes), (bytearray(b"canary"), SecretBytes), (7, int)],
)
def test_conceal__strings_and_bytes(value: Any, kind: type) -> None:
    assert (type(conceal(value)), conceal(value)) == (kind, value)


def test_conceal__inside_of_lists_and_dicts() -> None:
    document = {"a": PLAIN, "b": [PLAIN, {"c": PLAIN}], "d": None, "e": 1.5}
    assert conceal(document) == document
    assert "canary" not in repr(conceal(document))


@pytest.mark.parametrize(
    ("source", "is_hidden"),
    [("~/creds.json", False), (' {"token": "canary"}', True), ("ya29.canary", True), ("AIza" + "S" * 35, True)],
)
def test_conceal_source__hides_credentials_and_no_path(source: str, is_hidden: bool) -> None:
    assert conceal_source(source) == source
    assert isinstance(conceal_source(source), Secret) is is_hidden
    assert "canary" not in repr(conceal_source({"token": "canary"}))


def test_type_name__of_a_concealed_value() -> None:
    assert [type_name(conceal(value)) for value in ("a", b"a", [], {}, None)] == [
        "str", "bytes", "list", "dict", "NoneType"
    ]  # fmt: skip


def test_check_secret__gives_a_secret() -> None:
    checked = check_secret(f' "{PLAIN}" ', "api_key")
    assert (type(checked), checked) == (Secret, PLAIN)


def test_secret__as_the_field_of_a_dataclass() -> None:
    @dataclasses.dataclass
    class Holder:
        secret: str

    assert repr(dataclasses.asdict(Holder(SECRET))) == "{'secret': [redacted]}"
