"""One phrase over and over, answers that give the question back, a lone number."""

from __future__ import annotations

import random

import pytest
from checked_rows import answers, found, lines, qa, texts

from tuneloop.data.checks._repetition import Repeated, repetition
from tuneloop.data.checks.degenerate import Check

PROSE = ("It was late when the train came in, and nobody had thought of lighting the lamps. Two men stood by the gate; "
         "one of them counted parcels, the other looked at the rain. ")


@pytest.mark.parametrize(("text", "phrase", "times"), [
    ("Eat a banana!" * 2000, "Eat a banana!", 2000),
    (PROSE + "ha " * 300, "ha ", 300),
    ("130." + "0" * 1016, "0", 1016),
    ("好的。" * 40, "好的。", 40),
    ("Germany, Austria, U.S.A., " * 12, "Germany, Austria, U.S.A., ", 12),
])
def test_a_phrase_is_told_with_its_count(text: str, phrase: str, times: int) -> None:
    found = repetition(text)
    assert found is not None
    assert (found.times, sorted(found.phrase)) == (times, sorted(phrase))      # it may begin in the midst of the phrase


def test_texts_alike_but_for_their_numbers() -> None:
    listed = "\n".join(f"Access all records of 213-484-{number} now!" for number in range(480, 500))
    assert repetition(listed) == Repeated("Access all records of", 0)


@pytest.mark.parametrize("text", [
    PROSE * 3, "-" * 500, "| a | b |\n" + "| --- | --- |\n" * 30, " " * 300, "no " * 9, PROSE + "-" * 100,
    " ".join(random.Random(0).choices(PROSE.split(), k=400))])
def test_what_repeats_itself_and_is_fine(text: str) -> None:
    assert repetition(text) is None


def test_rows_are_named_with_the_phrase() -> None:
    seen = found(Check(), answers("fine", "Eat a banana!" * 2000))["repetition"]
    assert (lines(seen), seen.severity, list(seen.examples)) == ([2], "fix", ["“Eat a banana!” 2,000 times"])
    assert lines(found(Check(), [qa("Buy now! " * 50, "No.")])["repetition"]) == [1]


def test_an_answer_that_is_the_question() -> None:
    assert lines(found(Check(), [qa("What is it?", " What is  it? "), qa("What?", "That.", 2)])["echo"]) == [1]


def test_a_lone_number_or_link_among_sentences_and_not_among_its_like() -> None:
    prose = [f"It is number {i}, of course." for i in range(40)]
    seen = found(Check(), answers(*prose, "0.5", "https://x.org/a"))
    assert (lines(seen["number"]), lines(seen["link"])) == ([41], [42])
    assert found(Check(), answers(*map(str, range(40)))) == {}
    assert found(Check(), texts(*prose, "5")) == {}
