"""When answers are labels."""

from __future__ import annotations

import pytest

from tuneloop.data.labels.counts import MOST_SPELLINGS, LabelCounts, label_of
from tuneloop.data.template import are_labels
from tuneloop.types import Conversation, Message, Origin, Sample, Text, ToolCall

AT = Origin("rows.csv", 1)


def counted(*answers: str | None) -> LabelCounts:
    counts = LabelCounts()
    counts.add(answers)
    return counts


@pytest.mark.parametrize("answers", [
    ["yes", "no"] * 5, ["yes", "no"] * 4, ["a"] * 20, ["a", "b", "c"] * 5, [f"answer {i}" for i in range(50)],
    ["a" * 81, "b"] * 10, ["a\nb", "c"] * 10, [str(i) for i in range(100)] * 5, [str(i) for i in range(101)] * 5])
def test_the_same_as_the_rule_for_whole_files_where_nothing_is_odd(answers: list[str]) -> None:
    assert counted(*answers).are_labels == are_labels(answers)


def test_spellings_count_as_one_label_and_a_few_odd_answers_do_not_matter() -> None:
    few = counted(*["yes", "no"] * 4, "Yes", "Yes", "no.", "no.", "a whole sentence that says why it is so and so")
    assert few.are_labels                           # 4 spellings of 2 labels in 13 rows, and one odd answer
    assert few.labels == {"yes": 6, "no": 6}
    assert not counted(*["yes", "no"] * 6, "one", "two").are_labels        # two odd answers are more than one in ten


def test_rows_that_cannot_be_labelled_count_as_rows() -> None:
    assert not counted(*["yes", "no"] * 6, None, None).are_labels


def test_many_different_answers_are_forgotten() -> None:
    counts = LabelCounts()
    assert counts.add(map(str, range(MOST_SPELLINGS)))
    assert not counts.add(["another"])
    assert not counts.counts
    assert not counts.add(["yes", "no"] * 10_000)
    assert not counts.are_labels


@pytest.mark.parametrize(("row", "label"), [
    (Conversation((Message("user", "Q"), Message("assistant", " yes ")), AT), "yes"),
    (Conversation((Message("user", "Q"), Message("assistant", "A"), Message("user", "Q"), Message("assistant", "B")),
                  AT), None),
    (Conversation((Message("user", "Q"), Message("assistant", "A", train=False), Message("user", "Q"),
                   Message("assistant", "B")), AT), "B"),
    (Conversation((Message("user", "Q"), Message("assistant", "", calls=(ToolCall("f", "{}"),))), AT), None),
    (Text("yes", AT), None)])
def test_the_label_of_a_row(row: Sample, label: str | None) -> None:
    assert label_of(row) == label
