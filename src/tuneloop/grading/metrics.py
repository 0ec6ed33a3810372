"""Metrics: how good are answers, row by row and over any resample of the rows.

n test rows, R resamples. A resample is a vector of how often each row was drawn, so that a bootstrap of every metric
of every model is a few matrix products: `Statistic` maps draws (R, n) to values (R,).

To add a metric: one function under `@metric(KIND)`, taking (references, answers); a kind of task is "labels", "open" or
"pairs", where the answers are those that a model prefers. It returns the score of each row, (n,), when the metric is
their mean, or a `Statistic` when it is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.augment import overlap

Scores = NDArray[np.float64]
Statistic = Callable[[Scores], Scores]
Kind = Literal["labels", "open", "pairs"]
Function = Callable[[Sequence[str], Sequence[str]], Scores | Statistic]

METRICS: dict[str, Metric] = {}
"""Every metric of answers, by name."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Metric:
    """A metric by name, for one kind of task; higher is better and values lie in [0, 1]."""

    name: str
    kind: Kind
    function: Function

    def statistic(self, references: Sequence[str], answers: Sequence[str]) -> Statistic:
        """The metric of these answers as a function of draws (R, n)."""
        if len(references) != len(answers):
            raise ValueError(f"{len(references)} references, but {len(answers)} answers")
        measured = self.function(references, answers)
        return measured if callable(measured) else mean_of(measured)

    def value(self, references: Sequence[str], answers: Sequence[str]) -> float:
        """The metric over all rows, each once."""
        return float(self.statistic(references, answers)(np.ones((1, len(references))))[0])


def metric(kind: Kind) -> Callable[[Function], Function]:
    """Register a metric under its function's name."""
    def register(function: Function) -> Function:
        METRICS[function.__name__] = Metric(function.__name__, kind, function)
        return function
    return register


def names(kind: Kind) -> list[str]:
    """The metrics of a kind of task, the leading one first."""
    return [m.name for m in METRICS.values() if m.kind == kind]


def mean_of(scores: Scores) -> Statistic:
    """The mean of row scores (n,), as a function of draws."""
    return lambda draws: np.asarray(draws @ scores / draws.sum(axis=1))


def perplexity(nll: Sequence[float], tokens: Sequence[int]) -> Statistic:
    """exp(sum of nll / sum of tokens) over the drawn rows; lower is better. `nll` in nats per row, as in `Answers`."""
    sums, counts = np.asarray(nll, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    return lambda draws: np.exp((draws @ sums) / (draws @ counts))


@metric("labels")
def accuracy(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """1 where the label is the reference's, spaces at the ends aside."""
    return np.array([r.strip() == a.strip() for r, a in zip(references, answers, strict=True)], dtype=np.float64)


@metric("labels")
def macro_f1(references: Sequence[str], answers: Sequence[str]) -> Statistic:
    """Mean of the F1 of each label that occurs as reference or answer, as scikit-learn's with zero_division=0.

    F1 = 2 tp / (tp + fp + tp + fn); the second pair is the label's count among references, the first among answers.
    """
    labels, codes = np.unique([text.strip() for text in (*references, *answers)], return_inverse=True)
    is_label = np.eye(len(labels))[codes]                                       # (2n, labels)
    wanted, given = is_label[:len(references)], is_label[len(references):]      # (n, labels) each

    def over(draws: Scores) -> Scores:
        hits, count = draws @ (wanted * given), draws @ (wanted + given)        # (R, labels)
        present = count > 0
        f1 = np.divide(2 * hits, count, out=np.zeros_like(count), where=present)
        return np.asarray(f1.sum(axis=1) / present.sum(axis=1))

    return over


@metric("pairs")
def preference_accuracy(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """1 where the answer that the model prefers is the one that people chose."""
    return np.array([r == a for r, a in zip(references, answers, strict=True)], dtype=np.float64)


@metric("open")
def rouge_l(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """F-measure of the longest common subsequence of words (Lin 2004, "ROUGE", section 3), each text as one sentence.

    A word is a lower-cased run of letters and digits of any script, without stemming. On ASCII text this equals
    `rouge-score`'s rougeL; deviation: `rouge-score` drops every other letter, so that accents would split words.
    Scripts without spaces between words count as one word per run.
    """
    return np.array([overlap.rouge_l(_words(r), _words(a)) for r, a in zip(references, answers, strict=True)])


@metric("open")
def exact_match(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """1 where the answer is the reference, runs of white space counting as one space and none at the ends."""
    return np.array([r.split() == a.split() for r, a in zip(references, answers, strict=True)], dtype=np.float64)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
