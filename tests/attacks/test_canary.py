"""Nothing that people see of a hostile answer holds a credential or a control character, or is over 20 kB."""

from __future__ import annotations

import pytest

from tests.attacks.canary import MOST_BYTES, ROUTES, problems, surfaces
from tests.attacks.hostile import ANSWERS
from tests.attacks.reporters import KEY
from tests.support import run_python


def test_canary__has_enough_answers() -> None:
    assert len(ANSWERS) >= 36


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"sent {KEY.upper()}", ["it holds canary+api/Key=1", "it holds canary"]),
        ("a\x1b[31m\u200e", ["it holds ['\\x1b', '\\u200e']"]),
        ("x" * (MOST_BYTES + 1), [f"it has {MOST_BYTES + 1} bytes"]),
        ("two\nlines", []),
    ],
)  # fmt: skip
def test_canary__finds_problems(text: str, found: list[str]) -> None:
    assert problems("it", text) == found


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ANSWERS)
def test_canary__of_one_answer(name: str, route: str) -> None:
    found = [problem for surface, text in surfaces(ANSWERS[name], route) for problem in problems(surface, text)]
    assert found == []


def test_canary__with_sentry_as_its_users_set_it_up() -> None:
    done = run_python("-m", "tests.attacks.canary", "401 message", "odd headers", "token subtype")
    assert (done.returncode, done.stdout.split("\n")[-2:]) == (0, ["0 problems", ""]), done.stdout + done.stderr
