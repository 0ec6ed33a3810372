"""Which rows train and which are held out: decided by content, so that the order of the rows does not matter and rows
with the same prompt are always on the same side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from tuneloop.data.clean import Row, asked
from tuneloop.data.spec import Share, Split
from tuneloop.errors import UserError
from tuneloop.types import Sample


@dataclass(frozen=True)
class Parts(Generic[Row]):
    """The rows of each part, in the order in which they were given."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]


def split(rows: Sequence[Row], validation: Share, test: Share, *, seed: int, labels: bool) -> Parts[Row]:
    """Hold out `validation` and `test` of the rows, as counts or as shares below 1; stratified by answer for labels.

    Counts are exact when every prompt is unique. Raises UserError when they cannot be met or nothing is left to train.
    """
    tests, validations = _count(test, "test", len(rows)), _count(validation, "validation", len(rows))
    if tests + validations >= len(rows):
        raise UserError(f"Holding out {tests} test and {validations} validation rows leaves nothing to train on: "
                        f"there are {len(rows)} rows.", fix="lower data.split.test or data.split.validation")
    tested = draw(rows, tests, seed=seed, labels=labels)
    rest = [row for row in rows if row not in tested]
    validated = draw(rest, validations, seed=seed, labels=labels)
    parts = Parts([r for r in rest if r not in validated], [r for r in rest if r in validated],
                  [r for r in rows if r in tested])
    for name, wanted, got in (("test", tests, parts.test), ("validation", validations, parts.validation)):
        if wanted and not got:
            raise UserError(f"No rows can be held out for {name}: too many rows share the same few prompts, and rows "
                            "with the same prompt stay together.",
                            fix=f"give data.{name}, a file of its own, or set data.split.{name}=0")
    return parts


def draw(rows: Sequence[Row], count: int, *, seed: int, labels: bool) -> set[Row]:
    """At most `count` rows, all rows of a prompt or none; exactly `count` when every prompt is unique."""
    if not count:
        return set()
    prompts: dict[str, list[Row]] = {}
    for row in rows:
        prompts.setdefault(_order(row, seed), []).append(row)
    strata: dict[str, list[list[Row]]] = {}
    for _, group in sorted(prompts.items()):
        stratum = min(row.answer for row in group) if labels else ""
        strata.setdefault(stratum, []).append(group)
    sizes = {name: sum(map(len, groups)) for name, groups in sorted(strata.items())}
    drawn: set[Row] = set()
    for name, quota in largest_remainder(sizes, min(count, len(rows))).items():
        for group in strata[name]:
            if len(group) <= quota:
                quota -= len(group)
                drawn.update(group)
    return drawn


def _order(row: Sample, seed: int) -> str:
    """A number drawn for the prompt alone: sha256 of the seed and of what is asked."""
    return hashlib.sha256(json.dumps([seed, asked(row)], ensure_ascii=False).encode()).hexdigest()


def largest_remainder(sizes: dict[str, int], count: int) -> dict[str, int]:
    """Seats for each name in proportion to its size, which add up to `count` (at most the sum of the sizes)."""
    total = sum(sizes.values())
    seats = {name: count * size // total for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (-(count * sizes[name] % total), name))
    for name in by_remainder[:count - sum(seats.values())]:
        seats[name] += 1
    return seats


def _count(share: Share, name: str, rows: int) -> int:
    if share < 1:
        return max(1, int(rows * share + 0.5)) if share else 0
    if share != int(share):
        raise UserError(f"data.split.{name} is {share}.", wanted="a share below 1 or a whole number of rows")
    if share > rows:
        raise UserError(f"data.split.{name} asks for {int(share)} rows; there are {rows}.",
                        fix=f"a share such as data.split.{name}={getattr(Split(), name)}")
    return int(share)


def without_leaks(rows: Sequence[Row], held_out: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows whose prompt is not among the held-out ones, and those whose prompt is."""
    prompts = {asked(row) for row in held_out}
    return [r for r in rows if asked(r) not in prompts], [r for r in rows if asked(r) in prompts]
