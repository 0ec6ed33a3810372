"""Metrics against reference implementations, on all rows and on resamples of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from tuneloop.grading.classification import per_class
from tuneloop.grading.metrics import METRICS, View
from tuneloop.types import Answers

Texts = tuple[list[str], list[str]]
WORDS = ["the", "Cat", "sat", "on", "a_mat", "well-made", "42", "!", "it's", "", "über", "mats.", "in"]


def labelled(seed: int, rows: int = 60) -> Texts:
    """Five labels wanted, one of them never right; a sixth is given and never wanted."""
    random = np.random.default_rng(seed)
    references = [f"label {i}" for i in random.integers(5, size=rows)]
    return references, [r if random.random() < 0.6 and r != "label 0" else f"label {random.integers(1, 6)}"
                        for r in references]


def written(seed: int, rows: int = 40) -> Texts:
    """Texts of random words; every other answer is a reference with some words changed."""
    random = np.random.default_rng(seed)
    references = [" ".join(random.choice(WORDS, random.integers(0, 14))) for _ in range(rows)]
    answers = [" ".join(w if random.random() < 0.8 else str(random.choice(WORDS)) for w in r.split(" "))
               if i % 2 else " ".join(random.choice(WORDS, random.integers(0, 14))) for i, r in enumerate(references)]
    return references, answers


def drawn(rows: int, resamples: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (R, n), and how often each row is drawn (R, n)."""
    picks = np.random.default_rng(1).integers(rows, size=(resamples, rows))
    return picks, np.array([np.bincount(pick, minlength=rows) for pick in picks], dtype=np.float64)


def check(name: str, texts: Texts, witness: Callable[[list[str], list[str]], float]) -> None:
    references, answers = texts
    picks, draws = drawn(len(references))
    assert METRICS[name].value(references, answers) == pytest.approx(witness(references, answers), abs=1e-9)
    expected = [witness([references[i] for i in pick], [answers[i] for i in pick]) for pick in picks]
    assert METRICS[name].statistic(references, answers)(draws) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("average", ["macro", "micro"])
@pytest.mark.parametrize("what", ["precision", "recall", "f1"])
def test_label_metrics_as_scikit_learn(what: str, average: str) -> None:
    import sklearn.metrics

    scorer = getattr(sklearn.metrics, f"{what}_score")
    for seed in range(3):
        check(f"{average}_{what}", labelled(seed), lambda r, a: float(scorer(r, a, average=average, zero_division=0)))


def test_per_class_as_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    references, answers = labelled(7)
    rows = per_class(references, answers)
    labels = [row.label for row in rows]
    expected = precision_recall_fscore_support(references, answers, labels=labels, zero_division=0)
    assert labels == sorted({*references, *answers})
    for found, wanted in zip(zip(*[(r.precision, r.recall, r.f1, r.wanted) for r in rows], strict=True), expected,
                             strict=True):
        assert np.asarray(found) == pytest.approx(wanted, abs=1e-9)
    assert [row.given for row in rows] == [answers.count(label) for label in labels]


def test_calibration_error_as_the_paper_s_loop() -> None:
    """Guo et al. 2017, eq. 3, bin by bin over the rows; confidences on the edges of bins included."""
    random = np.random.default_rng(3)
    references, answers = labelled(3)
    confidence = np.where(random.random(60) < 0.3, random.integers(0, 16, 60) / 15, random.random(60))

    def by_hand(rows: Sequence[int]) -> float:
        error = 0.0
        edges = np.linspace(0, 1, 16)
        for number, (lower, upper) in enumerate(pairwise(edges)):
            inside = [i for i in rows if lower < confidence[i] <= upper or (number == 0 and confidence[i] == 0)]
            if inside:
                right = np.mean([references[i] == answers[i] for i in inside])
                error += len(inside) / len(rows) * abs(right - np.mean(confidence[inside]))
        return error

    statistic = METRICS["ece"].of(View(references, Answers("tuned", answers, confidence=confidence.tolist())))
    picks, draws = drawn(60)
    assert statistic(draws) == pytest.approx([by_hand(pick.tolist()) for pick in picks], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_bleu_and_chrf_are_the_corpus_scores_of_sacrebleu(seed: int) -> None:
    metrics = pytest.importorskip("sacrebleu.metrics", reason="it is in the extra eval")
    short = (["a cat", "yes", "no no"], ["a cat", "yes", "no"])         # no sequence of four words
    check("bleu", short, lambda r, a: metrics.BLEU().corpus_score(a, [r]).score / 100)
    check("bleu", written(seed), lambda r, a: metrics.BLEU().corpus_score(a, [r]).score / 100)
    check("chrf", written(seed), lambda r, a: metrics.CHRF().corpus_score(a, [r]).score / 100)


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_perfect_and_empty_corpora(name: str) -> None:
    pytest.importorskip("sacrebleu")
    sentence = "the cat sat on the mat and slept ."
    assert METRICS[name].value([sentence] * 120, [sentence] * 120) == pytest.approx(1, abs=1e-9)
    assert METRICS[name].value([sentence, sentence], [sentence, sentence]) <= 1
    assert METRICS[name].value([sentence, ""], ["", ""]) == 0


def test_rouge_1_and_2_equal_rouge_score() -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="it is in the extra parity")
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2"])
    for name, theirs in (("rouge_1", "rouge1"), ("rouge_2", "rouge2")):
        # on ASCII text, where both cut words alike
        texts = tuple([text.replace("über", "over") for text in side] for side in written(5, 200))
        check(name, (texts[0], texts[1]),
              lambda r, a, theirs=theirs: float(np.mean([scorer.score(x, y)[theirs].fmeasure for x, y in
                                                         zip(r, a, strict=True)])))
