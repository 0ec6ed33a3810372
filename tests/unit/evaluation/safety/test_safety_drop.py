"""Before against after: by hand, and whether the interval of the largest drop keeps its word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import nan

import numpy as np
import pytest

from tuneloop.evaluation.intervals import Bootstrap
from tuneloop.evaluation.safety.drop import safety
from tuneloop.evaluation.suites.base import Graded
from tuneloop.grading.metrics import mean_of


def items(*scores: float) -> list[Graded]:
    return [Graded(str(i), "all", float(score), "") for i, score in enumerate(scores)]


def test_the_drop_of_a_suite_by_hand() -> None:
    found = safety({"harmful": items(1, 1, 1, 0)}, {"harmful": items(1, 0, 0, 0)})
    [shift] = found.shifts
    assert shift.before is not None
    assert shift.after is not None
    assert shift.drop is not None
    assert (shift.rows, shift.before.value, shift.after.value, shift.drop.value) == (4, 0.75, 0.25, 0.5)
    assert found.worst == "harmful"
    assert found.drop is not None
    assert found.drop.value == 0.5
    assert found.drop.low <= shift.drop.low
    assert found.drop.high == shift.drop.high


def test_intervals_are_paired_on_the_items_graded_both_times() -> None:
    before, after = [1, nan, 1, 0, 1, 1, 0, 1], [0, 1, 1, 1, nan, 1, 0, 0]
    [shift] = safety({"x": items(*before)}, {"x": items(*after)}, seed=5).shifts
    assert (shift.rows, shift.ungraded_before, shift.ungraded_after) == (6, 1, 1)
    one, other = np.array([1, 1, 0, 1, 0, 1.0]), np.array([0, 1, 1, 1, 0, 0.0])
    first, second = Bootstrap(6, 2000, 5).measure([mean_of(one), mean_of(other)])
    assert shift.drop == (first - second).interval((-1, 1))


def test_items_are_matched_by_id_and_must_be_the_same() -> None:
    first, second = items(1, 0, 1), items(1, 0, 1)
    found = safety({"x": first}, {"x": second[::-1]})
    assert found.drop is not None
    assert found.drop.value == 0
    with pytest.raises(ValueError, match="not the same"):
        safety({"x": first}, {"x": second[:2]})
    with pytest.raises(ValueError, match="not the same"):
        safety({"x": [*first, first[0]]}, {"x": [*second, second[0]]})
    with pytest.raises(ValueError, match="suites before"):
        safety({"x": first}, {"y": second})


def test_a_suite_that_nobody_could_grade_is_counted_and_left_out() -> None:
    found = safety({"a": items(nan, 1), "b": items(1, 1)}, {"a": items(1, nan), "b": items(1, 0)})
    assert found.worst == "b"
    assert found.shifts[0].drop is None
    assert (found.shifts[0].rows, found.shifts[0].ungraded_before, found.shifts[0].ungraded_after) == (0, 1, 1)
    json.dumps(found.to_json(), allow_nan=False)
    nothing = safety({"a": items(nan)}, {"a": items(nan)})
    assert (nothing.worst, nothing.drop) == ("", None)
    json.dumps(nothing.to_json(), allow_nan=False)


def test_what_is_better_than_neutral_is_no_better() -> None:
    """From 30 % to 50 % stereotypes preferred is no drop; from 50 % to 70 % is one of 0.2."""
    anti, even, biased = ([1.0] * share + [0.0] * (10 - share) for share in (7, 5, 3))
    first = safety({"stereotypes": items(*anti)}, {"stereotypes": items(*even)}).drop
    second = safety({"stereotypes": items(*even)}, {"stereotypes": items(*biased)}).drop
    assert first is not None
    assert second is not None
    assert first.value == 0
    assert second.value == pytest.approx(0.2)


def test_the_high_end_is_that_of_the_least_certain_suite() -> None:
    found = safety({"few": items(1, 1, 1, 0), "many": items(*[1] * 90, *[0] * 10)},
                   {"few": items(1, 1, 1, 0), "many": items(*[1] * 80, *[0] * 20)})
    highs = {shift.suite: shift.drop.high for shift in found.shifts if shift.drop}
    assert found.drop is not None
    assert found.worst == "many"
    assert found.drop.high == highs["few"] > highs["many"]


def test_the_low_end_allows_for_having_chosen_the_largest_of_many() -> None:
    """Eight suites that fell alike: the low end is the drop less the 97.5 % quantile of the largest of eight errors."""
    one, other = items(*[1] * 100, *[0] * 100), items(*[1] * 60, *[0] * 140)
    found = safety({str(i): one for i in range(8)}, {str(i): other for i in range(8)}, resamples=20_000)
    random = np.random.default_rng(0)
    errors = random.binomial(200, 0.2, (20_000, 8)).max(axis=1) / 200 - 0.2      # 40 of 200 fell, and none rose
    assert found.drop is not None
    assert found.drop.low == pytest.approx(0.2 - np.quantile(errors, 0.975), abs=0.006)
    assert found.drop.low < max(shift.drop.low for shift in found.shifts if shift.drop)


def test_no_change_at_all_is_bounded_by_the_rule_of_three() -> None:
    found = safety({"x": items(*[1] * 100)}, {"x": items(*[1] * 100)}).drop
    assert found is not None
    assert found.value == 0
    assert found.high == pytest.approx(0.03, abs=0.011)
    assert found.low <= 0


def pair(random: np.random.Generator, rows: int, drop: float) -> tuple[list[Graded], list[Graded]]:
    """Items of which 80 % score 1 before; 15 % change at random either way, and `drop` more of all get worse."""
    before = random.random(rows) < 0.8
    after = np.where(random.random(rows) < 0.15, random.random(rows) < 0.8, before)
    return items(*before), items(*(after & ~(random.random(rows) < drop)))


def simulated(times: int, drops: Sequence[float]) -> list[tuple[float, float]]:
    random = np.random.default_rng(7)
    ends = []
    for seed in range(times):
        pairs = {f"suite {i}": pair(random, 60, drop) for i, drop in enumerate(drops)}
        found = safety({name: one for name, (one, _) in pairs.items()},
                       {name: other for name, (_, other) in pairs.items()}, resamples=400, seed=seed).drop
        assert found is not None
        ends.append((found.low, found.high))
    return ends


@pytest.mark.slow
def test_of_eight_suites_that_did_not_change_the_worst_is_no_proof_of_a_drop() -> None:
    ends = simulated(400, [0.0] * 8)
    assert sum(low > 0 for low, _ in ends) / len(ends) <= 0.025
    assert sum(high < 0 for _, high in ends) / len(ends) <= 0.025


@pytest.mark.slow
def test_the_largest_true_drop_lies_within_the_interval() -> None:
    """Of items that score 1 with 80 %, every `drop` of them falls: 0.8 * 0.3 = 0.24."""
    ends = simulated(400, [0.0, 0.1, 0.3, 0.0])
    assert sum(low <= 0.24 <= high for low, high in ends) / len(ends) >= 0.94
    assert sum(low > 0 for low, _ in ends) / len(ends) > 0.9            # and such a drop is seen
