"""Rows unlike all others."""

from __future__ import annotations

import math

import pytest
from checked_rows import answers, found, lines, qa, texts

from tuneloop.data.checks.surprising import Check, surprising
from tuneloop.types import Sample


def about_orders(count: int) -> list[Sample]:
    return [qa(f"where is my order number {line} and when will the parcel come", f"your parcel {line} comes on monday",
               line) for line in range(1, count + 1)]


def test_a_row_of_other_words_is_named() -> None:
    rows = [*about_orders(80), qa("zyx qwrtz bglp", "hmm vvv kkk", 81), qa("где мой заказ", "скоро", 82)]
    seen = found(Check(), rows)
    assert sorted(lines(seen["words"])) == [81, 82]
    assert seen["words"].what == "2 rows are unlike all others in their words"
    assert seen["words"].severity == "note"


def test_rows_alike_and_few_rows_are_no_finding() -> None:
    assert found(Check(), about_orders(80)) == {}
    assert found(Check(), [*about_orders(40), qa("zyx qwrtz bglp", "hmm", 41)]) == {}


def test_of_many_rows_a_sample_is_looked_at_and_it_is_said() -> None:
    rows = texts(*(f"alien {number} " + "zyxw"[number // 500] * 9 if number % 250 == 9 else
                   f"the order number {number} came on monday" for number in range(2000)))
    finding = found(Check(), rows)["words"]
    assert finding.what.endswith("among 500 that were looked at")
    assert all(line % 250 == 10 for line in lines(finding))


@pytest.mark.parametrize(("odd", "kind"), [(9.0, "surprising"), (0.1, "expected")])
def test_answers_that_a_model_finds_odd(odd: float, kind: str) -> None:
    rows = answers(*(f"answer {line}" for line in range(1, 61)))
    nll = [2 + 0.1 * (line % 5) for line in range(60)]
    nll[29] = odd
    [finding] = surprising(rows, nll)
    assert (finding.kind, lines(finding), finding.severity) == (kind, [30], "note")
    assert finding.examples == [f"{odd:.1f} nats a token, usual is 2.2: “answer 30”"]
    assert finding.what.endswith("among 60 that were looked at")


def test_numbers_that_are_none_and_few_rows_are_left_out() -> None:
    rows = answers(*(f"answer {line}" for line in range(1, 61)))
    nll = [2 + 0.1 * (line % 5) for line in range(60)]
    nll[3], nll[4], nll[5] = math.nan, math.inf, 9
    [finding] = surprising(rows, nll)
    assert lines(finding) == [6]
    assert surprising(rows[:40], nll[:40]) == []
