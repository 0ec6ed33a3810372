"""Rows that were made up never judge a model: the split is made of the original rows alone.

A made-up row says in a column of its own which row it was made from, so that it is known wherever the file goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from tuneloop.data.clean import Row
from tuneloop.data.split import Parts

AUGMENTED_FROM = "augmented_from"
"""The column of a made-up row that holds the digest (`Origin.row`) of the row it was made from."""


@dataclass(frozen=True)
class Apart(Generic[Row]):
    """A split, and the made-up rows whose original is held out or gone: they must not train."""

    parts: Parts[Row]
    left_out: list[Row]


def parent_of(values: Mapping[str, Any]) -> str:
    """The digest of the row that a row was made from; nothing for an original one."""
    return str(values.get(AUGMENTED_FROM) or "")


def split_originals(rows: Sequence[Row], parents: Mapping[Row, str],
                    split: Callable[[Sequence[Row]], Parts[Row]]) -> Apart[Row]:
    """`split` of the original rows; then a made-up row trains where the row it was made from trains.

    `parents` names for every made-up row the digest of the row it was made from.
    """
    parts = split([row for row in rows if row not in parents])
    trained = {row.origin.row for row in parts.train}
    made = [row for row in rows if row in parents]
    kept = [row for row in made if parents[row] in trained]
    return Apart(Parts([*parts.train, *kept], parts.validation, parts.test),
                 [row for row in made if parents[row] not in trained])
