"""What annotators would have said had they made no mistakes: Dawid and Skene 1979, Applied Statistics 28, 20-28."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneloop.types import Ints

Numbers = NDArray[np.float64]
MOST_ROUNDS = 500
SETTLED = 1e-6          # change of a probability from round to round
_TINY = 1e-300          # stands for a probability of zero in logarithms


@dataclass(frozen=True)
class Adjudicated:
    """What is likely true of I items, and how A annotators err, over K labels."""

    labels: Numbers         # (I, K) probability of each label
    shares: Numbers         # (K,) of the labels among the items
    errors: Numbers         # (A, K, K) probability that an annotator says the second label where the first is true


def dawid_skene(items: Ints, annotators: Ints, values: Ints) -> Adjudicated:
    """Maximum likelihood by expectation and maximisation, from n ratings as three arrays side by side.

    Items, annotators and values are numbered 0, 1, …, each number in use. An annotator may rate an item several times.
    Starts from the share of each label among an item's ratings (equation 3.1).
    """
    shape = int(annotators.max()) + 1, int(values.max()) + 1
    likely = np.zeros((int(items.max()) + 1, shape[1]))
    np.add.at(likely, (items, values), 1)
    likely /= likely.sum(axis=1, keepdims=True)
    for _ in range(MOST_ROUNDS):
        shares, errors = likely.mean(axis=0), _errors(likely[items], annotators, values, shape)
        before, likely = likely, _labels(shares, errors, items, annotators, values)
        if np.abs(likely - before).max() < SETTLED:
            break
    return Adjudicated(likely, shares, errors)


def _errors(likely: Numbers, annotators: Ints, values: Ints, shape: tuple[int, int]) -> Numbers:
    """(A, K, K) from (n, K) what is likely true of each rating's item (equation 2.3)."""
    number, width = shape
    said = np.stack([np.bincount(annotators * width + values, likely[:, true], number * width).reshape(shape)
                     for true in range(width)], axis=1)
    total = said.sum(axis=2, keepdims=True)
    return np.asarray(np.divide(said, total, out=np.zeros_like(said), where=total > 0))


def _labels(shares: Numbers, errors: Numbers, items: Ints, annotators: Ints, values: Ints) -> Numbers:
    """(I, K) by Bayes' rule (equation 2.5)."""
    each = np.log(np.maximum(errors[annotators, :, values], _TINY))         # (n, K)
    total = np.log(np.maximum(shares, _TINY)) + np.stack(
        [np.bincount(items, each[:, true]) for true in range(len(shares))], axis=1)
    likely = np.exp(total - total.max(axis=1, keepdims=True))
    return np.asarray(likely / likely.sum(axis=1, keepdims=True))
