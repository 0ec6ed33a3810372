"""Lopsided labels, sources and lengths."""

from __future__ import annotations

from typing import Any

from checked_rows import Found, answers, found, qa, texts

from tuneloop.data.checks.balance import Check
from tuneloop.data.checks.base import Chunk
from tuneloop.types import Origin


def with_column(column: str, *values: Any) -> Found:
    rows = [qa(f"Q{line}", f"answer {line}", line) for line in range(1, len(values) + 1)]
    return found(Check(), rows, values=[{column: value} for value in values])


def test_a_label_with_far_more_rows_than_another() -> None:
    seen = found(Check(), answers(*["yes"] * 63, *["no"] * 40, *["maybe"] * 3))
    assert seen["labels"].what == ("The most frequent label, “yes”, has 63 rows, and the rarest, “maybe”, has 3; a "
                                   "model learns the frequent ones best")
    assert (seen["labels"].severity, len(seen["labels"].places)) == ("note", 0)
    assert "balance" not in found(Check(), answers(*["yes"] * 60, *["no"] * 40, *["maybe"] * 3))


def test_nearly_all_rows_have_one_label() -> None:
    seen = found(Check(), answers(*["ham"] * 95, *["spam"] * 5))
    assert seen["labels"].what.startswith("95% of the rows have one label, “ham”")


def test_facts_tell_the_labels_in_their_usual_spelling() -> None:
    check = Check()
    found(check, answers(*["yes"] * 40, *["No"] * 30, *["no"] * 10))
    assert check.facts() == {"balance": {"labels": {"yes": 40, "No": 40}}}


def test_one_answer_for_all_is_nothing_to_learn() -> None:
    seen = found(Check(), answers(*["yes"] * 50))
    assert list(seen) == ["one_answer"]
    assert seen["one_answer"].severity == "fix"


def test_columns_named_like_sources() -> None:
    seen = with_column("source", *["web"] * 97, *["book"] * 3)
    assert seen["source"].fix.endswith("tuneloop data fix FILE balance column=source")
    assert with_column("source", *["web"] * 70, *["book"] * 30) == {}
    assert with_column("note", *["web"] * 97, *["book"] * 3) == {}
    assert with_column("Topic", *range(100)) == {}          # numbers and many values are no topics


def test_the_column_of_the_labels_is_told_once() -> None:
    rows = answers(*["yes"] * 63, *["no"] * 40, *["maybe"] * 3)
    seen = found(Check(), rows, values=[{"category": row.answer} for row in rows])
    assert list(seen) == ["labels"]


def test_files_are_sources() -> None:
    rows = [qa(f"Q{line}", f"answer {line}", line) for line in range(1, 101)]
    origins = [Origin("small.csv" if line > 96 else "large.csv", line) for line in range(1, 101)]
    check = Check()
    check.see(Chunk("train", origins, rows, [{}] * 100))
    [finding] = check.findings()
    assert finding.what.startswith("96% of the rows have one file, “large.csv”")


def test_a_few_long_answers_hold_most_of_the_text() -> None:
    short = [f"number {number:03}" for number in range(95)]         # 10 characters each, 950 in all
    seen = found(Check(), answers(*short, *["x" * 1710] * 5))       # 8,550 of 9,500
    assert seen["lengths"].what.startswith("The longest 5% of the answers hold 90% of all characters")
    assert found(Check(), answers(*(f"answer {number}" for number in range(100)))) == {}
    assert found(Check(), texts(*["short"] * 95, *["x" * 2000] * 5)) == {}


def test_few_rows_say_nothing() -> None:
    assert found(Check(), answers(*["yes"] * 40, *["no"] * 2)) == {}
