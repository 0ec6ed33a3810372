"""Whether two samples of texts come from the same source: a classifier two-sample test.

If a classifier that has seen one half of both samples tells the texts of the other half apart better than chance, they
do not (Lopez-Paz and Oquab 2017, arXiv 1610.06545). Deviation: both halves take turns as the test set, each with
Fisher's exact test, which is the permutation test of its predictions; the lesser p-value counts twice.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneloop.types import Ints

COMMON = 3              # texts that a token must be in, to be looked at
PENALTY = 1.0           # times half the squared weights, beside the summed log-loss
STEPS, POWER_STEPS = 200, 20
LENGTH, CAPITALS = "\nlength ", "\ncapitals"        # no word begins with a line end
_TOKEN = re.compile(r"\w+|[^\w\s]")

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """How well texts of two samples can be told apart."""

    accuracy: float         # over both halves; 0.5 is chance
    p_value: float
    scores: Values          # (b,) of the second sample's texts: the greater, the less like the first sample


def compare(first: Sequence[set[str]], second: Sequence[set[str]]) -> Compared:
    """Tell texts apart that are given by their tokens. Of the larger sample as many are looked at as the other has."""
    count = min(len(first), len(second)) // 2
    drawn = random.Random(0)
    ours, theirs = (np.array(drawn.sample(range(len(some)), 2 * count)) for some in (first, second))
    halves = [np.append(ours[half], theirs[half] + len(first)) for half in (slice(count), slice(count, None))]
    is_second = np.repeat([0.0, 1.0], count)
    rows = rows_of([*first, *second])
    scores, accuracies, p_values = np.zeros(len(second)), [], []
    for fitted, judged in (halves, halves[::-1]):
        told = rows.some(judged).times(fit(rows.some(fitted), is_second))
        scores[judged[count:] - len(first)] = told[count:]
        accuracies.append(np.mean((told > 0) == is_second))
        p_values.append(by_chance(int((told[count:] > 0).sum()), int((told > 0).sum()), count))
    return Compared(float(np.mean(accuracies)), min(1.0, 2 * min(p_values)), scores)


def tokens_of(text: str) -> set[str]:
    """The words of a text in lower case, its marks, about how long it is, and whether it has capitals."""
    found = _TOKEN.findall(text)
    capitals = {CAPITALS} if text != text.lower() else set[str]()
    return {token.lower() for token in found} | capitals | {f"{LENGTH}{len(found).bit_length()}"}


def by_chance(right: int, said: int, count: int) -> float:
    """How likely it is that of `said` texts, drawn from `count` of each sample, `right` or more are of the second: the
    upper tail of the hypergeometric distribution.
    """
    ways = sum(math.comb(count, hit) * math.comb(count, said - hit) for hit in range(right, min(said, count) + 1))
    return ways / math.comb(2 * count, said)


@dataclass(frozen=True)
class Rows:
    """A sparse (n, width) matrix whose rows have length 1 and equal entries; the first column is in all of them."""

    columns: Ints           # of one row after the other
    counts: Ints            # (n,) entries of each row
    width: int

    def some(self, numbers: Ints) -> Rows:
        pieces = np.split(self.columns, np.cumsum(self.counts)[:-1])
        return Rows(np.concatenate([pieces[number] for number in numbers]), self.counts[numbers], self.width)

    def times(self, weights: Values) -> Values:
        """(width,) -> (n,)."""
        starts = np.cumsum(self.counts) - self.counts
        return np.add.reduceat(weights[self.columns], starts) / np.sqrt(self.counts)

    def back(self, values: Values) -> Values:
        """(n,) -> (width,): the transposed matrix times `values`."""
        spread = np.repeat(values / np.sqrt(self.counts), self.counts)
        return np.bincount(self.columns, spread, self.width).astype(np.float64)


def rows_of(texts: Sequence[set[str]]) -> Rows:
    """Which tokens each text has."""
    frequency = Counter(token for tokens in texts for token in tokens)
    common = sorted(token for token, count in frequency.items() if count >= COMMON)
    number = {token: column for column, token in enumerate(common, 1)}
    rows = [[0, *sorted(number[token] for token in tokens if token in number)] for tokens in texts]
    return Rows(np.concatenate(rows), np.array(list(map(len, rows))), len(common) + 1)


def fit(rows: Rows, labels: Values) -> Values:
    """The weights of a logistic regression with an L2 penalty, by Nesterov's accelerated gradient descent."""
    weights = ahead = np.zeros(rows.width)
    step = 1 / (_largest_eigenvalue(rows) / 4 + PENALTY)
    for number in range(1, STEPS + 1):
        wrong = 1 / (1 + np.exp(-rows.times(ahead))) - labels
        before, weights = weights, ahead - step * (rows.back(wrong) + PENALTY * ahead)
        ahead = weights + (number - 1) / (number + 2) * (weights - before)
    return weights


def _largest_eigenvalue(rows: Rows) -> float:
    """Of the matrix transposed times itself, by power iteration; a little more, to be on the safe side."""
    vector = np.ones(rows.width)
    for _ in range(POWER_STEPS):
        vector = rows.back(rows.times(vector / np.linalg.norm(vector)))
    return 1.05 * float(np.linalg.norm(vector))
