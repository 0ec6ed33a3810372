"""Every suite by name, what they measured before and after training, and how much was forgotten."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuneloop.errors import UserError
from tuneloop.evaluation.intervals import Bootstrap, Interval, Measured
from tuneloop.evaluation.safety.catalog import SAFETY
from tuneloop.evaluation.suites.base import Graded, Suite
from tuneloop.evaluation.suites.local import suite_from_file
from tuneloop.grading.metrics import Scores, mean_of
from tuneloop.inference.backend import Backend, Progress

SUITES = {name: f"tuneloop.evaluation.suites.{name}:{name.capitalize()}" for name in (
    "knowledge", "instructions", "fluency", "formats", "grounded", "tasks")}
"""Where each built-in suite is, imported on use."""

RETENTION = ("knowledge", "instructions", "fluency")
"""What a model should not forget; the goal's `max_forgetting` bounds the drop over these."""

USUAL = (*RETENTION, "harmful", "benign")
"""What every run asks unless told otherwise: what was forgotten, and what is refused and should or should not be."""

BENCH = "lm-eval:"
"""Begins the name of a suite that is a task of lm-eval, such as lm-eval:arc_easy."""

Gradings = Mapping[str, Sequence[Graded]]
"""What `run_suites` returns: of each suite its items, graded."""

@dataclass(frozen=True, slots=True)
class Change:
    """What a suite, or a part of one, measured before and after; on the items that were graded both times."""

    suite: str
    part: str                       # empty for the whole suite
    before: float | None            # None where no item could be graded
    after: float | None
    difference: Interval | None     # after - before, with its 95 % interval
    items: int                      # graded before and after; several grades of one answer are one item
    ungraded_before: int
    ungraded_after: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Forgetting:
    """How much was forgotten: positive is a loss. `drop` is a share; `by_suite` says what it is the mean of."""

    drop: Interval
    by_suite: dict[str, float]
    items: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def suite(name: str) -> Suite:
    """A built-in suite of either catalog, a local file (a name that ends in .jsonl), or a task of lm-eval. Raises a
    UserError.
    """
    if name.endswith(".jsonl"):
        return suite_from_file(Path(name))
    if name.startswith(BENCH):
        from tuneloop.evaluation.suites.lmeval import Bench

        return Bench(name.removeprefix(BENCH))
    if name in SAFETY:
        return SAFETY[name]
    if name not in SUITES:
        near = difflib.get_close_matches(name, [*SUITES, *SAFETY], n=1)
        raise UserError(f"There is no suite called {name}.",
                        wanted=f"one of: {', '.join([*SUITES, *SAFETY])}; a file .jsonl; or {BENCH} and the name of a "
                               "task",
                        fix=f"did you mean {near[0]}?" if near else "")
    module, _, attribute = SUITES[name].partition(":")
    made: Suite = getattr(importlib.import_module(module), attribute)()
    return made


def known_suite(name: str) -> str:
    """The name, if it is that of a suite of either catalog, of a file or of a task of lm-eval; else a ValueError."""
    if name not in SUITES and name not in SAFETY and not name.endswith(".jsonl") and not name.startswith(BENCH):
        raise ValueError(f"a suite: {', '.join([*SUITES, *SAFETY])}; a file .jsonl; or {BENCH}TASK")
    return name


def run_suites(backend: Backend, names: Sequence[str], limit: int | None = None,
               progress: Progress | None = None) -> dict[str, list[Graded]]:
    """What a model answers to each suite; `limit` is of each. Unknown names and files are refused before any runs.

    Raises a UserError where a suite needs likelihoods (knowledge, fluency, tasks) and a server does not tell them.
    """
    suites = [suite(name) for name in dict.fromkeys(names)]
    return {each.name: list(each.run(backend, limit=limit, progress=progress)) for each in suites}


def before_after(before: Gradings, after: Gradings, *, resamples: int = 2000, seed: int = 0) -> list[Change]:
    """A row for each suite that both have, followed by one for each of its parts where there are several.

    The intervals are of the paired bootstrap. Raises a ValueError if the items of a suite differ.
    """
    changes = []
    for name in before:
        if name in after:
            pairs = _paired(name, before[name], after[name])
            parts = dict.fromkeys(old.part for old, _ in pairs)
            changes.append(_change(name, "", pairs, resamples, seed))
            if len(parts) > 1:
                changes += [_change(name, part, [pair for pair in pairs if pair[0].part == part], resamples, seed)
                            for part in parts]
    return changes


def forgetting(before: Gradings, after: Gradings, *, resamples: int = 2000, seed: int = 0) -> Forgetting | None:
    """The mean over the retention suites of the mean drop of their scores, before - after, each suite weighing the
    same; None where none of them was graded before and after.

    Resampled within each suite. Unseen items widen the interval as in `Measured.interval`, but only of suites that
    grade right or wrong: a passage whose probability per byte changes by a whole is out of the question.
    """
    drops: dict[str, Measured] = {}
    rows: list[int] = []
    for number, name in enumerate(RETENTION):
        units = _units(_paired(name, before.get(name, ()), after.get(name, ())))
        if len(units):
            lost = mean_of(units[:, 0] - units[:, 1])
            [drops[name]] = Bootstrap(len(units), resamples, seed + number).measure([lost])
            rows += [len(units)] if _is_binary(units) else []
    if not drops:
        return None
    # one unseen item changes the mean over S suites of n items by 1 / (S n): so many rows have the same spread
    alike = len(drops) / math.sqrt(sum(1 / n ** 2 for n in rows)) if rows else 1
    mean = Measured(float(np.mean([drop.value for drop in drops.values()])),
                    np.mean([drop.resampled for drop in drops.values()], axis=0),
                    Bootstrap(max(1, round(alike)), resamples, seed))
    return Forgetting(mean.interval((-1.0, 1.0) if rows else None), {name: drop.value for name, drop in drops.items()},
                      sum(drop.bootstrap.rows for drop in drops.values()))


def _paired(name: str, before: Sequence[Graded], after: Sequence[Graded]) -> list[tuple[Graded, Graded]]:
    later = {item.id: item for item in after}
    if len(later) != len(after) or {item.id for item in before} != set(later) or len(before) != len(after):
        raise ValueError(f"the items of {name} before and after are not the same")
    return [(item, later[item.id]) for item in before]


def _units(pairs: Sequence[tuple[Graded, Graded]]) -> Scores:
    """(items, 2) scores before and after of what was graded both times. Grades of one question, whose ids differ only
    after a #, are not independent: their mean is one item."""
    graded: dict[str, list[tuple[float, float]]] = {}
    for old, new in pairs:
        if not math.isnan(old.score) and not math.isnan(new.score):
            graded.setdefault(old.id.partition("#")[0], []).append((old.score, new.score))
    return np.array([np.mean(scores, axis=0) for scores in graded.values()], dtype=np.float64).reshape(-1, 2)


def _is_binary(units: Scores) -> bool:
    """Whether items are right or wrong, as far as two grades of one allow; not so where scores are probabilities."""
    return bool(np.isin(units, (0, 0.5, 1)).all())


def _change(name: str, part: str, pairs: Sequence[tuple[Graded, Graded]], resamples: int, seed: int) -> Change:
    units = _units(pairs)
    ungraded = [sum(math.isnan(pair[side].score) for pair in pairs) for side in (0, 1)]
    if not len(units):
        return Change(name, part, None, None, None, 0, *ungraded)
    measured = Bootstrap(len(units), resamples, seed).measure([mean_of(units[:, 1] - units[:, 0])])[0]
    before, after = units.mean(axis=0).tolist()
    return Change(name, part, before, after, measured.interval((-1.0, 1.0) if _is_binary(units) else None), len(units),
                  *ungraded)
