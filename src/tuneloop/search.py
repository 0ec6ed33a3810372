"""Automatic fine-tuning: many recipes are tried on the validation rows, the best one is proven on the test rows.

The folder of a search holds its recipe (search.yaml), its space, the study (SQLite), a folder for each trial, and at
the end search.json. A search that is cut off goes on with what it has.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tuneloop import recipe as recipes
from tuneloop.errors import UserError, missing_extra, raise_all
from tuneloop.evaluation.text import better, duration
from tuneloop.recipe import Recipe
from tuneloop.record import RunFolder, read_json, write_atomic, write_json
from tuneloop.search_budget import Purse, seconds_of
from tuneloop.search_rows import FEW_ROWS, Blind, Rows, require_same
from tuneloop.search_space import STRUCTURE, Space, look_up, space_of, with_values
from tuneloop.search_spec import AUTO
from tuneloop.search_study import DEFAULTS, DRAWN, UNTUNED, Study
from tuneloop.training.watch import Silent, Watcher

if TYPE_CHECKING:
    from tuneloop.plan.make import Plan
    from tuneloop.search_trial import Worker

SCHEMA_VERSION = 1
USUAL_TRIALS = 20
RECIPE, SPACE, RESULT, BEST_RECIPE = "search.yaml", "space.json", "search.json", "best.yaml"


@dataclass(frozen=True)
class Ahead:
    """A search before anything is spent: what may be tried, and the rows that decide."""

    recipe: Recipe              # with absolute paths
    ready: Blind
    plan: Plan                  # of the defaults
    space: Space
    defaults: dict[str, Any]    # values of the recipe itself, as far as they are in the space
    by_loss: bool               # trials are compared by the validation loss on their way, and by the metric at the end
    rows: Rows

    @property
    def given(self) -> dict[str, Any]:
        """The keys of the recipe without its search."""
        return with_values(self.recipe.given, {})

    @property
    def metric(self) -> str:
        return self.ready.metric

    @property
    def seconds(self) -> tuple[float, float]:
        """About how long a trial takes that is not stopped early, and the runs at the end."""
        training, scoring = (self.plan.seconds[stage] for stage in ("training", "evaluation"))
        last = training + scoring * self.ready.test_rows / len(self.ready.test)
        return training + (1 if self.by_loss else _looks(self.plan)) * scoring, 2 * self.recipe.search.seeds * last


@dataclass(frozen=True)
class Limits:
    """What the command line bounds; what it leaves open, the recipe says."""

    bounds: Mapping[str, float]
    trials: int | None = None
    workers: int = 1


def search(folder: Path, ahead: Ahead, limits: Limits, watch: Watcher) -> dict[str, Any]:
    """Try recipes, run the best and the defaults with several seeds, and say what follows. Returns search.json."""
    from tuneloop.search_finish import do_not_tune, final_runs, trial_line, verdict_on

    with RunFolder(folder).locked():
        study = Study(folder, better=better(ahead.metric), seed=ahead.recipe.seed)
        for number in study.recover(ahead.space, ahead.defaults):
            watch.say(f"trial {number} was cut off, and is tried again")
        workers = _workers_that_fit(limits.workers, ahead.plan, watch)
        purse = _purse(ahead, limits, study, workers)

        def ended(number: int) -> None:
            watch.advance(1)
            watch.say(trial_line(next(one for one in study.trials() if one.number == number), ahead.metric))

        _try_all(folder, ahead, study, purse, limits, workers, watch, ended)
        _require_something_tried(study, purse, folder)
        best = study.best(DEFAULTS, DRAWN)
        found = do_not_tune(study, ahead.metric, len(ahead.ready.test))
        if found is None:
            assert best is not None     # or nothing was better than the base
            write_atomic(folder / BEST_RECIPE, yaml.safe_dump(with_values(ahead.given, best.values), sort_keys=False,
                                                              allow_unicode=True))
            runs = final_runs(folder, ahead.given, best, ahead.recipe.search.seeds, watch)
            found = verdict_on(runs, best)
        trials = study.trials()
        result = {"schema_version": SCHEMA_VERSION, "search": folder.name, "metric": ahead.metric,
                  "validation_rows": len(ahead.ready.test), "test_rows": ahead.ready.test_rows, **found,
                  "best": best.to_json() if best else None, "spent": purse.spent(trials), "budget": dict(purse.bounds),
                  "importances": study.importances(), "trials": [one.to_json() for one in trials]}
        write_json(folder / RESULT, result)
        return result


def lines(result: Mapping[str, Any], folder: Path) -> list[str]:
    """The end of a search for people."""
    told = [result["sentence"]]
    told += [f"{'The best recipe' if result['recommended'] == 'best' else 'The defaults'}: {result['goal']}"] \
        if "goal" in result else []
    if result["importances"]:
        named = ", ".join(f"{key} {value:.0%}" for key, value in result["importances"].items())
        told.append(f"What made the difference between trials: {named}.")
    states = [one["state"] for one in result["trials"] if one["kind"] in (DEFAULTS, DRAWN)]
    told.append(f"{len(states)} recipes: {states.count('finished')} trained to the end, {states.count('stopped')} "
                f"stopped early, {states.count('failed')} left out; {duration(60 * result['spent']['minutes'])}, "
                f"{result['spent']['tokens']:,} tokens trained on in trials.")
    if result["recommended"] == "best":
        told.append(f"The recipe: {folder / BEST_RECIPE}")
    return [*told, f"Everything: {folder / RESULT}"]


# ── before anything is spent ─────────────────────────────────────────────────────────────────────────────────────────

def look_ahead(recipe: Recipe, watch: Watcher) -> Ahead:
    """Check the search of a recipe against its goal, its rows and its base. Raises a UserError with what contradicts
    them; nothing is loaded or written.
    """
    if importlib.util.find_spec("optuna") is None:
        raise missing_extra("optuna", "hpo", "tuneloop search")
    own = recipes.of(recipe.portable(), shown="the recipe", root=recipe.root)
    rows = Rows(watch)
    ready = rows.of(own)
    own = ready.recipe          # with the method that the plan has chosen, where it was left to that
    _check_metric(own, ready)
    plan = ready.plan()
    planned = {key: value.value for key, value in plan.values.items()}
    space = space_of(own, ready.shape, planned, len(ready.rows.train))
    _check_rows(space, own, rows, ready)
    if len(ready.test) < FEW_ROWS:
        watch.say(f"Only {len(ready.test)} validation rows decide between trials, so that luck has much to say: raise "
                  "data.split.validation.")
    for bound in (key for key in ("max_forgetting", "max_safety_drop") if getattr(own.goal, key) is not None):
        watch.say(f"goal.{bound} has no say between trials; it is judged at the end.")
    defaults = space.held({key: _default(key, own, planned) for key in _keys(space)})
    return Ahead(own, ready, plan, space, defaults, _by_loss(space, ready, plan), rows)


def begin(ahead: Ahead, runs: Path) -> Path:
    """A new folder for a search, with its recipe and its space."""
    folder = runs / f"{ahead.recipe.name}.search"
    if folder.exists():
        raise UserError(f"{folder} exists already.",
                        fix=f"go on with `tuneloop search --resume {folder}`, or give this one another name: name=…")
    write_json(folder / SPACE, {"space": ahead.space.to_json(), "defaults": ahead.defaults,
                                "by_loss": ahead.by_loss, "held_out": ahead.ready.held_out})
    write_atomic(folder / RECIPE, yaml.safe_dump(ahead.recipe.given, sort_keys=False, allow_unicode=True))
    return folder


def resume(name: str, runs: Path, watch: Watcher) -> tuple[Path, Ahead]:
    """A search that began before, with the space that it began with. Raises a UserError where its rows have changed."""
    places = [Path(name), runs / name, runs / f"{name}.search"]
    folder = next((place for place in places if (place / RECIPE).is_file() and (place / SPACE).is_file()), None)
    if folder is None:
        raise UserError(f"{name} is no search: it has no {RECIPE}.", wanted="the folder of one, such as "
                                                                         f"{runs / 'run.search'}")
    recipe = recipes.load(folder / RECIPE)
    written = read_json(folder / SPACE)
    rows = Rows(watch)
    ready = rows.of(recipe)
    if ready.held_out != written["held_out"]:
        raise UserError(f"The rows that are held out have changed since {folder} began.",
                        fix="put the old rows back, or start a new search under another name")
    return folder, Ahead(recipe, ready, ready.plan(), Space.from_json(written["space"]), written["defaults"],
                         written["by_loss"], rows)


def _check_metric(recipe: Recipe, ready: Blind) -> None:
    asked = recipe.search.metric
    if asked not in (AUTO, ready.metric):
        raise UserError(f"search.metric is {asked}, and the goal is judged by {ready.metric}: the best by one need not "
                        "be good by the other.", fix=f"leave search.metric out, or set goal.metric={asked}")
    if not better(ready.metric):
        raise UserError(f"goal.metric is {ready.metric}, of which neither more nor less is better, so that nothing can "
                        "be searched for.", fix="name another metric in the goal")


def _check_rows(space: Space, recipe: Recipe, rows: Rows, ready: Blind) -> None:
    """Every objective must have its rows, and nothing may change which rows are held out."""
    problems = []
    for values in _that_touch_rows(space):
        try:
            trial = recipes.of(with_values(recipe.given, values), shown="search.space", root=recipe.root)
            require_same(rows.of(trial), ready, values)
        except UserError as error:
            named = " and ".join(f"{key} {look_up(value, 'kind') or value}" if isinstance(value, dict) else
                                 f"{key} {value}" for key, value in values.items())
            problems.append(UserError(f"search.space, {named}: {error.found}", wanted=error.wanted, fix=error.fix))
    raise_all(problems)


def _that_touch_rows(space: Space) -> Iterator[dict[str, Any]]:
    for branch in space.branches:
        if branch.objective is not None:
            yield {one.key: getattr(branch, one.key) for one in space.structure}
    seen: list[Any] = []
    for one in (one for branch in space.branches for one in branch.dimensions):
        if one.key.startswith("data.") and not one.key.startswith(("data.mix.", "data.max_train_rows")):
            for value in one.ends:
                if (one.key, value) not in seen:
                    seen.append((one.key, value))
                    yield {one.key: value}


def _by_loss(space: Space, ready: Blind, plan: Plan) -> bool:
    """Whether scoring at every look would take longer than what is trained between two, as with written answers or many
    labels. Losses of several objectives cannot be compared.
    """
    varied = any(branch.objective is not None or any(one.key.startswith("objective.") for one in branch.dimensions)
                 for branch in space.branches)
    return not varied and bool(ready.rows.task == "open" or
                           plan.seconds["evaluation"] > plan.seconds["training"] / _looks(plan))


def _looks(plan: Plan) -> int:
    return math.ceil(plan.steps / int(plan["training.evaluate_every"]))


def _keys(space: Space) -> list[str]:
    return list(dict.fromkeys(one.key for branch in space.branches for one in (*space.structure, *branch.dimensions)))


def _default(key: str, recipe: Recipe, planned: Mapping[str, Any]) -> Any:
    """What the recipe itself has for a key."""
    if key in STRUCTURE:
        given = recipe.given.get(key) or recipes.DEFAULTS[key]
        return given["kind"] if isinstance(given, dict) else given      # a name keeps the options that are given
    if key in planned:
        return planned[key]
    part, _, name = key.partition(".")
    return getattr(getattr(recipe, part), name, None) if part in STRUCTURE else look_up(recipe.given, key)


# ── trials ───────────────────────────────────────────────────────────────────────────────────────────────────────────

def _purse(ahead: Ahead, limits: Limits, study: Study, workers: int) -> Purse:
    bounds = dict(limits.bounds) or ahead.recipe.search.budget.given
    price = ahead.recipe.evaluation.price
    hour = price.machine_usd_per_hour if price else None
    if "usd" in bounds and hour is None:
        raise UserError("The budget is in USD, and nothing says what this machine costs.",
                        fix="set evaluation.price.machine_usd_per_hour, or give minutes or tokens")
    return Purse(bounds, ahead.recipe.search.seeds, time.time(), seconds_of(study.trials(), workers), hour or 0.0)


def _limit(ahead: Ahead, limits: Limits, purse: Purse) -> float:
    """How many recipes may be tried."""
    return limits.trials or ahead.recipe.search.trials or (math.inf if purse.bounds else USUAL_TRIALS)


def _try_all(folder: Path, ahead: Ahead, study: Study, purse: Purse, limits: Limits, workers: int, watch: Watcher,
             ended: Any) -> None:
    """All trials that the budget allows, by this process or by several others."""
    limit = _limit(ahead, limits, purse)
    told: dict[str, Any] = {
        "limit": None if math.isinf(limit) else limit, "memory_gb": _share_of_memory(ahead, workers),
        "purse": purse.to_json()}
    watch.stage("trials", None if math.isinf(limit) else int(limit) + len(UNTUNED))
    if workers == 1:
        worker_of(folder, **told, study=study, rows=ahead.rows).run(ended)
    else:
        from tuneloop.search_workers import Team, work

        work(Team(folder, workers, told), study, ended)


def worker_of(folder: Path, *, purse: Mapping[str, Any], limit: float | None, memory_gb: float | None,
              number: int = 0, study: Study | None = None, rows: Rows | None = None) -> Worker:
    """A worker for the search in `folder`; what else it must know comes from whoever starts it."""
    from tuneloop.search_trial import Worker

    recipe = recipes.load(folder / RECIPE)
    rows = rows or Rows(Silent())
    study = study or Study(folder, better=better(rows.of(recipe).metric), seed=recipe.seed)
    written = read_json(folder / SPACE)
    return Worker(folder, with_values(recipe.given, {}), Space.from_json(written["space"]), study, Purse(**purse),
                  math.inf if limit is None else limit, written["by_loss"], memory_gb, number, rows=rows)


def _workers_that_fit(asked: int, plan: Plan, watch: Watcher) -> int:
    fit = max(1, int(plan.available_bytes // max(1, plan.memory.total_bytes)))
    if fit < asked:
        watch.say(f"Memory is there for {fit} workers and not for {asked}: each needs about "
                  f"{plan.memory.total_bytes / 2**30:.1f} GiB.")
    return min(asked, fit)


def _share_of_memory(ahead: Ahead, workers: int) -> float | None:
    """What each of several workers may use, in GiB; it changes how much is computed at once, and no result."""
    return None if workers == 1 else ahead.plan.available_bytes / workers / 2**30


def _require_something_tried(study: Study, purse: Purse, folder: Path) -> None:
    """Raise a UserError where the budget was used up before anything but the defaults was tried, or nothing ended."""
    trials = study.trials()
    if purse.bounds and not any(one.kind == DRAWN and one.state in ("finished", "stopped") for one in trials):
        spent, kept = purse.spent(trials), purse.kept_back(trials)
        told = ", ".join(f"{spent[name]:,.4g} {name} spent and {kept.get(name, 0):,.4g} needed for the runs at the "
                         f"end, of {bound:,.4g}" for name, bound in purse.bounds.items())
        raise UserError(f"The budget leaves no room to try anything: {told}.",
                        fix=f"go on with a larger one: tuneloop search --resume {folder} --minutes …")
    if study.best(*UNTUNED, DEFAULTS, DRAWN) is None:
        raise UserError(f"No trial came to its end. {next((one.why for one in trials if one.why), '')}")
