"""Answers that were cut, placeholders, filler."""

from __future__ import annotations

import pytest
from checked_rows import answers, found, lines, qa

from tuneloop.data.checks.unfinished import Check

LONG = "The first thing to know is that nobody agreed on how the lamps were to be lit, or by whom. " * 3


@pytest.mark.parametrize(("answer", "kind"), [
    ("I am {{name}}, made by {{author}}.", "placeholder"),
    ("Your order {{Order Number}} is on its way.", "placeholder"),
    ("Dear %(name)s, welcome.", "placeholder"),
    ("Lorem ipsum dolor sit amet.", "filler"),
    ("Sincerely,\n[Your Name]", "blank"),
    ("```python\nprint(1)", "open_code"),
    (LONG + "It reminds us of the importance of", "midst"),
    (LONG + "They came, saw,", "midst"),
    (LONG + "After that the two of them went on to talk about the reason why everybody", "open_end"),
])
def test_unfinished_answers(answer: str, kind: str) -> None:
    assert list(found(Check(), answers(*[LONG.strip()] * 20, answer))) == [kind]


@pytest.mark.parametrize("answer", [
    "In Jinja, {{ name }} is a template's variable.", "Use ${{ github.token }} there.", "```\n{{x}}\n```",
    "const [name, setName] = useState()", "[Your profile](https://x.org) is here.", "```\na\n```",
    LONG + "\n- one\n- two",
    LONG + "\n\nYours, Anna", LONG + "See https://example.org/a/very/long/link/that/does/not/end/in/a/full/stop/at/all"])
def test_finished_answers(answer: str) -> None:
    assert found(Check(), answers(*[LONG.strip()] * 20, answer)) == {}


def test_where_most_long_answers_end_without_a_full_stop_none_is_odd() -> None:
    open_end = LONG + "After that the two of them went on to talk about the reason why everybody"
    assert found(Check(), answers(*[open_end] * 5, LONG.strip())) == {}


def test_placeholders_in_questions_are_named_too() -> None:
    assert lines(found(Check(), [qa("fine", "fine"), qa("Where is {{order}}?", "Here.", 2)])["placeholder"]) == [2]
