"""Rows with a label that is likely wrong."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from typing import Any

import pytest
from checked_rows import answers, found, lines, qa

from tuneloop.data.checks.mislabelled import Check
from tuneloop.types import Origin, Sample

KITCHEN = ["apple", "pear", "plum", "soup", "bread", "salt", "spoon", "plate", "oven", "kettle"]
WORKSHOP = ["hammer", "nail", "saw", "drill", "board", "screw", "glue", "clamp", "plane", "rasp"]


def rows(wrong: tuple[int, ...] = (), count: int = 200, wrap: str = "{}") -> list[Sample]:
    """Sentences of the words of one of two rooms; the labels on the lines in `wrong` are those of the other."""
    draw = random.Random(0)
    made = []
    for line in range(1, count + 1):
        right, words = ("kitchen", KITCHEN) if line % 2 else ("workshop", WORKSHOP)
        label = {"kitchen": "workshop", "workshop": "kitchen"}[right] if line in wrong else right
        made.append(qa(wrap.format(" ".join(draw.choices(words, k=6))), label, line))
    return made


def test_wrong_labels_are_named_the_most_doubtful_first() -> None:
    pytest.importorskip("sklearn")
    check = Check()
    seen = found(check, rows(wrong=(7, 60, 61)))
    assert sorted(lines(seen["likely_wrong"])) == [7, 60, 61]
    assert seen["likely_wrong"].severity == "note"
    assert seen["likely_wrong"].what == "3 rows have a label that is likely wrong"
    facts = check.facts()["mislabelled"]
    assert (facts["rows"], facts["labels"]) == (200, 2)
    assert facts["agrees"] == pytest.approx(0.985, abs=0.001)
    told = {row["line"]: (row["label"], row["likely"]) for row in facts["rows_with_likely_label"]}
    assert told == {7: ("workshop", "kitchen"), 60: ("kitchen", "workshop"), 61: ("workshop", "kitchen")}


def test_a_doubtful_row_is_told_with_its_file_where_there_are_several() -> None:
    pytest.importorskip("sklearn")
    both = [replace(row, origin=Origin("test.jsonl" if row.origin.line == 60 else "rows.jsonl", row.origin.line))
            for row in rows(wrong=(7, 60))]
    assert {example.split(":")[0] for example in found(Check(), both)["likely_wrong"].examples} == {
        "rows.jsonl line 7", "test.jsonl line 60"}
    assert {example.split(":")[0] for example in found(Check(), rows(wrong=(7, 60)))["likely_wrong"].examples} == {
        "line 7", "line 60"}


def test_many_wrong_labels_are_to_be_mended_first() -> None:
    pytest.importorskip("sklearn")
    seen = found(Check(), rows(wrong=tuple(range(3, 200, 19))))
    assert set(lines(seen["likely_wrong"])) < set(range(3, 200, 19))        # as many as the model is sure of
    assert len(lines(seen["likely_wrong"])) >= 7
    assert seen["likely_wrong"].severity == "fix"


def test_right_labels_and_what_prompts_are_wrapped_in_are_no_finding() -> None:
    pytest.importorskip("sklearn")
    assert found(Check(), rows()) == {}
    wrapped = rows(wrong=(7,), wrap="Which room is this about, the kitchen or the workshop?" + " Think." * 200 + "\n{}")
    assert lines(found(Check(), wrapped)["likely_wrong"]) == [7]


def test_a_model_that_knows_too_little_says_nothing() -> None:
    pytest.importorskip("sklearn")
    draw = random.Random(0)
    check = Check()
    guessed = [qa(" ".join(draw.choices(KITCHEN, k=6)), draw.choice(["yes", "no"]), line) for line in range(1, 301)]
    assert found(check, guessed) == {}
    assert check.facts()["mislabelled"]["agrees"] < 0.7
    rare = [qa(" ".join(draw.choices(KITCHEN, k=6)), "yes" if line % 20 else "no", line) for line in range(1, 301)]
    assert found(Check(), rare) == {}               # to say yes everywhere is right in 95 % and knows nothing


def test_few_rows_and_open_answers_are_not_looked_at() -> None:
    assert found(Check(), rows(count=40)) == {}
    check = Check()
    assert found(check, answers(*(f"answer {number}" for number in range(100)))) == {}
    assert check.facts() == {}


def test_without_scikit_learn_one_note_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    seen = found(Check(), rows())
    assert list(seen) == ["not_installed"]
    assert (seen["not_installed"].severity, seen["not_installed"].fix) == ("note", "pip install 'tuneloop[eval]'")
    assert found(Check(), answers(*(f"answer {number}" for number in range(100)))) == {}


def test_a_large_set_is_sampled_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    import tuneloop.data.checks.mislabelled as module

    characters: Any = sum(len(row.prompt[0].content) + 1 for row in rows())
    monkeypatch.setattr(module, "LABOUR", characters * (2 + module.READING) // 2)
    seen = found(Check(), rows(wrong=tuple(range(3, 200, 19))))
    assert " among 10" in seen["likely_wrong"].what or " among 9" in seen["likely_wrong"].what
    assert seen["likely_wrong"].what.endswith("that were looked at")
    assert set(lines(seen["likely_wrong"])) < set(range(3, 200, 19))
