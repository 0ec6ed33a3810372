"""Labels that are likely wrong: confident learning, Northcutt, Jiang and Chuang 2021, JAIR 70 (arXiv 1911.00068).

N rows with labels 0 … K - 1, and for each row the probability of every label, told by a model that did not see the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuneloop.types import Ints

Numbers = NDArray[np.float64]
Prune = Literal["noise_rate", "class", "both"]
ROUNDING = 1e-6         # by which a probability may fall short of a mean that it is a part of


@dataclass(frozen=True)
class Suspects:
    """Rows whose label is likely wrong, the most suspicious first."""

    rows: Ints              # (s,)
    likely: Ints            # (s,) the label that each should have
    margin: Numbers         # (s,) by how much that one is more probable than the given one


def suspects(labels: Ints, probabilities: Numbers, prune: Prune = "class", least_margin: float = 0.0) -> Suspects:
    """The rows that the estimated joint distribution of given and true labels says are wrong.

    `class` takes, for every label, as many rows as that joint counts off its diagonal, with the smallest probability
    (the paper's prune by class); `noise_rate` for every two labels as many as it counts there, with the largest margin
    (prune by noise rate); `both` those that both take. Rows for which no other label is more probable than the given
    one, by more than `least_margin`, are left alone.
    """
    joint = confident_joint(labels, probabilities)
    given = probabilities[np.arange(len(labels)), labels]
    margin = probabilities - given[:, None]
    wrong = margin.max(axis=1) > least_margin
    if prune != "class":
        wrong &= _by_noise_rate(labels, margin, joint)
    if prune != "noise_rate":
        wrong &= _by_class(labels, given, joint)
    rows = np.flatnonzero(wrong)
    rows = rows[np.argsort(-margin[rows].max(axis=1), kind="stable")]
    return Suspects(rows, margin[rows].argmax(axis=1), margin[rows].max(axis=1))


def confident_joint(labels: Ints, probabilities: Numbers) -> Numbers:
    """(K, K) How many rows have the first label and should have the second; a row of it adds up to the label's rows.

    A row counts for the likeliest of the labels of which it is as sure as rows with that label are on average
    (equations 1 and 2), and for none where there is none.
    """
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    sure = probabilities >= _thresholds(labels, probabilities, counts) - ROUNDING
    counted = sure.any(axis=1)
    true = np.where(sure, probabilities, -1).argmax(axis=1)
    joint = np.zeros((len(counts), len(counts)))
    np.add.at(joint, (labels[counted], true[counted]), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))    # a label that is never sure is not wrong everywhere
    return np.asarray(joint / joint.sum(axis=1, keepdims=True) * counts[:, None])


def _thresholds(labels: Ints, probabilities: Numbers, counts: Ints) -> Numbers:
    """(K,) How sure rows of a label are of it on average; a label without rows is out of reach."""
    own = np.bincount(labels, probabilities[np.arange(len(labels)), labels], len(counts))
    return np.where(counts > 0, own / np.maximum(counts, 1), np.inf)


def _by_noise_rate(labels: Ints, margin: Numbers, joint: Numbers) -> NDArray[np.bool_]:
    wrong = np.zeros(len(labels), bool)
    for label in range(len(joint)):
        rows = np.flatnonzero(labels == label)
        for other in np.flatnonzero(np.rint(joint[label]) > 0):
            if other != label:
                wrong[_largest(rows, margin[rows, other], int(np.rint(joint[label, other])))] = True
    return wrong


def _by_class(labels: Ints, given: Numbers, joint: Numbers) -> NDArray[np.bool_]:
    wrong = np.zeros(len(labels), bool)
    for label in range(len(joint)):
        rows = np.flatnonzero(labels == label)
        number = int(np.rint(joint[label].sum() - joint[label, label]))
        wrong[_largest(rows, -given[rows], number)] = True
    return wrong


def _largest(rows: Ints, by: Numbers, number: int) -> Ints:
    return rows[np.argsort(-by, kind="stable")[:number]]
