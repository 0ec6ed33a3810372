"""A sample of rows of fixed size, drawn while they stream by, and the same for the same number of rows."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush, heappushpop
from typing import Generic, TypeVar

import numpy as np

from tuneloop.data.near.shingles import mixed

Kept = TypeVar("Kept")


class RowSample(Generic[Kept]):
    """At most `size` of all rows, each with the same chance: those whose numbers mix to the smallest keys."""

    def __init__(self, size: int) -> None:
        self.size, self.rows = size, 0
        self._heap: list[tuple[int, int, Kept]] = []        # minus the key, the number of the row, what is kept of it

    def add(self, count: int, make: Callable[[int], Kept]) -> None:
        """The next `count` rows; `make` is asked for what to keep of the n-th of them, if it is chosen."""
        keys = (mixed(np.arange(self.rows + 1, self.rows + count + 1, dtype=np.uint64)) >> np.uint64(1)).tolist()
        for at, key in enumerate(keys):
            if len(self._heap) < self.size:
                heappush(self._heap, (-key, self.rows + at, make(at)))
            elif -key > self._heap[0][0]:
                heappushpop(self._heap, (-key, self.rows + at, make(at)))
        self.rows += count

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def kept(self) -> list[Kept]:
        """In the order of the rows."""
        return [kept for _, _, kept in sorted(self._heap, key=lambda entry: entry[1])]

    @property
    def drawn(self) -> list[Kept]:
        """In the order in which they were drawn: the first n of these are a sample of n rows."""
        return [kept for _, _, kept in sorted(self._heap, key=lambda entry: -entry[0])]
