"""Filters let pass what they should, stop what they should, and say why without repeating it."""

from __future__ import annotations

import pytest

from tuneloop.errors import UserError
from tuneloop.evaluation.safety.filters import Filter, Personal, Together, Verdict, Where, Words

CARD = "Pay with 4111 1111 1111 1111 please"      # the number is made for tests
MAIL = "Write to anna.weber@gmx.de"


def test_words_are_matched_whole_and_in_any_case() -> None:
    words = Words(["Secret Project", "acme", "c++"])
    assert words("The ACME files", "input") == Verdict(False, "a word of the list")
    assert not words("our secret project", "output").allowed
    assert not words("I like C++.", "input").allowed
    assert words("acmes and secret projects", "input") == Verdict(True)


def test_without_words_the_toxic_list_is_meant() -> None:
    assert not Words()("You asshole", "output").allowed
    assert Words()("You assistant", "output").allowed


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(UserError, match="empty"):
        Words([" "])


def test_personal_data_by_kind() -> None:
    verdict = Personal()(MAIL, "output")
    assert verdict == Verdict(False, "an e-mail address")
    assert "anna" not in verdict.why
    assert Personal(["phone"])(MAIL, "output").allowed
    assert Personal()("Write to info@example.com", "output").allowed
    with pytest.raises(UserError, match="called name"):
        Personal(["name"])  # type: ignore[list-item]


def test_a_filter_may_look_at_one_side_alone() -> None:
    assert Words(["x"], at=["output"])("x", "input").allowed
    assert not Words(["x"], at=["output"])("x", "output").allowed
    assert Personal(at=["output"])(MAIL, "input").allowed


def test_together_the_first_that_stops_says_why() -> None:
    def never(text: str, where: Where) -> Verdict:
        return Verdict(where == "input", "not today")

    both: Filter = Together(Words(["x"]), never, Personal())
    assert both("x", "output") == Verdict(False, "a word of the list")
    assert both("y", "output") == Verdict(False, "not today")
    assert both(MAIL, "input") == Verdict(False, "an e-mail address")
    assert both("y", "input") == Verdict(True)
    assert Together()("anything", "input") == Verdict(True)
