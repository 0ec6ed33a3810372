"""How far annotators agree beyond chance: Krippendorff's alpha, Cohen's kappa, and each of them against the others.

Ratings are three arrays side by side: n numbers of items, of annotators, and of what they said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuneloop.types import Ints

Level = Literal["nominal", "ordinal", "interval"]
Numbers = NDArray[np.float64]
RELIABLE, TENTATIVE = 0.8, 2 / 3
"""Krippendorff 2004, Content Analysis, p. 241: rely on what reaches the first; draw tentative conclusions down to the
second."""


@dataclass(frozen=True)
class Pair:
    """How two annotators agree on the items that both rated. `kappa` is NaN where neither ever varied."""

    first: int
    second: int
    items: int
    same: float             # share of the items
    kappa: float


def krippendorff_alpha(items: Ints, values: Numbers | Ints, level: Level = "nominal") -> float:
    """1 minus observed over expected disagreement; NaN where nothing was rated twice, or nobody ever varied.

    Krippendorff 2011, Computing Krippendorff's Alpha-Reliability. `values` are codes of categories for the nominal
    level, numbers for the others. The ordinal distance of two values is the difference of their mean ranks among all
    ratings that can be paired, so that the ordinal alpha is the interval alpha of ranks.
    """
    items, values = _paired(items, values)
    if not len(items):
        return math.nan
    if level == "nominal":
        observed, expected = _nominal_disagreement(items, values.astype(np.int64))
    else:
        observed, expected = _squared_disagreement(items, _mean_ranks(values) if level == "ordinal" else values)
    return 1 - observed / expected if expected else math.nan


def _paired(items: Ints, values: NDArray[np.generic]) -> tuple[Ints, Numbers]:
    """The ratings of items that have at least two, items as 0, 1, …"""
    _, number, count = np.unique(items, return_inverse=True, return_counts=True)
    paired = count[number] > 1
    return np.unique(number[paired], return_inverse=True)[1], np.asarray(values, np.float64)[paired]


def _mean_ranks(values: Numbers) -> Numbers:
    _, code, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - count / 2)[code]


def _squared_disagreement(items: Ints, values: Numbers) -> tuple[float, float]:
    """Mean squared difference of two ratings: of one item, and of any."""
    values = values - values.mean()
    size, squares = np.bincount(items), np.bincount(items, values ** 2)
    within = 2 * (size * squares - np.bincount(items, values) ** 2) / (size - 1)
    n = len(values)
    return float(within.sum() / n), float(2 * (n * (values ** 2).sum() - values.sum() ** 2) / (n * (n - 1)))


def _nominal_disagreement(items: Ints, codes: Ints) -> tuple[float, float]:
    """Share of pairs of ratings that differ: of one item, and of any."""
    size, n = np.bincount(items), len(codes)
    cells, count = np.unique(np.stack([items, codes]), axis=1, return_counts=True)
    same = np.bincount(cells[0], count ** 2, len(size))
    observed = ((size ** 2 - same) / (size - 1)).sum() / n
    total = np.unique(codes, return_counts=True)[1]
    return float(observed), float((n ** 2 - (total ** 2).sum()) / (n * (n - 1)))


def share_that_agrees(items: Ints, values: Ints) -> float:
    """Of pairs of ratings of one item the share that says the same; each item counts by its ratings."""
    items, codes = _paired(items, values)
    return 1 - _nominal_disagreement(items, codes.astype(np.int64))[0] if len(items) else math.nan


def cohen_kappa(first: Ints, second: Ints) -> float:
    """Agreement of two annotators beyond chance, Cohen 1960; `first` and `second` are (n,) what each said of n items.

    NaN where both always said the same one thing, or there is no item.
    """
    if not len(first):
        return math.nan
    _, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    a, b = np.split(codes, 2)
    width = int(codes.max()) + 1
    chance = float(np.bincount(a, minlength=width) @ np.bincount(b, minlength=width)) / len(a) ** 2
    return (float((a == b).mean()) - chance) / (1 - chance) if chance < 1 else math.nan


def pairs(items: Ints, annotators: Ints, values: Ints) -> list[Pair]:
    """Every two annotators that rated some of the same items. The last rating counts where one rated an item twice."""
    said = {name: dict(zip(items[annotators == name].tolist(), values[annotators == name].tolist(), strict=True))
            for name in np.unique(annotators).tolist()}
    found = []
    for first, second in combinations(said, 2):
        both = said[first].keys() & said[second].keys()
        if both:
            a, b = (np.array([said[name][item] for item in both]) for name in (first, second))
            found.append(Pair(first, second, len(both), float((a == b).mean()), cohen_kappa(a, b)))
    return found


def with_the_others(items: Ints, annotators: Ints, values: Ints) -> dict[int, tuple[int, int]]:
    """For each annotator: on how many items the others tell whether they are right, and on how many they are.

    Right is what most others say. An item tells nothing where that is one of two or more that are as frequent.
    """
    _, cell, count = np.unique(np.stack([items, values]), axis=1, return_inverse=True, return_counts=True)
    cell = cell.ravel()
    own = count[cell]
    order = np.lexsort((-own, items))
    others = _best_of_others(items[order], cell[order], own[order])
    agrees, decided = own[order] - 1 > others, own[order] - 1 != others
    who = annotators[order]
    return {name: (int(decided[who == name].sum()), int(agrees[who == name].sum()))
            for name in np.unique(annotators).tolist()}


def _best_of_others(items: Ints, cells: Ints, counts: Ints) -> Ints:
    """(n,) Of ratings by item, the most frequent cell first: how often the most frequent other value was given."""
    best: dict[int, tuple[int, int, int]] = {}      # by item: the first cell, its count, and that of the next
    for item, cell, count in zip(items.tolist(), cells.tolist(), counts.tolist(), strict=True):
        first, most, second = best.get(item, (cell, count, 0))
        best[item] = (first, most, max(second, count) if cell != first else second)
    return np.array([best[item][2] if best[item][0] == cell else best[item][1]
                     for item, cell in zip(items.tolist(), cells.tolist(), strict=True)], np.int64)
