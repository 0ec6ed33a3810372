"""Checkers of instructions: each one on a right and on a wrong answer."""

from __future__ import annotations

from typing import Any

import pytest

from scripted import Scripted
from tuneloop.evaluation.suites.instructions import CHECKS, Instructions, grader
from tuneloop.evaluation.suites.items import rows

PAIRS: list[tuple[str, dict[str, Any], str, str]] = [
    ("starts_with", {"text": "Because"}, "Because it rains.", "It rains because."),
    ("ends_with", {"text": "moon"}, "I like the *Moon*.", "Moon is nice."),
    ("ends_with", {"text": "moon"}, "A moon!", "A honeymoon"),
    ("bullets", {"n": 2}, "Here:\n- a\n- b", "- a\n- b\n- c"),
    ("only_bullets", {}, "- a\n\n- b", "Here:\n- a"),
    ("numbered", {"n": 2}, "1. a\n2. b", "1. a\n3. b"),
    ("numbered", {"n": 2}, "1) a\n2) b", "1. a\n2. b\n3. c"),
    ("separated", {"n": 3, "text": ";"}, "a; b; c", "a, b, c"),
    ("separated", {"n": 3, "text": "/"}, "a / b / c.", "a / b /\nc"),
    ("without", {"text": ","}, "a b", "a, b"),
    ("without_word", {"text": "the"}, "There they go", "In The end"),
    ("without_digits", {}, "two", "2"),
    ("count", {"text": "!", "n": 2}, "a! b!", "a!"),
    ("count_word", {"text": "blue", "n": 1}, "Blue blues", "blue and blue"),
    ("least_word", {"text": "light", "n": 2}, "Light, light.", "lightness light"),
    ("includes", {"words": ["a cat", "sun"]}, "A cat in the sun", "A cat in the sunshine"),
    ("quoted", {}, '"yes"', 'He said "yes"'),
    ("upper", {}, "STOP 2!", "Stop"),
    ("lower", {}, "go on.", "Go on."),
    ("title_case", {}, "Snow Falls On Us", "Snow falls On Us"),
    ("json_object", {"words": ["a", "b"]}, '{"b": 1, "a": []}', '{"a": 1}'),
    ("json_object", {"words": ["a"]}, '{"a": 1}', 'Sure: {"a": 1}'),
    ("json_list", {"n": 2}, "[1, 2]", "[1, 2, 3]"),
    ("sentences", {"n": 2}, 'He said "no." Then 3.5 went!', "One. Two. Three."),
    ("sentences", {"n": 1}, "Without a stop", "One? Two."),
    ("at_most", {"n": 2}, "two words", "these three words"),
    ("at_least", {"n": 3}, "these three words", "two words"),
    ("exactly", {"n": 2}, "I can't.", "I can not."),
    ("paragraphs", {"n": 2}, "a\nb\n\nc", "a\nb"),
    ("lines", {"n": 2}, "a\nb", "a\n\nb"),
    ("choice", {"words": ["yes", "no"]}, "Yes.", "Yes, it is."),
    ("digits", {}, "42.", "forty-two"),
    ("language", {"text": "fr"}, "Le chat est dans la maison.", "The cat is in the house."),
    ("language", {"text": "it"}, "Il gatto non è con la donna.", "El gato no está con la mujer y el perro."),
    ("title", {}, "<<Sun>>\nIt shines.", "<<Sun>>"),
    ("heading", {}, "# Sun\n\nIt shines.", "## Sun\nIt shines."),
    ("first_line", {"text": "Dear Sam,"}, "Dear Sam,\nhello", "Hello Dear Sam,"),
    ("last_line", {"text": "Yours"}, "hello\nYours", "Yours\nhello"),
    ("bold", {}, "a **very big** dog", "a ** big ** dog"),
    ("postscript", {}, "Bye.\nP.S. Hi", "P.S. Hi"),
]


@pytest.mark.parametrize(("kind", "given", "right", "wrong"), PAIRS)
def test_a_check_tells_right_from_wrong(kind: str, given: dict[str, Any], right: str, wrong: str) -> None:
    assert CHECKS[kind](right, **given)
    assert not CHECKS[kind](wrong, **given)


def test_every_check_is_proven_and_used() -> None:
    assert {kind for kind, *_ in PAIRS} == set(CHECKS)
    assert {check["kind"] for row in rows("instructions") for check in row["checks"]} == set(CHECKS)


@pytest.mark.parametrize("row", rows("instructions"), ids=lambda row: row["id"])
def test_every_instruction_can_be_followed_and_missed(row: dict[str, Any]) -> None:
    grade = grader(row["checks"])
    assert grade(row["right"]) == (1.0, "")
    assert grade(" \n ") == (0.0, "empty")
    assert grade("Sure, here are 2 things: the egg of music!\nZero!? Ok. And so on, so on; the, 3 ends? Nice.")[0] == 0


def test_all_that_was_asked_for_must_be_fulfilled() -> None:
    grade = grader([{"kind": "upper"}, {"kind": "at_most", "n": 2}])
    assert grade("STOP NOW") == (1.0, "")
    assert grade("STOP RIGHT NOW") == (0.0, "failed: at_most")
    assert grade("Stop right now") == (0.0, "failed: upper, at_most")


def test_who_follows_everything_scores_one() -> None:
    told = {row["prompt"]: row["right"] for row in rows("instructions")}
    graded = Instructions().run(Scripted(told.__getitem__))
    assert len(graded) == len(told)
    assert {item.score for item in graded} == {1.0}
    assert {item.score for item in Instructions().run(Scripted())} == {0.0}
