"""About as many rows of every label, or of every value of a column."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from itertools import cycle, islice
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tuneloop.data.clean import written
from tuneloop.data.findings import Places
from tuneloop.data.fixes import base
from tuneloop.data.fixes.base import Applied, Change, Item, Tools, count_of
from tuneloop.data.labels.place import AnswerPlace
from tuneloop.data.template import MOST_LABELS
from tuneloop.errors import UserError

FEWEST = 10             # rows of the rarest value, below which all others would be cut down to too little


class Fix(base.Fix):
    """Which rows go or come again is drawn by what they say, so that their order does not matter. Training rows alone:
    test rows stay as they come in life.
    """

    about: ClassVar[str] = "takes fewer rows of frequent labels, or rare ones several times"
    only_training: ClassVar[bool] = True

    kind: Literal["balance"] = "balance"
    column: str | None = None
    """The column whose values are balanced; the labels unless given."""
    ratio: Annotated[float, Field(ge=1)] = 3.0
    """How many times as many rows the most frequent value may have as the rarest."""
    how: Literal["fewer", "repeat"] = "fewer"
    """Leave out rows of the frequent values, or take rows of the rare ones again."""
    seed: int = 0
    """Another seed draws other rows."""

    def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
        groups = self._groups(items)
        sizes = {value: len(numbers) for value, numbers in groups.items()}
        most, fewest = max(sizes.values(), default=0), min(sizes.values(), default=0)
        if most <= self.ratio * fewest:
            return Applied(list(items), [])
        if self.how == "fewer" and fewest < FEWEST:
            rarest = min(sizes, key=sizes.__getitem__)
            raise UserError(f"balance: “{rarest}” has only {count_of(groups[rarest])}, to which others would be cut.",
                            wanted=f"at least {FEWEST} rows of each",
                            fix="merge it with another (relabel), drop it, or use how=repeat")
        times = [1] * len(items)
        log: list[Change] = []
        for value, numbers in groups.items():
            drawn = sorted(numbers, key=lambda number: (self._draw(items[number]), number))
            left = drawn[math.floor(self.ratio * fewest):] if self.how == "fewer" else []
            missing = math.ceil(most / self.ratio) - len(numbers) if self.how == "repeat" else 0
            again = list(islice(cycle(drawn), max(0, missing)))
            for number in left:
                times[number] = 0
            for number in again:
                times[number] += 1
            log += self._changes(value, "left out", left, items) + self._changes(value, "taken again", again, items)
        return Applied([item for item, copies in zip(items, times, strict=True) for _ in range(copies)], log)

    def _groups(self, items: Sequence[Item]) -> dict[str, list[int]]:
        """Numbers of the rows of each value. Raises UserError where there are too many values to balance."""
        if self.column and items and not any(self.column in item.values for item in items):
            raise UserError(f'balance: no row has the column "{self.column}".',
                            wanted=f"one of: {', '.join(items[0].values)}")
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for number, item in enumerate(items):
            value = AnswerPlace(self.column).read(item.values) if self.column else item.sample.answer
            groups[(value or "").strip()].append(number)
        if len(groups) > MOST_LABELS:
            what = f'values of "{self.column}"' if self.column else "answers"
            raise UserError(f"balance: there are {len(groups):,} different {what}.",
                            wanted=f"labels, at most {MOST_LABELS}",
                            fix="name a column of few values: balance column=…")
        return groups

    def _draw(self, item: Item) -> bytes:
        return blake2b(f"{self.seed}\n{written(item.sample)}".encode(), digest_size=8).digest()

    def _changes(self, value: str, what: str, numbers: Sequence[int], items: Sequence[Item]) -> list[Change]:
        if not numbers:
            return []
        why = f"no value has more than {self.ratio:g} times the rows of another"
        return [Change(f"{count_of(numbers)} of “{value}” {what}", why,
                       Places(items[number].origin for number in sorted(numbers)))]
