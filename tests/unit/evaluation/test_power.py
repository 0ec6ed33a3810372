"""Sample-size advice: numbers by hand, the formula against its own inverse, and simulation."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from tuneloop.evaluation.intervals import Bootstrap
from tuneloop.evaluation.power import advice, rows_for, smallest_difference, smallest_of_error
from tuneloop.grading.metrics import mean_of


def test_by_hand() -> None:
    """(1.959964 * sqrt(.1) + .841621 * sqrt(.1 - .0025))**2 / .0025 = (.619795 + .262797)**2 / .0025 = 311.6."""
    assert rows_for(0.05, 0.1) == 312
    assert smallest_difference(312, 0.1) == pytest.approx(0.05, abs=5e-5)


def test_a_difference_needs_as_much_disagreement() -> None:
    """d = q = .1: (1.959964 * sqrt(.1) + .841621 * sqrt(.09))**2 / .01 = (.619795 + .252486)**2 / .01 = 76.1."""
    assert rows_for(0.1, 0.02) == rows_for(0.1, 0.1) == 77
    assert 0.098 < smallest_difference(77, 0.02) < 0.1


@pytest.mark.parametrize("rows", [20, 77, 400, 5000])
@pytest.mark.parametrize("disagreement", [0.0, 0.01, 0.08, 0.3, 0.5, 1.0])
def test_the_inverse_of_the_rows_needed(rows: int, disagreement: float) -> None:
    found = smallest_difference(rows, disagreement)
    assert rows_for(found, disagreement) <= rows < rows_for(found * 0.98, disagreement)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_too_few_rows_show_nothing(rows: int) -> None:
    assert smallest_difference(rows) == 1.0


@pytest.mark.parametrize("difference", [0.0, 1.5, math.nan])
def test_no_difference_has_no_number_of_rows(difference: float) -> None:
    with pytest.raises(ValueError, match="lies in"):
        rows_for(difference)


def test_sentences() -> None:
    assert advice(400, 0.08) == ("400 rows can only show differences above 4 points "
                                 "(as the models disagree on 8.0% of them; 80% power at 95%).")
    assert advice(400).startswith("400 rows can only show differences above 9.9 points (if the models disagree")
    assert advice(3).startswith("3 rows cannot show any difference")


def test_of_a_standard_error() -> None:
    """Of right and wrong answers it is nearly Connor's: the error of a difference is about sqrt(q / n)."""
    assert smallest_of_error(math.sqrt(0.2 / 1000)) == pytest.approx(smallest_difference(1000, 0.2), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "disagreement"), [(150, 0.2), (400, 0.08), (400, 0.3), (1000, 0.1)])
def test_four_in_five_are_found(rows: int, disagreement: float) -> None:
    """By the intervals that certificates use, which know nothing of the formula."""
    d = smallest_difference(rows, disagreement)

    @cache
    def shown(won: int, lost: int) -> bool:
        scores = np.array([1.0] * won + [-1.0] * lost + [0.0] * (rows - won - lost))
        [measured] = Bootstrap(rows, 1000, won * 1000 + lost).measure([mean_of(scores)])
        return measured.interval((-1.0, 1.0)).low > 0

    shares = [(disagreement + d) / 2, (disagreement - d) / 2, 1 - disagreement]
    drawn = np.random.default_rng(0).multinomial(rows, shares, size=2000)
    assert np.mean([shown(won, lost) for won, lost, _ in drawn.tolist()]) == pytest.approx(0.8, abs=0.06)
