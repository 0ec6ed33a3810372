"""Rows that are too much alike."""

from __future__ import annotations

import random

from checked_rows import found, qa, texts, user

from tuneloop.data.checks.diversity import Check
from tuneloop.types import Preference, Sample

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def sentence(draw: random.Random) -> str:
    return " ".join("".join(draw.choices(LETTERS, k=6)) for _ in range(8))


def varied(count: int = 120, start: str = "", of: int = 0) -> list[Sample]:
    """Rows of random words; the answers of the first `of` begin with `start`."""
    draw = random.Random(0)
    return [qa(sentence(draw), (start if line <= of else "") + sentence(draw), line) for line in range(1, count + 1)]


def test_varied_rows_are_no_finding() -> None:
    check = Check()
    assert found(check, varied()) == {}
    facts = check.facts()["diversity"]
    assert facts["prompts"]["different"] == 1
    assert facts["prompts"]["distinct_2"] == 1
    assert facts["answers"]["compression"] < 2


def test_answers_that_begin_alike() -> None:
    check = Check()
    seen = found(check, varied(start="I am very sorry ", of=30))
    assert list(seen) == ["answers_begin_alike"]
    assert seen["answers_begin_alike"].what == ("25% of the answers begin with “i am very sorry”: a model will begin "
                                                "its answers so")
    assert check.facts()["diversity"]["answers"]["openings"]["i am very sorry"] == 30
    assert found(Check(), varied(start="I am very sorry ", of=20)) == {}


def test_prompts_that_are_asked_again_and_again() -> None:
    draw = random.Random(1)
    rows = [qa(f"{sentence(random.Random(line % 60))}", sentence(draw), line) for line in range(120)]
    seen = found(Check(), rows)
    assert seen["prompts_repeated"].what == "Only 50% of the prompts are different from each other"


def test_a_prompt_with_several_judged_answers_is_no_repetition() -> None:
    draw = random.Random(1)
    rows: list[Sample] = [Preference((user(sentence(random.Random(line % 30))),), sentence(draw), sentence(draw),
                                     qa("", "", line).origin) for line in range(120)]
    assert "prompts_repeated" not in found(Check(), rows)


def test_texts_that_repeat_each_other() -> None:
    draw = random.Random(0)
    said = [f"Dear customer, your parcel number {draw.randrange(10**6)} is on its way to you, and we thank you for "
            "your patience." for _ in range(120)]
    seen = found(Check(), [qa(row.prompt[0].content, text, line) for line, (row, text) in
                           enumerate(zip(varied(), said, strict=True), 1)])
    assert "answers_repeat" in seen
    assert "prompts_repeat" not in seen


def test_labels_are_not_told_to_be_alike() -> None:
    rows = [qa(row.prompt[0].content, ["yes", "no"][line % 2], line) for line, row in enumerate(varied())]
    check = Check()
    assert found(check, rows) == {}
    assert "answers" not in check.facts()["diversity"]


def test_plain_texts_are_told_as_texts() -> None:
    check = Check()
    draw = random.Random(0)
    told = [f"Once upon a time {sentence(draw)}" for _ in range(120)]
    assert list(found(check, texts(*told))) == ["texts_begin_alike"]
    assert list(check.facts()["diversity"]) == ["texts"]


def test_few_rows_say_nothing() -> None:
    check = Check()
    assert found(check, varied(50, "I am very sorry ", 50)) == {}
    assert Check().facts() == {}
