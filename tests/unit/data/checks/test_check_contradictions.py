"""Rows that contradict others, by line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from checked_rows import at, found, lines, qa, user

from tuneloop.data.checks.contradictions import Check, plain
from tuneloop.types import Conversation, Media, Message, Preference, Prompt, Rated, Sample, ToolCall


def labelled(*pairs: tuple[str, str]) -> list[Sample]:
    """Rows with labels, after ten that say nothing odd."""
    usual = [(f"question {number}", label) for number in range(5) for label in ("yes", "no")]
    usual = [(f"{prompt} {label}", label) for prompt, label in usual]
    return [qa(prompt, answer, line) for line, (prompt, answer) in enumerate([*usual, *pairs], 1)]


def test_one_prompt_with_two_labels() -> None:
    seen = found(Check(), labelled(("Is it wet?", "yes"), ("Is it dry?", "no"), ("Is it wet?", "no")))
    assert list(seen) == ["labels"]
    assert (seen["labels"].severity, lines(seen["labels"])) == ("fix", [11, 13])
    assert seen["labels"].examples == ["“Is it wet?”: line 11 “yes”, line 13 “no”"]
    assert seen["labels"].what == "2 rows ask what others ask, and have another label"


def test_prompts_that_are_nearly_the_same_are_worth_a_note() -> None:
    seen = found(Check(), labelled(("Is it wet?", "yes"), ("is  it wet", "no")))
    assert list(seen) == ["labels_nearly"]
    assert (seen["labels_nearly"].severity, lines(seen["labels_nearly"])) == ("note", [11, 12])


def test_a_row_near_to_exact_contradictions_is_not_told_twice() -> None:
    seen = found(Check(), labelled(("Is it wet?", "yes"), ("Is it wet?", "no"), ("is it wet", "no")))
    assert {kind: lines(finding) for kind, finding in seen.items()} == {"labels": [11, 12]}


@pytest.mark.parametrize("pairs", [
    (("Is it wet?", "yes"), ("Is it wet?", "Yes ")),            # one label
    (("Is it 3.5?", "yes"), ("Is it 35?", "no")), (("a < b", "yes"), ("a > b", "no")),
    (("I say :)", "yes"), ("I say :(", "no")),
    (("Is it wet?", "yes"), ("Is it wet?", "yes"))])
def test_no_contradiction(pairs: tuple[tuple[str, str], ...]) -> None:
    assert found(Check(), labelled(*pairs)) == {}


def test_open_answers_may_differ() -> None:
    rows = [qa("Tell a joke.", "A horse walks into a bar.", 1), qa("Tell a joke.", "Knock, knock.", 2),
            qa("tell a joke", "Another.", 3)]
    seen = found(Check(), rows)
    assert {kind: (f.severity, lines(f)) for kind, f in seen.items()} == {"answers": ("note", [1, 2])}


def test_what_is_shown_or_offered_belongs_to_the_question() -> None:
    def shown(picture: str, answer: str, line: int) -> Conversation:
        return Conversation((Message("user", "What is it?", media=(Media("image", picture),)),
                             Message("assistant", answer)), at(line))

    assert found(Check(), [shown("a.png", "a cat", 1), shown("b.png", "a dog", 2)]) == {}
    assert lines(found(Check(), [shown("a.png", "a cat", 1), shown("a.png", "a dog", 2)])["answers"]) == [1, 2]
    asked = qa("Add.", "3", 1)
    assert found(Check(), [asked, replace(qa("Add.", "4", 2), tools=('{"name": "add"}',))]) == {}


def test_calls_are_a_part_of_the_answer() -> None:
    def called(arguments: str, line: int) -> Conversation:
        return Conversation((user("Add."), Message("assistant", "", calls=(ToolCall("add", arguments),))), at(line))

    assert lines(found(Check(), [called("[1]", 1), called("[2]", 2)])["answers"]) == [1, 2]
    assert found(Check(), [called("[1]", 1), called("[1]", 2)]) == {}


def test_judgements_that_are_turned_round() -> None:
    asked = (user("Q"),)
    rows: list[Sample] = [Preference(asked, "a", "b", at(1)), Preference(asked, "b", "a", at(2)),
                          Preference(asked, "a", "c", at(3)), Rated(asked, "a", True, at(4)),
                          Rated(asked, "a", False, at(5)), Rated(asked, "b", False, at(6))]
    seen = found(Check(), rows)
    assert (seen["judgements"].severity, lines(seen["judgements"])) == ("fix", [1, 2, 4, 5])


def test_evaluation_samples_with_other_right_answers() -> None:
    rows: list[Sample] = [Prompt((user("1+1"),), ("2",), at(1)), Prompt((user("1+1"),), ("3",), at(2)),
                          Prompt((user("1+1"),), (), at(3))]
    assert lines(found(Check(), rows)["answers"]) == [1, 2]
    assert found(Check(), rows, part="evaluation") == {}


def test_prompts_without_what_people_do_not_look_at() -> None:
    assert plain('"Is it  Wet", he asked.') == "is it wet he asked"
    assert plain("Is 3.5 > 3,000? e.g. x:y") == "is 3.5 > 3,000 e.g x:y"
