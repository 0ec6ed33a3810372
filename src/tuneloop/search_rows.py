"""The rows that the trials of a search see: validation rows stand where the test rows were, and those are left out."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tuneloop.errors import UserError
from tuneloop.prepared import Prepared
from tuneloop.recipe import Recipe
from tuneloop.training.watch import Watcher
from tuneloop.types import Rated

DECIDING = ("base", "data", "evaluation", "goal", "objective", "rewards", "seed")
"""Keys of a recipe that rows and tokens follow from; of the method just its virtual tokens, which take positions."""
FEW_ROWS = 50       # with fewer, trials are told apart by luck


class Blind(Prepared):
    """A run that is judged on its validation rows. The test rows are not there to be looked at."""

    def __init__(self, recipe: Recipe, watch: Watcher) -> None:
        super().__init__(recipe, watch)
        self.held_out = _digest(self.rows.validation, self.rows.test)
        self.test_rows = len(self.tested)
        self.flags = None
        validation = self.rows.validation
        followed = [i for i, row in enumerate(validation) if not isinstance(row, Rated) or row.desirable]
        if not followed:
            raise UserError("No validation rows are held out, so trials could not be compared without the test rows."
                            if not validation else "People liked none of the validation rows.",
                            fix="raise data.split.validation, or name a file with data.validation")
        self._put(test=validation, columns={})
        wanted = recipe.evaluation.rows
        if wanted is not None and wanted < len(followed):
            drawn = np.random.default_rng(recipe.seed).choice(len(followed), wanted, replace=False)
            followed = [followed[i] for i in sorted(drawn.tolist())]
        self.tested = followed

    @property
    def slices(self) -> dict[str, list[Any]]:
        return {}

    @property
    def unvalidated(self) -> Blind:
        """The same without validation rows to choose by: what is chosen is chosen by training rows, and judged here."""
        other = copy.copy(self)
        other._put(validation=[])
        return other

    def with_train(self, kept: list[int]) -> Blind:
        """The same with these of its training rows alone."""
        other = copy.copy(self)
        other._put(train=[self.rows.train[i] for i in kept])
        return other

    def _put(self, **changes: Any) -> None:
        """Other rows in some parts, with their tokens. They are rows of this run."""
        tokens = {row: group for part in ("train", "validation") for row, group in
                  zip(getattr(self.rows, part), self.rows.groups[part], strict=True)}
        groups = {part: [tokens[row] for row in rows] for part, rows in changes.items() if part != "columns"}
        self.rows = replace(self.rows, **changes, groups=dict(self.rows.groups) | groups)
        self.__dict__.pop("work", None)     # which was computed from the rows before


class Rows:
    """Prepared rows by what they follow from, so that trials share them."""

    def __init__(self, watch: Watcher) -> None:
        self.watch = watch
        self._made: dict[str, Blind] = {}

    def of(self, recipe: Recipe) -> Blind:
        """The rows of a trial. Raises a UserError where they cannot be made."""
        key = json.dumps([*(recipe.given.get(name) for name in DECIDING), recipe.method.slots, recipe.auto],
                         default=str)
        if key not in self._made:
            self._made[key] = Blind(recipe, self.watch)
        ready = copy.copy(self._made[key])
        if not recipe.auto:         # else the recipe is the one with the method that was chosen
            recipe.method.check(ready.shape)
            ready.recipe, ready.given = recipe, recipe.given
        return ready


def require_same(ready: Blind, first: Blind, values: Mapping[str, Any]) -> None:
    """Raise a UserError where values of the space change what trials are judged by."""
    if ready.held_out != first.held_out:
        raise UserError(f"{_named(values)} changes which rows are held out, so such trials could not be compared, and "
                        "test rows of one would be training rows of another.",
                        fix="name files with data.validation and data.test, or leave it out of search.space")
    if ready.metric != first.metric:
        raise UserError(f"With {_named(values)} the rows are judged by {ready.metric}, and without by {first.metric}.",
                        fix="leave it out of search.space")


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items()) or "search.space"


def _digest(*parts: list[Any]) -> str:
    """Which rows are in each part, whatever a prompt makes of them."""
    said = [sorted((row.origin.file, row.origin.line, row.origin.row) for row in rows) for rows in parts]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
