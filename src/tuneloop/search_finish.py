"""The end of a search: the best recipe and the defaults with several seeds, judged on the test rows, and what follows.

Trials were compared on the validation rows, so the best of them looks better than it is. What is said of it here rests
on rows and seeds that had no say in the choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneloop import loop, several
from tuneloop import recipe as recipes
from tuneloop.errors import UserError
from tuneloop.evaluation.certificate import stacks_of
from tuneloop.evaluation.compare import Stack
from tuneloop.evaluation.intervals import Bootstrap, Interval, Measured
from tuneloop.evaluation.seeds import recipes_differ
from tuneloop.evaluation.text import change, metric_name, model_name, score, span
from tuneloop.record import RunFolder, read_json, write_json
from tuneloop.search_space import shown, with_values
from tuneloop.search_study import DEFAULTS, DRAWN, UNTUNED, Study, Trial
from tuneloop.training.watch import Silent, Watcher

FINAL = "final.json"        # names of the runs at the end, so that a cut-off search goes on with them
BEST = "best"


def final_runs(folder: Path, given: Mapping[str, Any], best: Trial, seeds: int,
               watch: Watcher) -> dict[str, list[RunFolder]]:
    """Runs of the best recipe and of the defaults, beside the folder of the search; those that are finished are kept.

    Their seeds begin after the one that the trials had.
    """
    wanted: dict[str, dict[str, Any]] = {DEFAULTS: {}} | ({BEST: best.values} if best.kind == DRAWN else {})
    known = read_json(folder / FINAL) if (folder / FINAL).exists() else {}
    found: dict[str, list[RunFolder]] = {}
    for seed in range(seeds):
        for which, values in wanted.items():
            names = known.setdefault(which, [])
            recipe = _recipe(given, values, which, seed, folder)
            run = RunFolder(folder.parent / names[seed]) if seed < len(names) else None
            if run is None or not run.has("recipe.yaml"):
                run = RunFolder.create(recipe.name, folder.parent)
                loop.begin(recipe, run)
                names[seed:] = [run.path.name]
                write_json(folder / FINAL, known)
            if not run.has("certificate.json"):
                certificate = loop.run(recipes.load(run.file("recipe.yaml")), run, Silent())
                watch.say(f"{which}, seed {recipe.training_seed}: {certificate['sentence']} {run.path}")
            found.setdefault(which, []).append(run)
    return found


def _recipe(given: Mapping[str, Any], values: Mapping[str, Any], which: str, seed: int, folder: Path) -> recipes.Recipe:
    made = with_values(given, values)
    first = recipes.of(made, shown="the recipe", root=folder)
    made["training"] = {**(made.get("training") or {}), "seed": first.training_seed + 1 + seed,
                        "only_if_needed": False}        # that has been judged on the validation rows
    made["name"] = f"{first.name}-{which}"
    return recipes.of(made, shown="the recipe", root=folder)


# ── on the test rows ─────────────────────────────────────────────────────────────────────────────────────────────────

def difference(first: Sequence[RunFolder], second: Sequence[RunFolder], resamples: int = 2000,
               seed: int = 0) -> tuple[str, Interval]:
    """The metric, and how much better the second recipe is than the first on the same test rows: positive is better,
    whichever way the metric counts. Raises a UserError where they answered other rows.
    """
    lines = [run.lines("evaluation", "predictions.jsonl") for run in (*first, *second)]
    asked = [[(line["origin"], line["reference"]) for line in of] for of in lines]
    if any(one != asked[0] for one in asked):
        raise UserError("The best recipe and the defaults did not answer the same test rows.",
                        wanted="a recipe whose test rows do not depend on what was searched")
    certificate = first[0].read("certificate.json")
    references = [reference for _, reference in asked[0]]
    bootstrap = Bootstrap(len(references), resamples, seed)
    stacks = [_stack(run, certificate["task"], certificate["metric"], references) for run in (*first, *second)]
    tuned = [_tuned(stack, bootstrap) for stack in stacks]
    sign = 1 if stacks[0].higher_is_better else -1
    found = recipes_differ(tuned[:len(first)], tuned[len(first):], stacks[0].range_of_differences)
    low, high = sorted((sign * found.low, sign * found.high))
    return certificate["metric"], Interval(sign * found.value, low, high)


def _stack(run: RunFolder, task: Any, metric: str, references: Sequence[str]) -> Stack:
    models = [several.answers_of([run], name) for name in ("base", "tuned")]
    return next(one for one in stacks_of(task, references, models, (), [metric])[0] if one.metric == metric)


def _tuned(stack: Stack, bootstrap: Bootstrap) -> Measured:
    import numpy as np

    return bootstrap.measure([stack.over(stack.places("tuned", np.arange(bootstrap.rows)))])[0]


# ── what follows ─────────────────────────────────────────────────────────────────────────────────────────────────────

def do_not_tune(study: Study, metric: str, rows: int) -> dict[str, Any] | None:
    """The verdict where nothing that was trained does better on the validation rows than what needs no training."""
    untuned, best = study.best(*UNTUNED), study.best(DEFAULTS, DRAWN)
    if untuned is None or untuned.value is None:
        return None
    if best is not None and best.value is not None and study.sign * (best.value - untuned.value) > 0:
        return None
    tried = sum(one.kind in (DEFAULTS, DRAWN) for one in study.trials())
    reached = "none of them got to its end" if best is None or best.value is None else \
        f"the best of {tried} recipes {score(metric, best.value)}"
    return {"verdict": "not met", "recommended": untuned.kind, "sentence":
            f"DO NOT TUNE: the {model_name(untuned.kind).lower()} reaches {_name(metric)} "
            f"{score(metric, untuned.value)} on {rows:,} validation rows, and {reached}."}


def verdict_on(runs: Mapping[str, Sequence[RunFolder]], best: Trial) -> dict[str, Any]:
    """What the runs at the end say: whether the best recipe beats the defaults, and whether the better one meets the
    goal. The defaults stay unless they are certainly beaten.
    """
    together = {which: several.together(of) for which, of in runs.items()}
    if BEST not in runs:
        sentence = ("COULD NOT BEAT THE DEFAULTS: none of the recipes that were tried does better on the validation "
                    "rows, so the defaults stay.")
        return {"recommended": DEFAULTS, "difference": None, "beat_the_defaults": False} | _with_goal(
            sentence, together, DEFAULTS, runs)
    metric, gain = difference(runs[DEFAULTS], runs[BEST])
    beat, said = gain.low > 0, f"{change(metric, gain.value)}{_unit(metric)} (95 % interval {_span(metric, gain)})"
    reached = {which: score(metric, of["tuned"]["value"]) for which, of in together.items()}
    what = f"{_name(metric)} {reached[BEST]} against {reached[DEFAULTS]}, {said}, over {len(runs[BEST])} seeds and " \
           f"{together[BEST]['rows']:,} test rows"
    sentence = f"BEAT THE DEFAULTS: {what}, by {shown(best.values)}." if beat else \
        f"WORSE THAN THE DEFAULTS: {what}, so the defaults stay." if gain.high < 0 else \
        f"COULD NOT BEAT THE DEFAULTS: {what}, so the defaults stay."
    return {"recommended": BEST if beat else DEFAULTS, "difference": gain.to_json(), "beat_the_defaults": beat} | \
        _with_goal(sentence, together, BEST if beat else DEFAULTS, runs)


def _with_goal(sentence: str, together: Mapping[str, dict[str, Any]], recommended: str,
               runs: Mapping[str, Sequence[RunFolder]]) -> dict[str, Any]:
    for which, of in runs.items():
        several.write(of, together[which])
    chosen = together[recommended]
    return {"sentence": sentence, "verdict": chosen["verdict"], "goal": chosen["sentence"], "certified": dict(together)}


def trial_line(trial: Trial, metric: str) -> str:
    """A trial for people."""
    what = {"base": "base, untuned", "few_shot": "base with examples", "optimised_prompt": "base with a better prompt",
            DEFAULTS: "defaults"}.get(trial.kind, shown(trial.values))
    ended = score(metric, trial.value) if trial.value is not None else {
        "stopped": f"stopped: {trial.why}", "failed": f"left out: {' '.join(trial.why.split())}"}.get(
            trial.state, trial.state)
    return f"trial {trial.number}  {ended}  {what}  ({trial.seconds:.0f} s)"


def _name(metric: str) -> str:
    """Within a sentence."""
    name = metric_name(metric)
    return name if name[1:2].isupper() else name[:1].lower() + name[1:]


def _unit(metric: str) -> str:
    return " points" if score(metric, 0.5).endswith("%") else ""


def _span(metric: str, gain: Interval) -> str:
    return span(gain.to_json(), lambda value: change(metric, value))
