"""Agreement, by the published example, by hand, and against scikit-learn."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.labels.agreement import (
    Level,
    cohen_kappa,
    krippendorff_alpha,
    pairs,
    share_that_agrees,
    with_the_others,
)
from tuneloop.types import Ints

# Krippendorff 2011, section C: four observers, twelve units, a point where an observer said nothing.
MATRIX = [
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
]


def ratings(rows: list[str]) -> tuple[Ints, Ints, Ints]:
    """Items, annotators and values of a matrix with a line for each annotator."""
    flat = [(item, who, int(value)) for who, row in enumerate(rows) for item, value in enumerate(row.split())
            if value != "."]
    items, people, values = np.array(flat).T
    return items, people, values


def by_definition(items: Ints, values: Ints, level: Level) -> float:
    """Alpha from every pair of values, as it is defined: 1 - (n - 1) sum of observed over sum of expected."""
    units = [values[items == item].tolist() for item in np.unique(items)]
    units = [unit for unit in units if len(unit) > 1]
    flat = [value for unit in units for value in unit]
    count = {value: flat.count(value) for value in set(flat)}

    def distance(c: int, k: int) -> float:
        if level == "nominal":
            return float(c != k)
        if level == "interval":
            return float((c - k) ** 2)
        between = sum(count[g] for g in count if min(c, k) <= g <= max(c, k))
        return (between - (count[c] + count[k]) / 2) ** 2

    observed = sum(distance(c, k) / (len(unit) - 1) for unit in units for c, k in permutations(unit, 2))
    expected = sum(distance(c, k) for c, k in permutations(flat, 2)) / (len(flat) - 1)
    return 1 - observed / expected


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_the_published_example(level: Level, alpha: float) -> None:
    items, _, values = ratings(MATRIX)
    assert krippendorff_alpha(items, values, level) == pytest.approx(alpha, abs=5e-4)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=2, max_size=30))
def test_alpha_is_what_its_definition_gives(rated: list[tuple[int, int]]) -> None:
    items, values = np.array(rated).T
    paired = [value for item, value in rated if sum(other == item for other, _ in rated) > 1]
    for level in ("nominal", "ordinal", "interval"):
        alpha = krippendorff_alpha(items, values, level)
        if len(set(paired)) < 2:
            assert math.isnan(alpha)
        else:
            assert alpha == pytest.approx(by_definition(items, values, level))


def test_full_agreement_is_1_and_none_beyond_chance_is_near_0() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 2000)
    items = np.repeat(np.arange(2000), 2)
    assert krippendorff_alpha(items, np.repeat(truth, 2)) == 1
    assert krippendorff_alpha(items, rng.integers(0, 3, 4000)) == pytest.approx(0, abs=0.05)


def test_the_share_that_agrees() -> None:
    # item 0: 1 of 1 pair; item 1: 1 of 3 pairs; item 2 was rated once. Weighted by ratings: (2 * 1 + 3 * 1/3) / 5
    assert share_that_agrees(np.array([0, 0, 1, 1, 1, 2]), np.array([4, 4, 4, 4, 5, 5])) == pytest.approx(0.6)


def test_kappa_by_hand() -> None:
    # Cohen 1960: observed 35 of 50, by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5; kappa 0.4
    first = np.array([1] * 20 + [1] * 5 + [0] * 10 + [0] * 15)
    second = np.array([1] * 20 + [0] * 5 + [1] * 10 + [0] * 15)
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert math.isnan(cohen_kappa(np.array([1, 1]), np.array([1, 1])))
    assert math.isnan(cohen_kappa(np.array([], np.int64), np.array([], np.int64)))


@settings(deadline=None)        # the first import takes long
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_kappa_is_that_of_scikit_learn(rated: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = np.array(rated).T
    kappa = cohen_kappa(first, second)
    if len(set(first) | set(second)) > 1:
        assert kappa == pytest.approx(metrics.cohen_kappa_score(first, second))


def test_pairs_share_only_the_items_that_both_rated() -> None:
    items, people, values = ratings(["1 2 . 1", "1 1 2 .", ". . 2 ."])
    told = [(pair.first, pair.second, pair.items, pair.same) for pair in pairs(items, people, values)]
    assert told == [(0, 1, 2, 0.5), (1, 2, 1, 1)]


def test_each_annotator_with_the_majority_of_the_others() -> None:
    # item 0: for the first the others say 1 and 2, a tie; for the third they say 1 twice. Item 2 has nobody else
    items, people, values = ratings(["1 3 4", "1 3 .", "2 3 ."])
    assert with_the_others(items, people, values) == {0: (1, 1), 1: (1, 1), 2: (2, 1)}


def test_a_tie_that_an_annotator_is_part_of_decides_nothing() -> None:
    items, people, values = ratings(["1", "1", "2", "2", "3"])
    # of the others of the first one says 1 and two say 2; of the others of the last two say 1, two 2 and none 3
    assert with_the_others(items, people, values) == {0: (1, 0), 1: (1, 0), 2: (1, 0), 3: (1, 0), 4: (1, 0)}
    items, people, values = ratings(["1", "1", "2"])
    assert with_the_others(items, people, values) == {0: (0, 0), 1: (0, 0), 2: (1, 0)}
