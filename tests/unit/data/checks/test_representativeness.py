"""Parts from one source are not told apart, others are, with the words and rows that differ."""

from __future__ import annotations

import random

import numpy as np
import pytest
from part_rows import found_by, lines, rows

from tuneloop.data.checks._two_samples import CAPITALS, PENALTY, by_chance, compare, fit, rows_of, tokens_of
from tuneloop.data.checks.representativeness import Check
from tuneloop.types import Sample

COMMON = [f"word{i}" for i in range(200)]
OFTEN = [1 / (1 + i) for i in range(200)]


def texts(count: int, seed: int, share: float = 0.0, words: int = 12) -> list[str]:
    """Random words; a `share` of the texts speaks of refunds."""
    drawn = random.Random(seed)
    return [" ".join([*drawn.choices(COMMON, OFTEN, k=words), *["refund"] * (drawn.random() < share)])
            for _ in range(count)]


def tokens(some: list[str]) -> list[set[str]]:
    return list(map(tokens_of, some))


def part(file: str, some: list[str]) -> list[Sample]:
    return rows(file, *((text, "") for text in some))


# --- the test --------------------------------------------------------------------------------------------------------


def test_tokens_by_hand() -> None:
    assert tokens_of("Where is it, where?") == {"where", "is", "it", ",", "?", CAPITALS, "\nlength 3"}
    assert tokens_of("") == {"\nlength 0"}


def test_chance_by_hand_and_by_scipy() -> None:
    assert by_chance(2, 2, 2) == 1 / 6                      # one of the six pairs out of four
    assert by_chance(0, 3, 5) == 1
    stats = pytest.importorskip("scipy.stats")
    for right, said, count in ((60, 100, 100), (12, 15, 40), (500, 900, 1000), (30, 60, 60)):
        assert by_chance(right, said, count) == pytest.approx(stats.hypergeom.sf(right - 1, 2 * count, count, said))


def test_the_classifier_is_that_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    sample = rows_of(tokens([*texts(150, 1), *texts(150, 2, share=0.5)]))
    dense = np.zeros((300, sample.width))
    dense[np.repeat(np.arange(300), sample.counts), sample.columns] = 1
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    labels = np.repeat([0.0, 1.0], 150)
    model = linear.LogisticRegression(C=1 / PENALTY, fit_intercept=False, tol=1e-10, max_iter=1000)
    expected = model.fit(dense, labels).coef_[0]
    assert np.abs(fit(sample, labels) - expected).max() < 1e-3
    assert np.abs(expected).max() > 1
    assert sample.times(expected) == pytest.approx(dense @ expected)
    assert sample.back(labels) == pytest.approx(dense.T @ labels)
    assert sample.some(np.array([7, 3])).times(expected) == pytest.approx(dense[[7, 3]] @ expected)


def test_samples_of_one_source_are_told_apart_by_chance_alone() -> None:
    """The p-value is at most as small as it says: of 60 pairs of samples about 3 are below 0.05."""
    p_values = np.array([compare(tokens(texts(60, 2 * seed)), tokens(texts(60, 2 * seed + 1))).p_value
                         for seed in range(60)])
    assert (p_values < 0.05).sum() <= 6
    assert (p_values < 0.001).sum() == 0
    assert np.median(p_values) > 0.3


def test_samples_that_differ_are_told_apart_and_rows_are_ranked() -> None:
    other = texts(400, 4, share=0.5)
    compared = compare(tokens(texts(300, 3)), tokens(other))
    assert compared.p_value < 1e-6
    assert 0.65 < compared.accuracy < 0.8          # at best 0.75
    looked_at = np.flatnonzero(compared.scores)
    assert len(looked_at) == 300
    most = looked_at[np.argsort(-compared.scores[looked_at])][:50]
    assert all("refund" in other[row] for row in most)


# --- the check -------------------------------------------------------------------------------------------------------


def test_a_test_part_of_another_kind_is_found() -> None:
    check = Check()
    test = texts(300, 6, share=0.9)
    (finding,) = found_by(check, train=part("train.csv", texts(500, 5)), test=part("test.csv", test),
                          validation=part("valid.csv", texts(200, 7)))
    assert (finding.kind, finding.severity) == ("test", "fix")
    assert finding.what.startswith("the rows of test are not like those of train: in 9")
    assert finding.examples[0] == "'refund' is in 89% of test and 0% of train"
    assert finding.examples[1].startswith(f"test.csv line {lines(finding)[0]}: ")
    assert len(finding.places) == 20
    assert all("refund" in test[line - 1] for line in lines(finding))
    facts = check.facts()["representativeness"]
    assert facts["test"]["p_value"] < 1e-9
    assert facts["validation"]["p_value"] > 0.01


def test_a_small_difference_is_a_note_and_length_is_told() -> None:
    (finding,) = found_by(Check(), train=part("train.csv", texts(900, 5)),
                          test=part("test.csv", [*texts(650, 6), *texts(250, 8, words=80)]))
    assert finding.severity == "note"
    (finding,) = found_by(Check(), train=part("train.csv", texts(200, 5)),
                          test=part("test.csv", texts(200, 8, words=40)))
    assert finding.examples[0].startswith("half of the rows of test are longer than ")


def test_live_rows_are_compared_and_benchmarks_are_not() -> None:
    train = part("train.csv", texts(200, 5))
    other = texts(200, 6, share=0.9)
    (finding,) = found_by(Check(), train=train, evaluation=part("logs/live-2026-05.csv", other))
    assert finding.kind == "logs/live-2026-05.csv"
    assert found_by(Check(), train=train, evaluation=part("olive.csv", other)) == []


def test_too_few_rows_say_nothing() -> None:
    check = Check()
    assert found_by(check, train=part("train.csv", texts(200, 5)), test=part("test.csv", ["refund"] * 49)) == []
    assert check.facts() == {"representativeness": {}}


def test_at_most_two_thousand_rows_are_kept() -> None:
    check = Check()
    train, test = texts(3000, 1), texts(2500, 2)
    found_by(check, train=part("train.csv", train), test=part("test.csv", [*test[:2000], *["refund"] * 500]))
    kept = check._samples["test"]
    assert len(kept.texts) == 2000
    assert 330 <= sum("refund" in text for text in kept.texts) <= 470      # 400 expected: a fifth, though all came last
    assert all(("refund" in text) == (origin.line > 2000)
               for text, origin in zip(kept.texts, kept.origins, strict=True))
