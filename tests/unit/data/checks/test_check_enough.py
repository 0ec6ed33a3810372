"""Enough rows: to learn from, of every label, for the test."""

from __future__ import annotations

import pytest
from part_rows import found_by, lines, rows

from tuneloop.data.checks.enough import Check, half_width
from tuneloop.types import Origin, Prompt, Text


def open_rows(count: int, file: str = "train.csv") -> list:
    return rows(file, *((f"Q{number}", f"answer {number}") for number in range(count)))


def labelled(file: str, **counts: int) -> list:
    return rows(file, *((f"{file} {label} {number}", label) for label, count in counts.items()
                        for number in range(count)))


def test_the_width_of_wilsons_interval() -> None:
    # Newcombe 1998, table I: 81 of 263, interval 0.2553 to 0.3662
    assert half_width(263, 81 / 263) == pytest.approx((0.3662 - 0.2553) / 2, abs=1e-4)
    # and 15 of 148: 0.0624 to 0.1605
    assert half_width(148, 15 / 148) == pytest.approx((0.1605 - 0.0624) / 2, abs=1e-4)


@pytest.mark.parametrize(("count", "severity"), [
    (1, "blocks"), (9, "blocks"), (10, "fix"), (49, "fix"), (50, "note"), (499, "note"), (500, None), (20_000, None)])
def test_rows_to_learn_from(count: int, severity: str | None) -> None:
    found = [finding for finding in found_by(Check(), train=open_rows(count)) if finding.kind == "train"]
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_what_the_test_will_show_is_said_where_it_is_split_off() -> None:
    [finding] = found_by(Check(), train=open_rows(100))
    assert finding.what.endswith("and 20 of them, held out for the test, would show a score to ±17 points")
    few = found_by(Check(), train=open_rows(100), test=open_rows(400, "test.csv"))
    assert ["±" in finding.what for finding in few] == [False]


@pytest.mark.parametrize(("count", "severity", "points"), [(30, "fix", 14), (100, "note", 8), (400, None, 0)])
def test_test_rows(count: int, severity: str | None, points: int) -> None:
    check = Check()
    found = [f for f in found_by(check, train=open_rows(600), test=open_rows(count, "test.csv")) if f.kind == "test"]
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert all(f"{count} test rows show a score of 80% to ±{points} points" in finding.what for finding in found)
    assert check.facts()["enough"]["test_rows"] == count


def test_facts_without_a_test_file_are_of_the_fifth_that_is_held_out() -> None:
    check = Check()
    found_by(check, train=open_rows(1000))
    assert check.facts() == {"enough": {"rows": {"train": 1000}, "test_rows": 200, "half_width_at_80_percent": 0.055}}


def test_rare_labels_are_named_by_line() -> None:
    found = {f.kind: f for f in found_by(Check(), train=labelled("train.csv", yes=400, no=300, maybe=9))}
    assert (found["rare_labels"].severity, lines(found["rare_labels"])) == ("fix", list(range(701, 710)))
    assert found["rare_labels"].what == "1 label has fewer than 10 rows to learn from"
    assert found["rare_labels"].examples == ["“maybe”: 9"]


def test_spellings_of_a_label_count_together() -> None:
    several = labelled("train.csv", yes=400, no=300, Yes=5)
    assert found_by(Check(), train=several) == []


def test_labels_of_one_part_alone() -> None:
    found = {f.kind: f for f in found_by(Check(), train=labelled("train.csv", yes=400, no=300, maybe=20),
                                         validation=labelled("validation.csv", yes=20, perhaps=2),
                                         test=labelled("test.csv", yes=200, no=190, never=3))}
    assert sorted(found) == ["unseen_in_test", "unseen_in_validation", "untested"]
    assert str(found["unseen_in_test"].places) == "test.csv line 391, 392, 393"
    assert str(found["unseen_in_validation"].places) == "validation.csv line 21, 22"
    assert found["unseen_in_test"].severity == "fix"
    assert (found["untested"].examples, found["untested"].severity) == (["maybe"], "note")


def test_plain_text_and_bare_prompts_are_no_rows_to_count() -> None:
    check = Check()
    assert found_by(check, train=[Text("a", Origin("a.txt", 1)), Prompt((), (), Origin("b.csv", 1))]) == []
    assert check.facts() == {"enough": {"rows": {}}}
