"""Toxic words, however they are dressed up, and harmless words that hold them."""

from __future__ import annotations

import pytest
from checked_rows import answers, at, found, lines, qa

from tuneloop.data.checks._toxic import toxic_words
from tuneloop.data.checks.toxicity import Check
from tuneloop.types import Message, Preference


@pytest.mark.parametrize("text", ["oh shit", "SHIT!", "sh1t", "$hit", "sh!t", "sh*t happens", "s.h.i.t", "s h i t",
                                  "shiiiit", "shitttt", "du Arschloch", "какая пизда"])
def test_disguises(text: str) -> None:
    assert list(toxic_words(text))


@pytest.mark.parametrize("text", ["Scunthorpe", "shiitake", "class assassin", "**bold** text", "a*b*c", "x**2 + y**2",
                                  "s*** happens", "a b c d e", "password1", "#hashtag", "en retard", "W00t", "aaaaah"])
def test_harmless(text: str) -> None:
    assert not list(toxic_words(text))


def test_questions_and_answers_are_told_apart_and_words_masked() -> None:
    seen = found(Check(), [qa("what the shit", "Well.", 1), qa("Q", "Shit!", 2)])
    assert {kind: lines(finding) for kind, finding in seen.items()} == {"answer": [2], "prompt": [1]}
    assert list(seen["answer"].examples) == ["s**t"]


def test_the_worse_answer_of_a_pair_may_be_toxic() -> None:
    assert found(Check(), [Preference((Message("user", "Q"),), "Fine.", "shit", at(1))]) == {}
    assert found(Check(), answers("fine")) == {}
