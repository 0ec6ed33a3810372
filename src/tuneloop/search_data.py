"""How much data does it take? The recipe is trained on nested parts of its rows, scored on the validation rows, and a
power law says what more rows would bring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from tuneloop import loop
from tuneloop import recipe as recipes
from tuneloop.errors import UserError
from tuneloop.evaluation.compare import stack_of_answers
from tuneloop.evaluation.intervals import Bootstrap, Interval
from tuneloop.evaluation.power_law import FEWEST_SIZES, Curve, curve
from tuneloop.evaluation.text import metric_name, percent
from tuneloop.grading.metrics import METRICS, View
from tuneloop.record import RunFolder, read_json, write_atomic, write_json
from tuneloop.search_rows import Blind, Rows
from tuneloop.search_space import with_values
from tuneloop.types import Answers

if TYPE_CHECKING:
    from tuneloop.recipe import Recipe
    from tuneloop.training.watch import Watcher

SCHEMA_VERSION = 1
PARTS = (8, 4, 2, 1)            # the training rows are divided by
FEWEST_ROWS = 10                # that are worth training on
MANY = 100                      # times the rows: nobody should read a law that far out
RECIPE, RESULT, POINTS = "data.yaml", "data.json", "points"


def begin(recipe: Recipe, runs: Path, watch: Watcher) -> tuple[Path, Blind]:
    """A new folder, after a look at whether the rows can say anything. Raises a UserError where they cannot."""
    own = recipes.of(with_values(recipe.portable(), {}) | {"search": recipe.given.get("search")}, shown="the recipe",
                     root=recipe.root)
    ready = Rows(watch).of(own)
    own = ready.recipe          # with the method that the plan has chosen, where it was left to that
    metric = METRICS[ready.metric]
    if not metric.in_unit or metric.better is None:
        raise UserError(f"goal.metric is {ready.metric}, which is no share, and a power law is of a share of errors.",
                        wanted="a metric between 0 and 1", fix="name another metric in the goal")
    sizes_of(ready)
    folder = runs / f"{recipe.name}.data"
    if folder.exists():
        raise UserError(f"{folder} exists already.", fix=f"go on with `tuneloop search --data --resume {folder}`, or "
                                                         "give this one another name: name=…")
    write_atomic(folder / RECIPE, yaml.safe_dump(own.given, sort_keys=False, allow_unicode=True))
    return folder, ready


def resume(name: str, runs: Path, watch: Watcher) -> tuple[Path, Blind]:
    """A folder that `begin` made, and its rows."""
    places = [Path(name), runs / name, runs / f"{name}.data"]
    folder = next((place for place in places if (place / RECIPE).is_file()), None)
    if folder is None:
        raise UserError(f"{name} has no {RECIPE}.", wanted=f"a folder of search --data, such as {runs / 'run.data'}")
    return folder, Rows(watch).of(recipes.load(folder / RECIPE))


def sizes_of(ready: Blind) -> list[int]:
    """How many training rows are trained on, the fewest first. Raises a UserError where these are too few sizes."""
    rows, given = len(ready.rows.train), ready.recipe.training.batch_size or 0
    found = [rows // part for part in PARTS if rows // part >= max(FEWEST_ROWS, given)]
    if len(found) < FEWEST_SIZES:
        raise UserError(f"{rows} training rows{f' and a batch size of {given}' if given else ''} are too few to take "
                        "parts of them.", wanted=f"at least {PARTS[-FEWEST_SIZES] * max(FEWEST_ROWS, given)}")
    return found


def run(folder: Path, ready: Blind, watch: Watcher) -> dict[str, Any]:
    """Train on every part, with several seeds, and fit the law. What is there already is not trained again."""
    sizes, repeats = sizes_of(ready), ready.recipe.search.seeds
    with RunFolder(folder).locked():
        watch.say(f"{len(sizes) * repeats} trainings: {repeats} each on {_listed(sizes)} rows, scored by "
                  f"{ready.metric} on {len(ready.test):,} validation rows")
        answers = _answers(folder, ready, sizes, repeats, watch)
        found = told(ready, sizes, answers)
        write_json(folder / RESULT, found)
    return found


def order_of(rows: int, repeat: int, seed: int) -> list[int]:
    """Which training rows come first: a part is the beginning of this, so that smaller parts lie in larger ones."""
    return [int(i) for i in np.random.default_rng([seed, 11, repeat]).permutation(rows)]


def _answers(folder: Path, ready: Blind, sizes: Sequence[int], repeats: int,
             watch: Watcher) -> dict[tuple[int, int], Answers]:
    """By repeat and size."""
    from tuneloop.search_trial import Bases

    bases, found = Bases(), {}
    rows, seed = len(ready.rows.train), ready.recipe.seed
    for repeat, size in ((repeat, size) for repeat in range(repeats) for size in sizes):
        file = folder / POINTS / f"{repeat}-{size}.json"
        if not file.exists():
            part = ready.with_train(sorted(order_of(rows, repeat, seed)[:size]))
            write_json(file, asdict(_train(folder, _with_seed(part, repeat), file.stem, bases, watch)))
        found[repeat, size] = Answers(**read_json(file))
    return found


def _with_seed(ready: Blind, repeat: int) -> Blind:
    recipe = ready.recipe
    given = with_values(recipe.given, {"training.seed": recipe.training_seed + repeat})
    ready.recipe = recipes.of(given, shown="the recipe", root=recipe.root)
    return ready


def _train(folder: Path, ready: Blind, name: str, bases: Any, watch: Watcher) -> Answers:
    """What the model says to the validation rows after training on these rows."""
    import shutil

    from tuneloop.search_trial import score, tidy
    from tuneloop.session import Session
    from tuneloop.training.watch import Silent

    plan = ready.plan()
    shutil.rmtree(folder / "trials" / name, ignore_errors=True)
    run = RunFolder.create_at(folder / "trials" / name)
    loop.begin(ready.recipe, run)
    run.write(plan.to_json(), "plan.json")
    run.update_record(recipe=ready.recipe.given, seeds={"training": ready.recipe.training_seed})
    method = ready.recipe.method
    session = Session(ready, plan, run, Silent(), bases.lend(ready.base.path, method))
    spoilt = True
    try:
        session.train(lambda step: None)
        answers = session.answer("tuned").answers
        spoilt = plan["training.checkpointing"]
    finally:
        bases.give_back(method, session.model.model, trained=session.trained, spoilt=spoilt)
        tidy(run)
    watch.say(f"{len(ready.rows.train):,} rows, seed {ready.recipe.training_seed}: {ready.metric} "
              f"{percent(score(ready, answers))}")
    return answers


# ── what the scores say ──────────────────────────────────────────────────────────────────────────────────────────────

def told(ready: Blind, sizes: Sequence[int], answers: Mapping[tuple[int, int], Answers]) -> dict[str, Any]:
    """The content of data.json: scores, law, and what more rows would bring."""
    metric = METRICS[ready.metric]
    repeats = len(answers) // len(sizes)
    views = [View(ready.references, Answers(**asdict(answers[repeat, size]) | {"name": f"{repeat}/{size}"}), ready.test)
             for repeat in range(repeats) for size in sizes]
    stack = stack_of_answers(metric, views)
    bootstrap = Bootstrap(len(ready.test), ready.recipe.evaluation.resamples, ready.recipe.seed)
    every = np.arange(len(ready.test))
    measured = bootstrap.measure([stack.over(stack.places(name, every)) for name in stack.models])
    shape = (repeats, len(sizes))
    scores = np.array([one.value for one in measured]).reshape(shape)
    resampled = np.stack([one.resampled for one in measured]).reshape(*shape, -1)
    rising = metric.better == "higher"
    law = curve(sizes, 1 - scores if rising else scores, 1 - resampled if rising else resampled, ready.recipe.seed)
    points = [{"rows": size, "scores": scores[:, i].tolist(), "mean": float(scores[:, i].mean())}
              for i, size in enumerate(sizes)]
    found = {"schema_version": SCHEMA_VERSION, "metric": ready.metric, "validation_rows": len(ready.test),
             "points": points, "misfit": law.misfit, "worthless": law.worthless,
             "law": {name: float(getattr(law.law, name)) for name in "abc"} | {"most_rows": max(sizes)},
             "gains": {str(times): law.gain(times).to_json() for times in (2, 4)},
             "goal": _for_goal(law, ready.recipe.goal.at_least, rising)}
    return found | {"advice": list(_advice(found, rising))}


def _for_goal(law: Curve, at_least: float | None, rising: bool) -> dict[str, Any] | None:
    """Rows that the goal's bound on the score would take; None as an end where no number does."""
    if at_least is None or not rising:
        return None
    needed = law.rows_for(1 - at_least)
    return {"at_least": at_least} | {end: value if value <= MANY * law.most else None
                                     for end, value in needed.to_json().items()}


def _advice(found: Mapping[str, Any], rising: bool) -> Iterator[str]:
    name, points = metric_name(found["metric"]), found["points"]
    most, repeats = points[-1]["rows"], len(points[0]["scores"])
    yield (f"{name} on {found['validation_rows']:,} validation rows, mean of {repeats} trainings: " +
           ", ".join(f"{percent(one['mean'])} with {one['rows']:,} rows" for one in points) + ".")
    if found["worthless"]:
        yield (f"What more rows would bring cannot be told: {found['worthless']}. More validation rows, or more seeds "
               "(search.seeds), make it clearer.")
        return
    law = found["law"]
    yield (f"{'What is missing to 100 %' if rising else 'It'} falls as {law['a']:.3f} (n / {most:,})^−{law['b']:.2f} + "
           f"{law['c']:.3f}.")
    two, four = (Interval(**found["gains"][times]) for times in ("2", "4"))
    yield (f"Twice the rows ({2 * most:,}) would bring about {_points(two)}; four times, which is further from what "
           f"was measured, {_points(four)}.")
    if two.high < 0.01:
        yield "More rows like these are hardly worth collecting."
    goal = found["goal"]
    if goal is not None:
        yield _rows_for_goal(goal, points[-1]["mean"], most)


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:.1f} points ({100 * gain.low:.1f} to {100 * gain.high:.1f})"


def _rows_for_goal(goal: Mapping[str, Any], reached: float, most: int) -> str:
    bound = percent(goal["at_least"])
    if reached >= goal["at_least"]:
        return f"The goal of {bound} is reached with the rows there are."
    low, value, high = (goal[end] for end in ("low", "value", "high"))
    if value is None:
        hope = "" if low is None else f", though {_rounded(low):,} might do"
        return f"The goal of {bound} is not in reach of {MANY} times the rows alone{hope}: try another base or method."
    above = f"more than {MANY * most:,}" if high is None else f"{_rounded(high):,}"
    return f"The goal of {bound} would take about {_rounded(value):,} rows ({_rounded(low):,} to {above})."


def _rounded(rows: float) -> int:
    """To two digits."""
    digits = max(0, len(str(int(rows))) - 2)
    return int(round(rows, -digits))


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(f"{size:,}" for size in sizes[:-1]) + f" and {sizes[-1]:,}"
