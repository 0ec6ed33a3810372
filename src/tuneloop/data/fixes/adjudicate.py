"""One label for every item that several annotators have labelled: the one that is likely true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tuneloop.data.checks.base import turns_text
from tuneloop.data.findings import Places
from tuneloop.data.fixes import base
from tuneloop.data.fixes.base import Applied, Change, Item, Tools, count_of
from tuneloop.data.fixes.relabel import place_of_labels
from tuneloop.data.labels.adjudicate import Adjudicated, dawid_skene
from tuneloop.data.labels.annotators import Annotated as Ratings
from tuneloop.data.labels.annotators import annotated
from tuneloop.data.labels.place import AnswerPlace
from tuneloop.errors import UserError
from tuneloop.types import Ints

CONFIDENCE = "label_confidence"
LOOKED_AT = 5_000       # rows that tell how ratings are carried


class Fix(base.Fix):
    """By the model of Dawid and Skene, which weighs every annotator by how they err. Of rows that repeat an item for
    every annotator the first stays. How sure the label is goes into the column `label_confidence`.
    """

    about: ClassVar[str] = "one row for each item with the label that is likely true, where several people labelled it"

    kind: Literal["adjudicate"] = "adjudicate"
    into: str | None = None
    """The column that the label is written to; the one that answers are read from unless given."""
    least_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Items whose label is less sure are dropped."""

    def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
        how = annotated([item.values for item in items[:LOOKED_AT]])
        if how is None:
            raise UserError("adjudicate: no column holds what several annotators said.",
                            wanted="columns such as annotation_1 and annotation_2, a list in a column annotations, or "
                                   "a column annotator and a row for each of them")
        place = AnswerPlace(self.into) if self.into else place_of_labels(items, None, "adjudicate")
        ratings = _Ratings.of(items, how)
        if not len(ratings.items):
            return Applied(list(items), [])
        settled = dawid_skene(ratings.items, ratings.annotators, ratings.said)
        return self._rows(items, tools, place, ratings, settled)

    def _rows(self, items: Sequence[Item], tools: Tools, place: AnswerPlace, ratings: _Ratings,
              settled: Adjudicated) -> Applied:
        rows: list[Item] = []
        changed, unsure, further = Places(), Places(), Places()
        done = set[int]()
        for item, number in zip(items, ratings.of_row, strict=True):
            if number is None:
                rows.append(item)
            elif number in done:
                further.add(item.origin)
            else:
                done.add(number)
                sure = float(settled.labels[number].max())
                if sure < self.least_confidence:
                    unsure.add(item.origin)
                    continue
                label = ratings.values[int(settled.labels[number].argmax())]
                if place.read(item.values) != label:
                    changed.add(item.origin)
                rows.append(tools.changed(item, place.write(item.values, label) | {CONFIDENCE: round(sure, 4)}))
        why = f"what {len(ratings.people):,} annotators said, each weighed by how they err (Dawid and Skene 1979)"
        what = f"{len(done):,} items have one label now" + (
            f"; that of {count_of(changed)} is another than before" if changed else "")
        log = [Change(what, why, changed, ratings.skills(settled)),
               Change(f"{count_of(further)} dropped", "further ratings of the same item", further),
               Change(f"{count_of(unsure)} dropped", f"the label is less sure than {self.least_confidence:g}", unsure)]
        return Applied(rows, [log[0], *(change for change in log[1:] if change.places)])


@dataclass(frozen=True)
class _Ratings:
    """Ratings as arrays, and for each row the item that it is, None where nobody rated it."""

    items: Ints
    annotators: Ints
    said: Ints
    of_row: list[int | None]
    people: list[str]
    values: list[str]

    @classmethod
    def of(cls, items: Sequence[Item], how: Ratings) -> _Ratings:
        numbers: dict[str | int, int] = {}
        people: dict[str, int] = {}
        values: dict[str, int] = {}
        flat, of_row = list[tuple[int, int, int]](), list[int | None]()
        for row, item in enumerate(items):
            ratings = how.ratings(item.values, item.sample.answer)
            key = turns_text(item.sample.prompt) if how.how == "rows" else row
            number = numbers.setdefault(key, len(numbers)) if ratings else None
            of_row.append(number)
            flat += [(number, people.setdefault(who, len(people)), values.setdefault(value, len(values)))
                     for who, value in ratings if number is not None]
        columns = np.array(flat, np.int64).reshape(-1, 3).T
        return cls(columns[0], columns[1], columns[2], of_row, list(people), list(values))

    def skills(self, settled: Adjudicated) -> list[str]:
        """How often each annotator is likely right."""
        right = np.einsum("k,akk->a", settled.shares, settled.errors)
        return [f"{name} is right in {share:.0%} of cases" for name, share in zip(self.people, right, strict=True)][:10]
