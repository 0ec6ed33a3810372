"""Outliers in length: by hand."""

from __future__ import annotations

from checked_rows import answers, found, lines, qa

from tuneloop.data.checks.lengths import Check


def test_an_answer_ten_times_as_long_and_one_a_tenth_as_long() -> None:
    check = Check()
    seen = found(check, answers(*["x" * (95 + i % 11) for i in range(66)], "x" * 1500, "x" * 5, "x" * 300, "x" * 30))
    assert (lines(seen["answer_long"]), lines(seen["answer_short"])) == ([67], [68])
    assert seen["answer_long"].what == "1 row has a far longer answer than the others, whose median is 100 characters"
    assert seen["answer_long"].examples == ["1,500 characters"]
    assert check.facts() == {"characters": {"questions": {"median": 2, "longest": 2},
                                            "answers": {"median": 100, "longest": 1500}}}


def test_questions_count_too() -> None:
    assert lines(found(Check(), [*answers(*["ok"] * 60), qa("Q" * 50, "ok", 61)])["prompt_long"]) == [61]


def test_wide_spread_makes_far_farther() -> None:
    spread = [10 ** (1 + i % 4) for i in range(80)]         # 10 to 10,000 characters: nothing is far
    assert found(Check(), answers(*["x" * n for n in spread])) == {}


def test_few_rows_tell_nothing() -> None:
    assert found(Check(), answers(*["x" * 100] * 30, "x" * 9000)) == {}
