"""Leaving a kind of rows out: clusters of similar wording, one of which a run does not train on and is tested on alone.

Clusters are made of all rows of all parts, after the split: they do not change what is held out. What is mixed in from
other sources belongs to none and stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from tuneloop.data.near.wording import clusters, wordings, words_of
from tuneloop.data.spec import LeaveOut
from tuneloop.data.split import largest_remainder
from tuneloop.errors import UserError
from tuneloop.types import Ints, Origin

FEWEST_TESTED = 10          # test rows of a cluster; below, a model is not judged on it

Kept = dict[str, list[Any]]         # by part


@dataclass(frozen=True)
class Cluster:
    """Rows that are worded alike, and how many of them are in each part. Cluster 0 has the most rows."""

    cluster: int
    words: list[str]    # that set it apart, the first the most
    train: int
    validation: int
    test: int

    @property
    def name(self) -> str:
        """`cluster 2 (parcel, delivered, tracking)`."""
        return f"cluster {self.cluster}" + (f" ({', '.join(self.words)})" if self.words else "")


def leave_out(kept: Mapping[str, Sequence[Any]], asked: LeaveOut,
              seed: int) -> tuple[Kept, list[Origin], list[Cluster]]:
    """The parts with the cluster asked for in `test` alone and nothing else there, where the rows are that this takes
    out, and all clusters. Where no cluster is asked for, all rows stay.

    Rows are sorted by what they say, in any order the same. Raises UserError for more clusters than different texts,
    for a cluster with too few test rows, and where nothing would be left to train on.
    """
    texts = wordings([row for rows in kept.values() for row in rows])
    every = _sorted(texts, asked.clusters, seed)
    own = dict(zip(kept, np.split(every, np.cumsum([len(rows) for rows in kept.values()])[:-1]), strict=True))
    counts = {part: np.bincount(of, minlength=asked.clusters).tolist() for part, of in own.items()}
    found = [Cluster(i, words, *(counts[part][i] for part in ("train", "validation", "test")))
             for i, words in enumerate(words_of(texts, every, asked.clusters))]
    if asked.cluster is None:
        return {part: list(rows) for part, rows in kept.items()}, [], found
    _require_enough(found, asked.cluster)
    stays = {part: (of == asked.cluster) == (part == "test") for part, of in own.items()}
    out = [row.origin for part, rows in kept.items() for row, stay in zip(rows, stays[part], strict=True) if not stay]
    return {part: [row for row, stay in zip(rows, stays[part], strict=True) if stay]
            for part, rows in kept.items()}, out, found


def _sorted(texts: Sequence[str], k: int, seed: int) -> Ints:
    """The cluster of each text; the largest is 0."""
    order = sorted(range(len(texts)), key=lambda i: blake2b(texts[i].encode("utf-8", "surrogatepass")).digest())
    found = clusters([texts[i] for i in order], k, seed)
    rank = np.argsort(np.argsort(-np.bincount(found, minlength=k), kind="stable"))
    own = np.empty(len(texts), np.int64)
    own[order] = rank[found]
    return own


def _require_enough(found: Sequence[Cluster], number: int) -> None:
    one = found[number]
    if why := too_small(one) or takes_all(one, found):
        raise UserError(f"data.split.leave_out cannot leave out {one.name}: {why}.",
                        fix="another cluster, another number of clusters, or a larger data.split.test")


def too_small(one: Cluster) -> str:
    """Why nothing can be judged on it, or nothing."""
    rows = "1 test row" if one.test == 1 else f"{one.test} test rows"
    return f"it has {rows}, fewer than {FEWEST_TESTED}" if one.test < FEWEST_TESTED else ""


def takes_all(one: Cluster, found: Sequence[Cluster]) -> str:
    """Why nothing can be trained without it, or nothing."""
    return "all training rows are in it" if one.train == sum(other.train for other in found) else ""


def share_of(rows: int | None, found: Sequence[Cluster], number: int) -> int | None:
    """How many of `rows` test rows, drawn from all clusters, are of one of them: 1 at least."""
    if rows is None or rows >= (total := sum(one.test for one in found)):
        return None
    seats = largest_remainder({f"{one.cluster:09}": one.test for one in found}, min(rows, total))
    return max(1, seats[f"{number:09}"])
