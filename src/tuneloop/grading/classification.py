"""Metrics of label tasks, and of pairs. Labels are compared with the spaces at their ends aside.

A label that occurs neither as reference nor as answer does not exist; 0/0 counts as 0, as in scikit-learn with
zero_division=0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tuneloop.grading.registry import Scores, Statistic, View, metric

_OutOf = Callable[[Scores, Scores], Scores]

BINS = 15
"""Of the calibration error, as in Guo et al. 2017."""


@metric("labels")
def accuracy(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """1 where the label is the reference's."""
    return np.array([r.strip() == a.strip() for r, a in zip(references, answers, strict=True)], dtype=np.float64)


@metric("labels")
def macro_f1(references: Sequence[str], answers: Sequence[str]) -> Statistic:
    """Mean of the F1 of each label: 2 hits / (wanted + given)."""
    return _macro(references, answers, lambda wanted, given: wanted + given, 2)


@metric("labels", default=False)
def macro_precision(references: Sequence[str], answers: Sequence[str]) -> Statistic:
    """Mean over labels of hits / given: how far a label can be trusted."""
    return _macro(references, answers, lambda wanted, given: given)


@metric("labels", default=False)
def macro_recall(references: Sequence[str], answers: Sequence[str]) -> Statistic:
    """Mean over labels of hits / wanted: how much of a label is found."""
    return _macro(references, answers, lambda wanted, given: wanted)


@metric("labels", default=False)
def micro_f1(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """2 hits / (wanted + given) over all labels. Every row has one reference and one answer: it equals accuracy."""
    return accuracy(references, answers)


@metric("labels", default=False)
def micro_precision(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """Hits / given over all labels; equals accuracy, as for `micro_f1`."""
    return accuracy(references, answers)


@metric("labels", default=False)
def micro_recall(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """Hits / wanted over all labels; equals accuracy, as for `micro_f1`."""
    return accuracy(references, answers)


@metric("labels", view=True, default=False, better="lower", needs="confidence of each choice")
def ece(view: View) -> Statistic:
    """Expected calibration error: mean over rows of |accuracy - confidence| of the bin that a row falls in.

    15 bins of equal width, (lower, upper], as in Guo et al. 2017 ("On Calibration of Modern Neural Networks", eq. 3).
    """
    confidence = view.given("confidence", "ece")                                # (n,)
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError("a confidence is a probability")
    uppers = np.linspace(0, 1, BINS + 1)[1:]
    bins = np.minimum(np.searchsorted(uppers, confidence), BINS - 1)            # uppers[bin - 1] < c <= uppers[bin]
    excess = np.eye(BINS)[bins] * (accuracy(view.references, view.answers.texts) - confidence)[:, None]  # (n, bins)
    return lambda draws: np.asarray(np.abs(draws @ excess).sum(axis=1) / draws.sum(axis=1))


@metric("pairs")
def preference_accuracy(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """1 where the answer that the model prefers is the one that people chose."""
    return np.array([r == a for r, a in zip(references, answers, strict=True)], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class PerClass:
    """How one label fared."""

    label: str
    precision: float        # hits / given
    recall: float           # hits / wanted
    f1: float
    wanted: int             # rows whose reference it is
    given: int              # rows whose answer it is


def per_class(references: Sequence[str], answers: Sequence[str]) -> list[PerClass]:
    """One row per label that occurs, in alphabetical order."""
    labels, hit, wanted, given = _counts(references, answers)
    once = np.ones(len(references))
    hits, wants, gives = (once @ each for each in (hit, wanted, given))         # (labels,) each
    precision, recall, f1 = _ratio(hits, gives), _ratio(hits, wants), _ratio(2 * hits, wants + gives)
    return [PerClass(label, float(precision[i]), float(recall[i]), float(f1[i]), int(wants[i]), int(gives[i]))
            for i, label in enumerate(labels)]


def _counts(references: Sequence[str], answers: Sequence[str]) -> tuple[list[str], Scores, Scores, Scores]:
    """Labels, and for each row and label whether it is hit, wanted and given: (n, labels) each."""
    labels, codes = np.unique([text.strip() for text in (*references, *answers)], return_inverse=True)
    is_label = np.eye(len(labels))[codes]                                       # (2n, labels)
    wanted, given = is_label[:len(references)], is_label[len(references):]
    return labels.tolist(), wanted * given, wanted, given


def _ratio(over: Scores, under: Scores) -> Scores:
    return np.divide(over, under, out=np.zeros_like(under), where=under > 0)


def _macro(references: Sequence[str], answers: Sequence[str], out_of: _OutOf, times: int = 1) -> Statistic:
    """Mean of times * hits / out_of(wanted, given) over the labels that a draw holds."""
    _, hit, wanted, given = _counts(references, answers)

    def over(draws: Scores) -> Scores:
        hits, wants, gives = draws @ hit, draws @ wanted, draws @ given         # (R, labels) each
        present = wants + gives > 0
        return np.asarray(_ratio(times * hits, out_of(wants, gives)).sum(axis=1) / present.sum(axis=1))

    return over
