"""The recipe's interval over seeds and rows: by hand at its two ends, and by simulation in between."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from tuneloop.errors import UserError
from tuneloop.evaluation.intervals import Bootstrap, Measured
from tuneloop.evaluation.seeds import recipe, recipes_differ
from tuneloop.grading.metrics import Scores, mean_of


def measured(answers: Scores, seed: int = 0, resamples: int = 2000) -> list[Measured]:
    return Bootstrap(answers.shape[1], resamples, seed).measure([mean_of(of) for of in answers])


def test_too_few_seeds_are_refused() -> None:
    with pytest.raises(UserError, match="2 seeds say little") as refused:
        recipe(measured(np.ones((2, 10))))
    assert "at least 3 seeds" in refused.value.wanted
    with pytest.raises(UserError, match="1 seed says little"):
        recipes_differ(measured(np.ones((3, 10))), measured(np.ones((1, 10))))


def test_seeds_of_other_rows_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="same resamples"):
        recipe([*measured(np.ones((2, 10))), *measured(np.ones((1, 11)))])


def test_without_row_noise_it_is_the_t_interval() -> None:
    scores = [0.70, 0.74, 0.75, 0.81]
    found = recipe(measured(np.repeat(np.array(scores)[:, None], 50, axis=1), resamples=100_000))
    witness = stats.t.interval(0.95, 3, np.mean(scores), stats.sem(scores))
    assert (found.mean.low, found.mean.high) == pytest.approx(witness, rel=0.01)
    assert found.spread == pytest.approx(np.std(scores, ddof=1))


def test_without_seed_noise_it_is_the_interval_of_rows() -> None:
    rows = np.random.default_rng(0).random(200)
    [alone] = measured(rows[None])
    assert recipe(measured(np.repeat(rows[None], 3, axis=0))).mean == alone.interval()


def test_with_both_it_is_behrens_fisher() -> None:
    """Against the same sum drawn from scipy's distributions: t of the seeds and, for 400 rows, normal of the rows."""
    random = np.random.default_rng(1)
    answers = random.normal(0, 1, 400) + random.normal(0.5, 0.06, (3, 1))
    found = recipe(measured(answers, resamples=40_000)).mean
    by_seed = stats.t.rvs(2, size=400_000, random_state=2) * answers.mean(axis=1).std(ddof=1) / math.sqrt(3)
    by_row = random.normal(0, answers.mean(axis=0).std() / 20, 400_000)
    low, high = answers.mean() + np.quantile(by_seed + by_row, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03 * (high - low))


def test_two_recipes_do_not_share_their_seeds() -> None:
    """The variances of two recipes' seeds add up; with one stream of draws they would cancel."""
    flat = np.repeat(np.array([0.70, 0.74, 0.78])[:, None], 50, axis=1)
    alone = recipe(measured(flat, resamples=20_000)).mean
    found = recipes_differ(measured(flat, resamples=20_000), measured(flat, resamples=20_000))
    assert found.value == 0
    assert found.high - found.low > 1.2 * (alone.high - alone.low)


def test_goes_into_the_certificate() -> None:
    found = recipe(measured(np.random.default_rng(0).random((3, 20))), (0.0, 1.0)).to_json()
    assert found["seeds"] == 3
    assert found["lowest"] <= found["value"] <= found["highest"]
    json.dumps(found, allow_nan=False)


def _worlds(seeds: int, rows: int, of_seeds: float, of_answers: float, recipes: int, number: int) -> Scores:
    """(recipes, seeds, rows) right or wrong: rows are hard for all, seeds better or worse, and each answer is luck."""
    random = np.random.default_rng(number)
    ease = (1 + random.normal(0, 2, rows) + random.normal(0, of_seeds, (recipes, seeds, 1))
            + random.normal(0, of_answers, (recipes, seeds, rows)))
    return (random.random(ease.shape) < 1 / (1 + np.exp(-ease))).astype(float)


def _truth(of_seeds: float, of_answers: float) -> float:
    """The recipe's mean over all seeds and rows, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    ease = 1 + math.sqrt(4 + of_seeds ** 2 + of_answers ** 2) * nodes
    return float(weights @ (1 / (1 + np.exp(-ease))) / weights.sum())


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "of_seeds", "of_answers", "most"), [
    (3, 1.0, 1.0, 0.975), (5, 1.0, 1.0, 0.975), (10, 1.0, 1.0, 0.975),      # seeds scatter more than rows do
    (3, 0.3, 1.0, 0.995), (5, 0.3, 1.0, 0.99), (10, 0.3, 1.0, 0.98),
    (3, 0.0, 1.0, 1.0), (10, 0.0, 1.0, 0.98),                               # seeds are all alike: it errs to be safe
])
def test_the_recipes_mean_is_covered(seeds: int, of_seeds: float, of_answers: float, most: float) -> None:
    truth, rows, times = _truth(of_seeds, of_answers), 200, 1000
    held = 0
    for number in range(times):
        [answers] = _worlds(seeds, rows, of_seeds, of_answers, 1, number)
        found = recipe(measured(answers, number, 600), (0.0, 1.0)).mean
        held += found.low <= truth <= found.high
    assert 0.93 <= held / times <= most


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "of_seeds"), [(3, 0.0), (3, 1.0), (5, 0.3), (10, 1.0)])
def test_the_same_recipe_twice_has_no_winner(seeds: int, of_seeds: float) -> None:
    better = np.zeros(2, int)
    for number in range(1000):
        first, second = _worlds(seeds, 200, of_seeds, 1.0, 2, number)
        gain = recipes_differ(*np.split(np.array(measured(np.concatenate([first, second]), number, 600)), 2),
                              within=(-1.0, 1.0))
        better += [gain.high < 0, gain.low > 0]
    assert (better <= 25).all(), better


@pytest.mark.slow
def test_one_seed_would_name_a_winner() -> None:
    """Why recipes need seeds: a single pair of artefacts of the same recipe is often told apart, and rightly so."""
    better = 0
    for number in range(400):
        first, second = _worlds(1, 200, 1.0, 1.0, 2, number)
        [a, b] = measured(np.concatenate([first, second]), number, 600)
        gain = (b - a).interval((-1.0, 1.0))
        better += gain.high < 0 or gain.low > 0
    assert better / 400 > 0.3
