"""What is done to the rows that train after others were held out: fixes for them alone, rows of other sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from tuneloop.data.augment.apart import beside
from tuneloop.data.fix import Step, apply_all
from tuneloop.data.fixes.base import Again, Item
from tuneloop.data.load import Loaded, Wanted, made_of
from tuneloop.data.mix import Mixed, mix
from tuneloop.data.near.rows import alike
from tuneloop.data.read import Table
from tuneloop.data.spec import DataSpec
from tuneloop.data.split import without_leaks
from tuneloop.data.task import Task, with_clean_label
from tuneloop.errors import UserError
from tuneloop.types import Origin


@dataclass(frozen=True)
class Added:
    """The training rows as they are then; what was mended, what was mixed in, and what was left out as held out."""

    own: list[Any]
    others: list[Any]           # that were mixed in: they have no say in what the labels of the task are
    steps: list[Step]
    mixed: list[Mixed]
    leaks: list[Origin]
    orphans: list[Origin]       # made from rows that do not train

    @property
    def rows(self) -> list[Any]:
        return [*self.own, *self.others]


def for_training(spec: DataSpec, kept: Mapping[str, Sequence[Any]], own: Loaded, *, root: Path, seed: int,
                 kind: type[Any], task: Task, shown: Sequence[str] = ()) -> Added:
    """The training rows of `kept` after fixes that are for them alone, with the rows that data.mix names.

    `shown` has other names of those sources, for people. Rows that ask what a held-out row asks are left out, and of
    other sources those that ask nearly that. Raises UserError where a source cannot be read.
    """
    held_out = [*kept["validation"], *kept["test"]]
    made_up = beside(own.made_up, [row.origin for row in kept["train"]])
    items, tools = [*_items(kept["train"], own), *made_up.train], own.tools
    if task == "labels":
        items = [replace(item, sample=with_clean_label(item.sample)) for item in items]
        tools = replace(tools, again=_clean(tools.again))
    items, steps = apply_all(items, [fix for fix in spec.fix if fix.only_training], tools)
    mixed = mix(spec.mix, len(items), root, seed, shown) if spec.mix else []
    rows, leaks = without_leaks([item.sample for item in items], held_out)
    others, more = _without_near_leaks(list(chain.from_iterable(_samples(one, kind, spec) for one in mixed)), held_out)
    if not rows:
        raise UserError("No training row is left: each asks what a held-out row asks.",
                        fix="name other files, or hold out less")
    return Added(rows, others, steps, mixed, [row.origin for row in [*leaks, *more]],
                 [item.origin for item in made_up.left_out])


def _without_near_leaks(rows: Sequence[Any], held_out: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Own rows that are alike have been kept together; nobody has looked at those of other sources yet."""
    different, leaks = without_leaks(rows, held_out)
    clusters = alike([*held_out, *different]) if different else {}
    near = {clusters.get(row.origin) for row in held_out} - {None}
    return ([row for row in different if clusters.get(row.origin) not in near],
            leaks + [row for row in different if clusters.get(row.origin) in near])


def _clean(again: Again) -> Again:
    return lambda values, origin: with_clean_label(again(values, origin))


def _items(rows: Iterable[Any], own: Loaded) -> list[Item]:
    """The items that samples came from, as the samples are by now: a label may have lost the space behind it."""
    known: dict[Origin, list[Item]] = {}
    for item in own.items:
        known.setdefault(item.origin, []).append(item)
    return [replace(_of(known[row.origin], row), sample=row) for row in rows]


def _of(items: Sequence[Item], row: Any) -> Item:
    """Of several rows made from one the one that is `row`."""
    return next((item for item in items if item.sample == row), items[0])


def _samples(mixed: Mixed, kind: type[Any], spec: DataSpec) -> list[Any]:
    given, rows = mixed.given, mixed.rows
    table = Table.of(given.source, "", rows, [])
    wanted = Wanted(kind, given.prompt, given.answer, spec.system, spec.drop_empty)
    return [item.sample for item in made_of(table, wanted).items]
