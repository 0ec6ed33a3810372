"""How far people agree on what they judged, and a model that judges with them.

What is compared are pairs of answers, whether they were shown alone or among others to be put in order, and ratings of
single answers. Kappa is Cohen's for two people (1960), and Fleiss' for more (1971), over what all of them judged;
Krippendorff's alpha takes in everything that two or more judged. Tests of attention are left out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, Literal

import numpy as np

from tuneloop.data.labels.agreement import cohen_kappa, krippendorff_alpha, pairs, share_that_agrees
from tuneloop.people.store import Said
from tuneloop.types import Ints

What = Literal["pairs", "thumbs", "stars"]
WHATS: tuple[What, ...] = ("pairs", "thumbs", "stars")
Thing = tuple[str, ...]         # what was judged: a question with one answer, or two
CODES = {"first": 0, "second": 1, "tie": 2, "bad": 3}


@dataclass(frozen=True)
class Between:
    """Two people, on what both judged. None for kappa where neither ever varied."""

    first: str
    second: str
    shared: int
    same: float
    kappa: float | None


@dataclass(frozen=True)
class Agreement:
    """How people agree on one kind of thing."""

    what: What
    people: list[str]
    shared: int                     # things that two or more judged
    same: float                     # of pairs of judgements of one thing the share that is equal
    kappa: float | None             # None where nobody ever varied, or nothing was judged by all
    of: str                         # Cohen | Fleiss
    by_all: int                     # things that everybody judged, which kappa is of
    alpha: float | None
    between: list[Between] = field(default_factory=list)

    def sentence(self) -> str:
        """For people."""
        name = {"pairs": "pairs of answers", "thumbs": "thumbs", "stars": "ratings in stars"}[self.what]
        beyond = "not known" if self.kappa is None else f"{self.kappa:.2f}"
        over = f" over the {self.by_all:,} that all judged" if self.by_all != self.shared else ""
        return (f"{len(self.people)} people judged {self.shared:,} {name} in common: {self.same:.0%} the same, "
                f"{self.of}' kappa {beyond}{over}").replace("Cohen'", "Cohen's")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Ratings = dict[str, dict[Thing, int]]
"""By annotator what they said of each thing, as a code."""


def ratings(standing: Iterable[Said]) -> dict[What, Ratings]:
    """The last word of everybody on everything, by kind."""
    found: dict[What, Ratings] = {what: defaultdict(dict) for what in WHATS}
    for said in standing:
        if said.kind != "verdict" or said.check:
            continue
        verdict = said.verdict
        if verdict.liked is not None:
            found["thumbs"][said.annotator][said.question, said.shown[0]] = int(verdict.liked)
        elif verdict.stars is not None:
            found["stars"][said.annotator][said.question, said.shown[0]] = verdict.stars
        else:
            for first, second in combinations(sorted(said.shown), 2):
                found["pairs"][said.annotator][said.question, first, second] = CODES[verdict.relation(first, second)]
    return found


def agreements(standing: Iterable[Said]) -> list[Agreement]:
    """For each kind of thing of which people judged some in common."""
    return [found for what, by in ratings(standing).items() if (found := agreement(what, by)) is not None]


def agreement(what: What, by: Ratings) -> Agreement | None:
    """None where nothing was judged by two people."""
    people = [name for name, said in by.items() if said]
    places = {thing: i for i, thing in enumerate(dict.fromkeys(thing for said in by.values() for thing in said))}
    flat = [(places[thing], who, value) for who, name in enumerate(people) for thing, value in by[name].items()]
    items, who, values = (np.array(column, np.int64) for column in zip(*flat, strict=True)) if flat else (
        np.zeros(0, np.int64),) * 3
    shared = int((np.bincount(items) > 1).sum()) if len(items) else 0
    if not shared:
        return None
    common = [thing for thing in by[people[0]] if all(thing in by[name] for name in people)]
    if len(people) == 2:
        kappa, of = cohen_kappa(*(np.array([by[name][thing] for thing in common]) for name in people)), "Cohen"
    else:
        kappa, of = fleiss_kappa(counted([[by[name][thing] for name in people] for thing in common])), "Fleiss"
    return Agreement(what, people, shared, share_that_agrees(items, values), _or_none(kappa), of, len(common),
                     _or_none(krippendorff_alpha(items, values, "ordinal" if what == "stars" else "nominal")),
                     [Between(people[one.first], people[one.second], one.items, one.same, _or_none(one.kappa))
                      for one in pairs(items, who, values)])


def counted(said: Sequence[Sequence[int]]) -> Ints:
    """(n, codes): how many of each code n things were given."""
    codes = sorted({code for of in said for code in of})
    return np.array([[of.count(code) for code in codes] for of in said], np.int64).reshape(len(said), len(codes))


def fleiss_kappa(counts: Ints) -> float:
    """Agreement of several annotators beyond chance, Fleiss 1971 (Psychological Bulletin 76, 378-382), eqs. 1 to 7.

    `counts` is (n, codes), how many annotators gave each code to n things, the same number of annotators for all. NaN
    for no things, one annotator, or where all always said the same one thing.
    """
    if not len(counts) or (each := int(counts[0].sum())) < 2:
        return math.nan
    share = counts.sum(0) / counts.sum()
    chance = float((share ** 2).sum())
    observed = float(((counts ** 2).sum(1) - each).mean() / (each * (each - 1)))
    return (observed - chance) / (1 - chance) if chance < 1 else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


# --- a model among people --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WithPeople:
    """How a model that judges agrees with what most people say. A tie and two bad answers are one thing here: a model
    is not asked whether both are bad.
    """

    judge: str
    what: What
    judged: int
    shared: int                 # things on which most people say one thing
    same: float | None
    kappa: float | None

    def sentence(self) -> str:
        if not self.shared:
            return f"{self.judge} (a model) judged {self.judged:,}, and people none of them"
        beyond = "not known" if self.kappa is None else f"{self.kappa:.2f}"
        return (f"{self.judge} (a model) judged {self.judged:,}; of the {self.shared:,} that people judged too it says "
                f"what most of them say on {self.same:.0%}, Cohen's kappa {beyond}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def with_people(people: Iterable[Said], judges: Iterable[Said]) -> list[WithPeople]:
    """Every judge with the majority of people."""
    said, models = ratings(people), ratings(judges)
    return [_with_most(judge, what, of, _majority(said[what])) for what in WHATS for judge, of in models[what].items()]


def _with_most(judge: str, what: What, of: Mapping[Thing, int], most: Mapping[Thing, int]) -> WithPeople:
    both = [thing for thing in of if thing in most]
    mine, theirs = (np.array([_no_winner(what, by[thing]) for thing in both], np.int64) for by in (of, most))
    return WithPeople(judge, what, len(of), len(both), float((mine == theirs).mean()) if both else None,
                      _or_none(cohen_kappa(mine, theirs)))


def _no_winner(what: What, code: int) -> int:
    return CODES["tie"] if what == "pairs" and code == CODES["bad"] else code


def _majority(by: Ratings) -> dict[Thing, int]:
    """What most people say of each thing; not where two answers are as frequent."""
    said: defaultdict[Thing, list[int]] = defaultdict(list)
    for of in by.values():
        for thing, code in of.items():
            said[thing].append(code)
    found = {}
    for thing, codes in said.items():
        (first, most), *others = Counter(codes).most_common(2)
        if not others or others[0][1] < most:
            found[thing] = first
    return found
