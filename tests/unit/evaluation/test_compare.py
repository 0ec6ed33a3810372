"""Permutation p-values and Holm's correction against scipy, numbers by hand, and simulation."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from scipy import stats

from tuneloop.evaluation.compare import (
    Stack,
    compare,
    holm,
    permutation_p,
    stack_of_answers,
    stack_of_perplexity,
    stack_of_scores,
    wins_losses_ties,
)
from tuneloop.grading.metrics import METRICS, Scores, View, mean_of
from tuneloop.types import Answers

REFERENCES = ["a", "b", "a", "b", "c", "a", "b", "c", "a", "b"]
FIRST = ["a", "a", "a", "c", "c", "b", "b", "c", "a", "a"]
SECOND = ["a", "b", "a", "b", "c", "a", "c", "c", "a", "a"]


def p_of_means(first: Scores, second: Scores, **options: int) -> float:
    return permutation_p(mean_of(np.concatenate([first, second])), first != second, **options)


def stack(metric: str, first: list[str] = FIRST, second: list[str] = SECOND) -> Stack:
    return stack_of_answers(METRICS[metric], [View(REFERENCES, Answers("base", first)),
                                              View(REFERENCES, Answers("tuned", second))])


# --- permutation -----------------------------------------------------------------------------------------------------


def test_exact_where_few_rows_differ_as_scipy() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        first, second = random.random((2, 9))
        witness = stats.permutation_test((first, second), lambda x, y: np.mean(y - x), permutation_type="samples",
                                         n_resamples=np.inf).pvalue
        assert p_of_means(first, second) == pytest.approx(witness, abs=1e-12)


def test_at_random_near_scipy() -> None:
    random = np.random.default_rng(1)
    first = random.random(60)
    second = first + random.normal(0.03, 0.1, 60)
    witness = stats.permutation_test((first, second), lambda x, y, axis: np.mean(y - x, axis=axis), vectorized=True,
                                     permutation_type="samples", n_resamples=40_000, rng=random).pvalue
    assert p_of_means(first, second) == pytest.approx(witness, abs=4 * np.sqrt(witness / 9999) + 1e-3)


@pytest.mark.parametrize(("wins", "losses"), [(5, 0), (6, 0), (9, 2), (4, 4), (7, 1)])
def test_right_or_wrong_is_the_sign_test(wins: int, losses: int) -> None:
    """McNemar's exact test; rows on which both are right or both wrong do not matter."""
    second = np.array([1.0] * wins + [0.0] * losses + [1.0] * 40)
    first = np.array([0.0] * wins + [1.0] * losses + [1.0] * 40)
    witness = stats.binomtest(wins, wins + losses).pvalue
    assert p_of_means(first, second) == pytest.approx(witness, abs=1e-12)


def test_without_a_difference() -> None:
    assert p_of_means(np.ones(30), np.ones(30)) == 1.0


def test_the_observed_order_counts() -> None:
    """Phipson and Smyth: never 0, and of 99 random orders none this extreme gives 1/100."""
    assert p_of_means(np.zeros(200), np.ones(200), permutations=99) == 0.01


def test_macro_f1_of_every_mixture_by_hand() -> None:
    """Against the metric itself, called on the exchanged texts."""
    def f1(answers: tuple[str, ...]) -> float:
        return METRICS["macro_f1"].value(REFERENCES, list(answers))

    observed = abs(f1(tuple(SECOND)) - f1(tuple(FIRST)))
    differ = [i for i in range(10) if FIRST[i] != SECOND[i]]
    extreme = []
    for flips in product((False, True), repeat=len(differ)):
        a, b = list(FIRST), list(SECOND)
        for i, flip in zip(differ, flips, strict=True):
            a[i], b[i] = (b[i], a[i]) if flip else (a[i], b[i])
        extreme.append(abs(f1(tuple(b)) - f1(tuple(a))) >= observed - 1e-12)
    [found] = compare([stack("macro_f1")], [("base", "tuned")])
    assert 0.05 < np.mean(extreme) < 1
    assert found.p == pytest.approx(np.mean(extreme), abs=1e-12)


def test_a_nan_is_never_proof() -> None:
    assert permutation_p(lambda draws: np.full(len(draws), np.nan), np.ones(40, bool)) == 1.0


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    first, second = random.random((2, 50))
    whole, exact = p_of_means(first, second), p_of_means(first[:8], second[:8])
    monkeypatch.setattr("tuneloop.evaluation.compare._CHUNK_BYTES", 32 * 50 * 7)
    assert p_of_means(first[:8], second[:8]) == exact
    assert p_of_means(first, second) == whole


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_p_values_are_uniform_where_models_are_equal(metric: str) -> None:
    """1,000 times two models that are right on the same rows equally often: p <= x in about x of them, not more."""
    random = np.random.default_rng(3)
    found = []
    for number in range(1000):
        references = random.choice(["a", "b", "c"], 60)
        hard = random.beta(2, 1, 60)
        texts = [np.where(random.random(60) < hard, references, random.choice(["a", "b", "c"], 60)).tolist()
                 for _ in range(2)]
        views = [View(references.tolist(), Answers(name, of)) for name, of in zip("xy", texts, strict=True)]
        one = stack_of_answers(METRICS[metric], views)
        rows = np.arange(60)
        found.append(permutation_p(one.over(np.arange(120)), one.same[rows] != one.same[rows + 60],
                                   permutations=499, seed=number))
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) <= level + 2 * np.sqrt(level * (1 - level) / 1000)
    assert np.mean(np.array(found) <= 0.2) > 0.1        # a p-value that is never small would pass the above


# --- Holm ------------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1, none less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_rejects_as_the_stepwise_rule() -> None:
    """Holm's own words: reject the smallest while p <= 5 % / (how many are left)."""
    random = np.random.default_rng(4)
    for _ in range(200):
        p = random.random(6) ** 4
        rejected = set()
        for k, i in enumerate(np.argsort(p)):
            if p[i] > 0.05 / (6 - k):
                break
            rejected.add(int(i))
        assert {i for i, value in enumerate(holm(p.tolist())) if value <= 0.05} == rejected


def test_holm_keeps_the_error_of_the_family() -> None:
    """10 comparisons, 7 of them without a difference, all depending on one another: any of the 7 in at most 5 %."""
    random = np.random.default_rng(5)
    wrong = plain = 0
    for _ in range(4000):
        z = random.normal(size=10) * np.sqrt(0.7) + random.normal() * np.sqrt(0.3) + np.repeat([0, 4], [7, 3])
        p = 2 * stats.norm.sf(abs(z))
        wrong += min(holm(p.tolist())[:7]) <= 0.05
        plain += p[:7].min() <= 0.05
    assert wrong / 4000 <= 0.05 < 0.15 < plain / 4000


# --- comparisons -----------------------------------------------------------------------------------------------------


def test_counts_rows_and_corrects_the_family() -> None:
    found = compare([stack("accuracy"), stack("macro_f1")], [("base", "tuned")])
    accuracy, f1 = found
    assert (accuracy.wins, accuracy.losses, accuracy.ties) == (3, 1, 6)
    assert (f1.wins, f1.losses, f1.ties) == (3, 1, 6)
    assert accuracy.scores[0].value == pytest.approx(0.6)
    assert accuracy.scores[1].value == pytest.approx(0.8)
    assert accuracy.gain.value == pytest.approx(0.2)
    assert accuracy.p == pytest.approx(stats.binomtest(3, 4).pvalue)
    assert [accuracy.p_holm, f1.p_holm] == holm([accuracy.p, f1.p])
    assert json.loads(json.dumps(accuracy.to_json()))["scores"]["tuned"]["value"] == pytest.approx(0.8)


def test_slices_are_scored_as_if_alone() -> None:
    rows = np.array([0, 3, 5, 8])
    [found] = compare([stack("macro_f1")], [("base", "tuned")], {"some": rows})
    assert found.scores[1].value == pytest.approx(
        METRICS["macro_f1"].value([REFERENCES[i] for i in rows], [SECOND[i] for i in rows]))
    assert (found.slice, found.rows) == ("some", 4)


def test_perplexity_is_better_where_lower() -> None:
    models = [Answers("base", [""] * 3, nll=[3.0, 2.0, 1.0], tokens=[1, 1, 1]),
              Answers("tuned", [""] * 3, nll=[1.0, 2.0, 2.0], tokens=[1, 1, 1])]
    [found] = compare([stack_of_perplexity(models)], [("base", "tuned")])
    assert (found.wins, found.losses, found.ties) == (1, 1, 1)
    assert found.gain.value == pytest.approx(np.exp(5 / 3) - np.exp(2))


def test_a_metric_that_looks_at_more_than_texts() -> None:
    models = [Answers("base", ["x"] * 4, stopped=[True, False, False, False]),
              Answers("tuned", ["x"] * 4, stopped=[True] * 4, nll=[0.0] * 4)]
    [found] = compare([stack_of_answers(METRICS["stop_rate"], [View(["r"] * 4, m) for m in models])],
                      [("base", "tuned")])
    assert found.gain.value == pytest.approx(0.75)
    assert found.p == pytest.approx(0.25)


def test_scores_that_are_known() -> None:
    scores = {"a": np.array([1.0, 0.0, 0.5]), "b": np.array([1.0, 1.0, 1.0]), "c": np.zeros(3)}
    found = compare([stack_of_scores("judge", scores)], [("a", "b"), ("c", "b")])
    assert [one.gain.value for one in found] == pytest.approx([0.5, 1.0])
    assert wins_losses_ties(scores["a"], scores["b"]) == (2, 0, 1)
