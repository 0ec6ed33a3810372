from __future__ import annotations

import math
import time

import numpy as np
import pytest

from tuneloop.evaluation.intervals import Bootstrap, Interval, rows_needed
from tuneloop.grading.metrics import METRICS, mean_of

SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)


def of_mean(scores: list[float], within: tuple[float, float] | None, seed: int = 0, resamples: int = 2000) -> Interval:
    [measured] = Bootstrap(len(scores), resamples, seed).measure([mean_of(np.array(scores))])
    return measured.interval(within)


def test_covers_the_true_share() -> None:
    random = np.random.default_rng(0)
    found = [of_mean((random.random(100) < 0.7).astype(float).tolist(), SHARE, seed, 400) for seed in range(300)]
    assert 0.90 <= np.mean([i.low <= 0.7 <= i.high for i in found]) <= 0.99


def test_about_as_wide_as_the_normal_interval() -> None:
    found = of_mean([1.0] * 280 + [0.0] * 120, SHARE)
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(0.7 * 0.3 / 400), rel=0.08)


def test_equal_rows_follow_the_rule_of_three() -> None:
    assert of_mean([1.0] * 50, SHARE) == Interval(1.0, pytest.approx(1 - 3 / 50), 1.0)
    assert of_mean([0.0] * 50, SHARE) == Interval(0.0, 0.0, pytest.approx(3 / 50))
    assert of_mean([0.0] * 400, DIFFERENCE) == Interval(0.0, pytest.approx(-3 / 400), pytest.approx(3 / 400))


@pytest.mark.parametrize(("gained", "proof"), [(4, False), (5, False), (7, True)])
def test_few_differing_rows_prove_nothing(gained: int, proof: bool) -> None:
    """As the sign test: 2 * 0.5**6 is the first below 5 %. A plain percentile bootstrap would take 4 rows for proof."""
    assert (of_mean([1.0] * gained + [0.0] * (400 - gained), DIFFERENCE).low > 0) is proof


def test_differences_are_paired() -> None:
    base = np.array([1.0] * 60 + [0.0] * 40)
    tuned = np.array([1.0] * 80 + [0.0] * 20)                   # right wherever base is
    before, after = Bootstrap(100).measure([mean_of(base), mean_of(tuned)])
    paired = (after - before).interval(DIFFERENCE)
    assert paired.value == pytest.approx(0.2)
    assert paired.high - paired.low < 2 * 1.96 * math.sqrt((0.6 * 0.4 + 0.8 * 0.2) / 100)     # as if independent
    assert paired.high - paired.low == pytest.approx(2 * 1.96 * math.sqrt(0.2 * 0.8 / 100), rel=0.15)


def test_the_seed_decides() -> None:
    scores = np.random.default_rng(0).random(50).tolist()
    assert of_mean(scores, SHARE, seed=3) == of_mean(scores, SHARE, seed=3)
    assert of_mean(scores, SHARE, seed=3) != of_mean(scores, SHARE, seed=4)


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).random(50).tolist()
    whole = of_mean(scores, SHARE)
    monkeypatch.setattr("tuneloop.evaluation.intervals._CHUNK_BYTES", 5000)
    assert of_mean(scores, SHARE) == whole


def test_fast_enough_for_many_labels() -> None:
    random = np.random.default_rng(0)
    references = [f"label {i}" for i in random.integers(77, size=3000)]
    answers = [r if random.random() < 0.8 else "label 3" for r in references]
    start = time.perf_counter()
    Bootstrap(3000).measure([METRICS[name].statistic(references, answers) for name in ("accuracy", "macro_f1")])
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(("interval", "bound", "more"), [
    (Interval(0.8, 0.7, 0.88), 0.75, 300),          # twice as far as it may be: four times the rows
    (Interval(0.8, 0.7, 0.88), 0.84, 300),
    (Interval(0.8, 0.7, 0.88), 0.5, 0),
    (Interval(0.8, 0.7, 0.88), 0.8, None),
])
def test_rows_needed(interval: Interval, bound: float, more: int | None) -> None:
    assert rows_needed(interval, bound, 100) == (more if more is None else pytest.approx(more, abs=1))
