"""Pairs of nearly equal texts, and clusters of them. Every pair is compared shingle by shingle: none is a guess."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from tuneloop.data.near.links import Links, components
from tuneloop.data.near.shingles import Words, jaccard, mixed, shingles
from tuneloop.data.near.sketches import WINDOW, Candidates, Sketches, shares
from tuneloop.data.near.texts import Indexed, Numbers, batches
from tuneloop.types import Floats

NEAR = 0.8                  # the Jaccard index from which texts count as nearly equal
REMEMBERED = 64             # texts whose shingles are kept for the next comparison
WORTHWHILE = 0.05           # of neighbours in a crowd; where fewer are alike they share boilerplate

Pieces = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Near:
    """What is nearly equal among n texts. Pairs name only the first of equal texts."""

    first: Numbers          # (n,) the number of the first text that is equal
    left: Numbers           # (p,)
    right: Numbers          # (p,) greater than `left`
    alike: Floats           # (p,) the pair's Jaccard index
    disk_bytes: int         # that temporary files took meanwhile

    def clusters(self) -> Numbers:
        """(n,) For each text the first of its cluster: texts linked by equality and by pairs."""
        return components(len(self.first), self.left, self.right)[self.first]


def near(texts: Indexed, threshold: float = NEAR, *, sides: Numbers | None = None,
         pieces: Pieces = lambda text: (text,)) -> Near:
    """Pairs of texts whose Jaccard index over shingles is at least `threshold`.

    With `sides` (n,) only texts of different sides are compared, and equal texts of different sides are a pair.
    `pieces` cuts a text into parts that must be alike each; the least of their indices counts. Of clusters with more
    than WINDOW texts not every pair is looked for, only what links them; so time is linear however alike they are.
    """
    keys = bytearray()
    sketches = Sketches(threshold)
    for batch in batches(texts):
        keys += b"".join(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in batch)
        sketches.extend(batch)
    first = first_equals(np.frombuffer(keys, np.uint64), sides)
    del keys
    found = _Found(texts, pieces, threshold)
    for candidates in sketches.candidates(first == np.arange(len(first))):
        found.look_at(candidates if sides is None else
                      candidates.where(sides[candidates.left] != sides[candidates.right]))
    sketches.close()
    return Near(first, np.array(found.left), np.array(found.right), np.array(found.alike), sketches.disk_bytes)


class _Found:
    """Compares candidates, each pair once, and keeps those that are alike."""

    def __init__(self, texts: Indexed, pieces: Pieces, threshold: float) -> None:
        self.threshold, self.count = threshold, len(texts)
        self.left, self.right, self.alike = array("q"), array("q"), array("f")
        self._compared: Words = np.empty(0, np.uint64)      # left * count + right of every pair, ascending
        self._links = Links(self.count)
        self._crowd_is_alike = True
        self._shingles = lru_cache(REMEMBERED)(lambda number: [shingles(piece) for piece in pieces(texts[number])])

    def look_at(self, candidates: Candidates) -> None:
        if candidates.step == 1:
            self._crowd_is_alike = True
        root = self._links.roots(candidates.left)
        needless = (root == self._links.roots(candidates.right)) & (self._links.sizes(root) > WINDOW)
        wanted = candidates.where(~needless)
        self._compare(wanted.where(~wanted.crowded))
        if self._crowd_is_alike and wanted.crowded.any():
            before = len(self.alike)
            compared = self._compare(wanted.where(wanted.crowded))
            self._crowd_is_alike = len(self.alike) - before >= WORTHWHILE * compared

    def _compare(self, pairs: Candidates) -> int:
        """How many pairs were new, and so compared."""
        keys = np.sort(pairs.left.astype(np.uint64) * np.uint64(self.count) + pairs.right.astype(np.uint64))
        at = np.searchsorted(self._compared, keys)
        fresh = np.append(self._compared, _NEVER)[at] != keys
        keys, at = keys[fresh], at[fresh]
        self._compared = np.insert(self._compared, at, keys)
        for key in keys.tolist():
            left, right = divmod(key, self.count)
            alike = min(map(jaccard, self._shingles(left), self._shingles(right)))
            if alike >= self.threshold:
                self.left.append(left)
                self.right.append(right)
                self.alike.append(alike)
                self._links.join(left, right)
        return len(keys)


_NEVER = np.uint64(2**64 - 1)       # the key of no pair


def first_equals(keys: Words, sides: Numbers | None = None) -> Numbers:
    """(n,) For each key the number of the first that is equal, on the same side."""
    if sides is not None:
        keys = mixed(keys + sides.astype(np.uint64))
    first = np.empty(len(keys), np.int32)
    for numbers in shares(keys):
        numbers = numbers[np.argsort(keys[numbers], kind="stable")]
        ordered = keys[numbers]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        first[numbers] = np.repeat(numbers[starts], np.diff(np.append(starts, len(numbers))))
    return first
