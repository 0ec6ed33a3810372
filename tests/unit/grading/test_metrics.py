from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from tuneloop.data.augment.overlap import longest_common_subsequence
from tuneloop.grading.metrics import METRICS, Scores, mean_of, metric, names, perplexity

Labelled = tuple[list[str], list[str]]


def labelled(seed: int, rows: int = 60, labels: int = 5) -> Labelled:
    """References and answers; one label is never right, one is answered but never wanted."""
    random = np.random.default_rng(seed)
    references = [f"label {i}" for i in random.integers(labels, size=rows)]
    answers = [r if random.random() < 0.6 and r != "label 0" else f"label {random.integers(1, labels + 1)}"
               for r in references]
    return references, answers


@pytest.mark.parametrize("seed", range(5))
def test_labels_as_scikit_learn(seed: int) -> None:
    references, answers = labelled(seed)
    assert METRICS["accuracy"].value(references, answers) == pytest.approx(accuracy_score(references, answers))
    assert METRICS["macro_f1"].value(references, answers) == pytest.approx(
        f1_score(references, answers, average="macro", zero_division=0))


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_draws_are_the_metric_of_the_drawn_rows(name: str) -> None:
    references, answers = labelled(1, rows=12, labels=4)
    drawn = np.random.default_rng(2).integers(12, size=(20, 12))
    draws = np.array([np.bincount(row, minlength=12) for row in drawn], dtype=np.float64)
    expected = [METRICS[name].value([references[i] for i in row], [answers[i] for i in row]) for row in drawn]
    assert METRICS[name].statistic(references, answers)(draws) == pytest.approx(expected)


def test_macro_f1_by_hand() -> None:
    # a: 2 right of 3 wanted and 2 given: 4/5; b: 1 of 1 and 1: 1; c: given once, never wanted: 0
    value = METRICS["macro_f1"].value(["a", "a", "a", "b"], ["a", "a", " c", "b "])
    assert value == pytest.approx((0.8 + 1 + 0) / 3)


@pytest.mark.parametrize(("reference", "answer", "expected"), [
    ("the cat sat on the mat", "The cat, on the mat!", 2 * 5 / 11),
    ("police killed the gunman", "the gunman police killed", 2 * 2 / 8),
    ("order_id 12", "order id 12", 1.0),            # an underscore separates, as in rouge-score
    ("Straße über", "STRASSE ÜBER", 2 * 1 / 4),
    ("yes", "", 0.0), ("", "", 0.0), ("...", "...", 0.0),
])
def test_rouge_l_by_hand(reference: str, answer: str, expected: float) -> None:
    assert METRICS["rouge_l"].value([reference], [answer]) == pytest.approx(expected)


def test_longest_common_subsequence_as_the_textbook_table() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        a, b = (random.choice(list("abcd"), size=random.integers(0, 90)).tolist() for _ in range(2))
        table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
        assert longest_common_subsequence(a, b) == table[-1, -1]


def test_exact_match_ignores_white_space_alone() -> None:
    found = METRICS["exact_match"].function(["a  b\n", "A b", "x"], [" a b", "a b", ""])
    assert np.asarray(found).tolist() == [1, 0, 0]


def test_perplexity_weighs_tokens_and_not_rows() -> None:
    statistic = perplexity([2.0, 9.0], [1, 3])
    assert statistic(np.array([[1.0, 1.0], [2.0, 0.0]])) == pytest.approx([math.exp(11 / 4), math.exp(2)])


def test_a_new_metric_is_one_function() -> None:
    try:
        @metric("open")
        def same_length(references: list[str], answers: list[str]) -> Scores:
            return np.array([float(len(r) == len(a)) for r, a in zip(references, answers, strict=True)])

        assert "same_length" in names("open")
        assert METRICS["same_length"].value(["ab", "c"], ["xy", "zz"]) == 0.5
    finally:
        METRICS.pop("same_length", None)


def test_answers_must_be_aligned() -> None:
    with pytest.raises(ValueError, match="2 references, but 1 answers"):
        METRICS["accuracy"].statistic(["a", "b"], ["a"])


def test_mean_of_draws() -> None:
    assert mean_of(np.array([1.0, 0.0]))(np.array([[2.0, 0.0], [1.0, 1.0]])).tolist() == [1.0, 0.5]
