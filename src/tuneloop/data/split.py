"""Which rows train and which are held out: decided by content, so that the order of the rows does not matter and rows
that belong together are always on the same side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np

from tuneloop.data.clean import Row, asked
from tuneloop.data.near.links import components
from tuneloop.data.spec import Share, Split
from tuneloop.errors import UserError
from tuneloop.types import Origin, Sample

Keys = Mapping[Origin, Hashable]
"""What rows belong to; a row without a key belongs to nothing."""
NO_KEYS = (None, "")


@dataclass(frozen=True)
class Parts(Generic[Row]):
    """The rows of each part, in the order in which they were given."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]


def split(rows: Sequence[Row], validation: Share, test: Share, *, seed: int, labels: bool,
          together: Sequence[Keys] = (), times: Mapping[Origin, float] | None = None) -> Parts[Row]:
    """Hold out `validation` and `test` of the rows, as counts or as shares below 1; stratified by answer for labels.

    Rows with the same prompt are never parted, nor rows to which one of `together` gives the same key: the customer
    they come from, the near-duplicates they belong to. With `times` the newest rows are tested, and those before them
    validated. Counts are exact when no two rows belong together. Raises UserError when they cannot be met or nothing is
    left to train.
    """
    tests, validations = _count(test, "test", len(rows)), _count(validation, "validation", len(rows))
    if tests + validations >= len(rows):
        raise UserError(f"Holding out {tests} test and {validations} validation rows leaves nothing to train on: "
                        f"there are {len(rows)} rows.", fix="lower data.split.test or data.split.validation")

    def hold_out(some: Sequence[Row], count: int) -> set[Row]:
        if times is not None:
            return _newest(some, count, times, seed, together)
        return draw(some, count, seed=seed, labels=labels, together=together)

    tested = hold_out(rows, tests)
    rest = [row for row in rows if row not in tested]
    validated = hold_out(rest, validations)
    parts = Parts([r for r in rest if r not in validated], [r for r in rest if r in validated],
                  [r for r in rows if r in tested])
    for name, wanted, got in (("test", tests, parts.test), ("validation", validations, parts.validation)):
        if wanted and not got:
            shared = "prompts, groups or near-duplicates" if together else "prompts"
            raise UserError(f"No rows can be held out for {name}: too many rows share the same few {shared}, and such "
                            "rows stay together.",
                            fix=f"give data.{name}, a file of its own, or set data.split.{name}=0")
    return parts


def draw(rows: Sequence[Row], count: int, *, seed: int, labels: bool, together: Sequence[Keys] = ()) -> set[Row]:
    """At most `count` rows, all rows of a unit or none; exactly `count` when no two rows belong together."""
    if not count:
        return set()
    strata: dict[str, list[list[Row]]] = {}
    for _, unit in _units(rows, seed, together):
        stratum = min(row.answer for row in unit) if labels else ""
        strata.setdefault(stratum, []).append(unit)
    sizes = {name: sum(map(len, units)) for name, units in sorted(strata.items())}
    drawn: set[Row] = set()
    for name, quota in largest_remainder(sizes, min(count, len(rows))).items():
        for unit in strata[name]:
            if len(unit) <= quota:
                quota -= len(unit)
                drawn.update(unit)
    return drawn


def _newest(rows: Sequence[Row], count: int, times: Mapping[Origin, float], seed: int,
            together: Sequence[Keys]) -> set[Row]:
    """The newest units that fit into `count` rows. A unit is as new as its newest row, so that none is learnt from
    that is newer than what is held out.
    """
    held_out: set[Row] = set()
    for _, unit in sorted(_units(rows, seed, together), key=lambda unit: -max(times[row.origin] for row in unit[1])):
        if len(held_out) + len(unit) > count:
            break
        held_out.update(unit)
    return held_out


def _units(rows: Sequence[Row], seed: int, together: Sequence[Keys]) -> list[tuple[str, list[Row]]]:
    """Rows that are never parted, in an order that is drawn for what they ask."""
    prompts: dict[str, list[Row]] = {}
    for row in rows:
        prompts.setdefault(_order(row, seed), []).append(row)
    if not together:
        return sorted(prompts.items())
    orders = sorted(prompts)
    units: dict[int, list[str]] = {}
    for order, unit in zip(orders, _linked([prompts[order] for order in orders], together), strict=True):
        units.setdefault(unit, []).append(order)
    return sorted((several[0] if len(several) == 1 else _digest(several), [row for order in several
                                                                           for row in prompts[order]])
                  for several in units.values())


def _linked(prompts: Sequence[Sequence[Row]], together: Sequence[Keys]) -> list[int]:
    """For each prompt's rows the number of the unit that keys put them into."""
    pairs = []
    for keys in together:
        first: dict[Hashable, int] = {}
        for number, rows in enumerate(prompts):
            for row in rows:
                key = keys.get(row.origin)
                if key not in NO_KEYS:
                    pairs.append((number, first.setdefault(key, number)))
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    linked: list[int] = components(len(prompts), left, right).tolist()
    return linked


def _order(row: Sample, seed: int) -> str:
    """A number drawn for the prompt alone: sha256 of the seed and of what is asked."""
    return _digest([seed, asked(row)])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()


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
