"""Rows that were made up never judge a model: the original rows are split alone, and made-up ones join the training
rows afterwards, each only where the row it was made from trains.

A made-up row says in a column of its own which row it was made from, so that it is known wherever its file goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneloop.data.fixes.base import Item
from tuneloop.data.read import Row
from tuneloop.types import Origin

AUGMENTED_FROM = "augmented_from"
"""The column of a made-up row with the digest of the row it was made from."""
MADE_BY = "augment"


def digest_of(values: Mapping[str, Any]) -> str:
    """The name of a row by what it holds, also after a table has turned numbers into text and nothing into empty text.
    """
    told = {key: value if isinstance(value, str | list | dict) else str(value) for key, value in values.items()
            if key != AUGMENTED_FROM and value not in (None, "")}
    return Row(0, told).digest


def is_made_up(item: Item) -> bool:
    """Whether a fix thought the row up, in this run or before its file was written."""
    return bool(item.made_by or item.values.get(AUGMENTED_FROM))


def apart(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """The original rows, and the made-up ones, whose origin is that of the row they were made from.

    A made-up row whose original is not among them keeps an origin of its own, which nothing original has.
    """
    originals = [item for item in items if not is_made_up(item)]
    named = {digest_of(item.values): item.origin for item in originals}
    return originals, [item if item.made_by else replace(
        item, made_by=MADE_BY, origin=named.get(str(item.values[AUGMENTED_FROM]), item.origin))
        for item in items if is_made_up(item)]


@dataclass(frozen=True)
class Beside:
    """The made-up rows that may train, and those that must not: their original is held out or gone."""

    train: list[Item]
    left_out: list[Item]


def beside(made: Iterable[Item], trained: Iterable[Origin]) -> Beside:
    """Which made-up rows of `apart` may join the original rows that train, given by their origins."""
    origins = set(trained)
    found = Beside([], [])
    for item in made:
        (found.train if item.origin in origins else found.left_out).append(item)
    return found
