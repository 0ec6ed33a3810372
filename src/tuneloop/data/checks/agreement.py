"""How far the people who labelled the rows agree, where rows carry what several of them said."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count, islice
from statistics import median
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.checks import base
from tuneloop.data.checks._keyed import KeyedRows, groups_of, keys_of
from tuneloop.data.checks._tally import SHOWN_EXAMPLES, is_learnt
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding, Places, Severity
from tuneloop.data.labels.agreement import (
    RELIABLE,
    TENTATIVE,
    krippendorff_alpha,
    pairs,
    share_that_agrees,
    with_the_others,
)
from tuneloop.data.labels.annotators import Annotated, annotated, level_of
from tuneloop.data.near.shingles import mixed
from tuneloop.types import Ints

MOST_VALUES = 2_000     # different ratings, from which on they are no labels
MOST_PEOPLE = 100_000   # from which on they are not told apart
COMPARED = 10           # annotators with the most ratings, each with each
FEWEST_ITEMS = 10       # with two ratings, and of an annotator before it is told of
FAR_BELOW = 0.2         # the share in which annotators usually agree with the others
MOST_TOLD = 100         # annotators in the report
ADJUDICATE = ("tuneloop data fix FILE adjudicate writes the label that is likely true; and see whether the annotators' "
              "instructions say what to do with such rows")
_BANDS: tuple[tuple[float, Severity, str], ...] = (
    (RELIABLE, "note", "they agree well"),
    (TENTATIVE, "note", "they agree fairly, enough for tentative results"),
    (0.2, "fix", "they agree too little for labels of one person to be trusted"),
    (-math.inf, "fix", "they hardly agree more than by chance"),
)


class Check(base.Check):
    """Ratings are found by the names of columns, or as rows that repeat a prompt for every annotator."""

    about: ClassVar[str] = "how far annotators agree (Krippendorff's alpha, Cohen's kappa), where there are several"

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], Annotated | None] = {}
        self._how: Annotated | None = None
        self._ratings = KeyedRows([("who", "i4"), ("said", "i4")])
        self._people: dict[str, int] = {}
        self._values: dict[str, int] = {}
        self._items = count(1)
        self._facts: dict[str, Any] = {}

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk) or not len(chunk) or not self._are_ratings:
            return
        columns = tuple(chunk.values[0])
        if columns not in self._found:
            self._found[columns] = annotated(chunk.values)
        how = self._found[columns]
        if how is None:
            return
        self._how = how
        ratings = [how.ratings(values, answer) for values, answer in zip(chunk.values, chunk.answers, strict=True)]
        rows = np.repeat(np.arange(len(chunk)), list(map(len, ratings)))
        items = keys_of(chunk.prompts) if how.how == "rows" else mixed(
            np.fromiter(islice(self._items, len(chunk)), np.uint64, len(chunk)))
        flat = [rating for row in ratings for rating in row]
        self._ratings.add([chunk.origins[row] for row in rows.tolist()], items[rows],
                          who=[self._people.setdefault(who, len(self._people)) for who, _ in flat],
                          said=[self._values.setdefault(value, len(self._values)) for _, value in flat])

    @property
    def _are_ratings(self) -> bool:
        return len(self._values) <= MOST_VALUES and len(self._people) <= MOST_PEOPLE

    def findings(self) -> list[Finding]:
        ratings = self._ratings.rows
        if self._how is None or len(self._values) < 2 or not self._are_ratings:
            return []
        order, starts = groups_of(ratings["key"])
        sizes = np.diff([*starts, len(ratings)])
        ratings, items = ratings[order], np.repeat(np.arange(len(starts)), sizes)
        several = int((sizes > 1).sum())
        if several < FEWEST_ITEMS:
            return []
        level, numbers = level_of(self._how, list(self._values))
        values = np.array([numbers[value] for value in self._values])[ratings["said"]]
        alpha, same = krippendorff_alpha(items, values, level), share_that_agrees(items, ratings["said"])
        if math.isnan(alpha):
            return []
        others = with_the_others(items, ratings["who"], ratings["said"])
        shares = {name: (others[who][1] / others[who][0], others[who][0]) for name, who in self._people.items()
                  if who in others and others[who][0]}
        told = {name: {"items": decided, "same": round(share, 3)} for name, (share, decided) in shares.items()}
        self._facts = {"items": several, "annotators": len(self._people), "alpha": round(alpha, 3), "level": level,
                       "same": round(same, 3), "pairs": self._pairs(items, ratings),
                       "with_the_majority_of_the_others": dict(islice(told.items(), MOST_TOLD))}
        return [self._agree(ratings, items, several, alpha, same), *_far_below(shares)]

    def _pairs(self, items: Ints, ratings: NDArray[Any]) -> list[dict[str, Any]]:
        most = np.argsort(-np.bincount(ratings["who"]), kind="stable")[:COMPARED]
        chosen = np.isin(ratings["who"], most)
        names = list(self._people)
        return [{"first": names[pair.first], "second": names[pair.second], "items": pair.items,
                 "same": round(pair.same, 3), "kappa": None if math.isnan(pair.kappa) else round(pair.kappa, 3)}
                for pair in pairs(items[chosen], ratings["who"][chosen], ratings["said"][chosen])]

    def _agree(self, ratings: NDArray[Any], items: Ints, several: int, alpha: float, same: float) -> Finding:
        severity, verdict = next((severity, told) for least, severity, told in _BANDS if alpha >= least)
        disputed = _disputed(items, ratings["said"])
        ratings, items = ratings[disputed], items[disputed]
        rows = Places(dict.fromkeys(self._ratings.places(ratings[np.lexsort((ratings["line"], ratings["file"]))])))
        what = (f"Of {len(self._people):,} annotators, two say the same of an item in {same:.0%} of cases, over "
                f"{several:,} items{self._ratings.told('items')}; Krippendorff's alpha is {alpha:.2f} (0 is chance, 1 "
                f"full agreement): {verdict}")
        return Finding("agreement", severity, what, ADJUDICATE if rows else "", rows,
                       list(islice(self._examples(ratings, items), SHOWN_EXAMPLES)), "alpha")

    def _examples(self, ratings: NDArray[Any], items: Ints) -> Iterator[str]:
        people, values = list(self._people), list(self._values)
        for item in dict.fromkeys(items[np.argsort(ratings["row"])].tolist()):
            rows = ratings[items == item]
            said = ", ".join(f"{people[row['who']]} “{values[row['said']]}”" for row in rows[:COMPARED])
            yield f"line {rows[0]['line']}: {said}"

    def facts(self) -> dict[str, Any]:
        return {"agreement": self._facts} if self._facts else {}


def _far_below(shares: dict[str, tuple[float, int]]) -> Iterator[Finding]:
    """Annotators that agree with the others much less than is usual; `shares` tells how much, and over how many items.
    """
    usual = median(share for share, _ in shares.values()) if shares else 0.0
    far = {name: told for name, told in shares.items() if told[1] >= FEWEST_ITEMS and told[0] < usual - FAR_BELOW}
    if far and len(shares) > 2:
        who = "1 annotator says" if len(far) == 1 else f"{len(far):,} annotators say"
        yield Finding("agreement", "note", f"{who} what most others say much less often than is usual, which is in "
                      f"{usual:.0%} of items", "look at what they do differently, and perhaps leave out their ratings",
                      examples=[f"{name}: {share:.0%} of {items:,} items" for name, (share, items) in
                                sorted(far.items(), key=lambda entry: entry[1])], kind="annotators")


def _disputed(items: Ints, said: Ints) -> NDArray[np.bool_]:
    """Ratings of items of which not all say the same; `items` are 0, 1, … in order."""
    differs = np.zeros(int(items[-1]) + 1, bool)
    differs[items[said != said[np.searchsorted(items, items)]]] = True
    return np.asarray(differs[items])
