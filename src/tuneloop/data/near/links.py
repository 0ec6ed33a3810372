"""Which numbers belong together, when pairs of them do."""

from __future__ import annotations

from array import array

import numpy as np

from tuneloop.data.near.texts import Numbers


class Links:
    """Numbers that are linked, directly or by way of others: a forest of disjoint sets (Galler and Fischer 1964)."""

    def __init__(self, count: int) -> None:
        self._above = array("i", range(count))      # the same or a lesser number of the set
        self._sizes = array("i", [1]) * count       # of the set, where a number is its least

    def root(self, number: int) -> int:
        """The least number of its set."""
        above = self._above
        while above[number] != number:
            above[number] = number = above[above[number]]
        return number

    def join(self, a: int, b: int) -> None:
        least, other = sorted((self.root(a), self.root(b)))
        if least != other:
            self._above[other] = least
            self._sizes[least] += self._sizes[other]

    def roots(self, numbers: Numbers) -> Numbers:
        """The same as `root` for many."""
        above = np.frombuffer(self._above, np.int32)
        while ((further := above[numbers]) != numbers).any():
            numbers = further
        return numbers

    def sizes(self, roots: Numbers) -> Numbers:
        return np.frombuffer(self._sizes, np.int32)[roots]


def components(count: int, left: Numbers, right: Numbers) -> Numbers:
    """(count,) For each number the least one that the pairs link it to."""
    links = Links(count)
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        links.join(a, b)
    return links.roots(np.arange(count))
