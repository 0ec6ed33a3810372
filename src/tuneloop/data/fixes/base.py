"""What a fix is: it makes new rows from rows, and says of every change what it was, why, and where.

To add one, write `fixes/<name>.py` with a class `Fix(base.Fix)`. Nothing is changed in place: neither the items, nor
their values, nor the file that they came from.

    class Fix(base.Fix):
        '''Rows without white space at either end.'''
        kind: Literal["strip"] = "strip"

        def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
            stripped = [tools.changed(item, map_texts(item.values, str.strip)) for item in items]
            touched = [old.origin for old, new in zip(items, stripped, strict=True) if new is not old]
            return Applied(stripped, [Change(f"{count_of(touched)} stripped", "white space is no content",
                                             Places(touched))] if touched else [])
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from tuneloop.data.checks.base import Check
from tuneloop.data.findings import Places
from tuneloop.spec import Spec
from tuneloop.types import Message, Origin, Sample

Values = dict[str, Any]
Again = Callable[[Values, Origin], Sample]
"""The sample of a row whose values have changed. Raises UserError where the row is a sample no more."""
Generate = Callable[[Sequence[tuple[Message, ...]]], list[str]]
"""One answer for each of n prompts."""


@dataclass(frozen=True)
class Item:
    """A raw row and the sample made of it.

    `origin` is the row's place in the very first file, whatever was done to it since. Of several rows made from one all
    have its origin. `made_by` is the kind of the fix that thought the row up (`augment`); such a row may only train,
    and only where the row of its origin trains.
    """

    values: Values
    origin: Origin
    sample: Sample
    made_by: str = ""


@dataclass(frozen=True)
class Change:
    """One kind of change: to which rows it happened, and why.

    `what` is a sentence with its count and without its places: `12 rows dropped: near-duplicates of others`.
    """

    what: str
    why: str
    places: Places = field(default_factory=Places)
    examples: Sequence[str] = ()        # a few short excerpts, old and new; never a secret in full

    def __str__(self) -> str:
        return f"{self.what}: {self.places}" if len(self.places) else self.what

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"what": self.what, "why": self.why, "rows": len(self.places), "places": self.places.to_json(),
                "examples": list(self.examples)}


@dataclass(frozen=True)
class Applied:
    """What a fix made: the rows there are now, and the log; no change, no entry."""

    items: list[Item]
    log: list[Change]


@dataclass(frozen=True)
class Tools:
    """What a fix may use beside the rows."""

    again: Again
    generate: Generate | None = None                    # a model that answers; None where there is none
    tokens: Callable[[Sample], int] | None = None       # of a sample for the base; None where no base is named
    checks: Callable[[], Mapping[str, Check]] = dict    # beside those of the catalog: the proof needs a base

    def changed(self, item: Item, values: Values) -> Item:
        """`item` with other values and the sample that they make; the same item where nothing differs."""
        if values == item.values:
            return item
        return replace(item, values=values, sample=self.again(values, item.origin))


class Fix(Spec):
    """A fix with its options. It is a part of the recipe: frozen, unknown keys refused, the same result every time."""

    about: ClassVar[str] = ""
    """What it does, for the list of fixes: `drops every row that the named checks name`."""

    only_training: ClassVar[bool] = False
    """Whether it is for rows that train alone, after the split: it would falsify what the result is judged by."""

    kind: str
    """The fix's name: `kind: Literal["redact"] = "redact"`."""

    @abstractmethod
    def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
        """The rows after the fix, in their order."""


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every text in it changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_texts(inner, change) for inner in value]
    if isinstance(value, dict):
        return {key: map_texts(inner, change) for key, inner in value.items()}
    return value


def count_of(rows: Sized) -> str:
    """`1 row`, `1,204 rows`."""
    return "1 row" if len(rows) == 1 else f"{len(rows):,} rows"
