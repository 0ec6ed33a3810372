"""Several seeds of one recipe: what the recipe reaches, and not only the artefact that one seed made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuneloop.errors import UserError
from tuneloop.evaluation.certificate import Task, checks_of, stacks_of, verdict_of
from tuneloop.evaluation.compare import joined
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.intervals import Bootstrap, Measured
from tuneloop.evaluation.report import SEEDS, write_report
from tuneloop.evaluation.seeds import FEWEST_SEEDS, Recipe, recipe
from tuneloop.evaluation.text import is_share, score
from tuneloop.grading.metrics import METRICS
from tuneloop.record import RunFolder, write_json
from tuneloop.types import Answers

SCHEMA_VERSION = 1


def require_seeds(count: int) -> None:
    """Raise a UserError for fewer seeds than an interval needs."""
    if count < FEWEST_SEEDS:
        raise UserError(f"{count} seeds say little about a recipe.", wanted=f"at least {FEWEST_SEEDS}",
                        fix=f"--seeds {FEWEST_SEEDS}, or leave it out to speak of one artefact")


def together(runs: Sequence[RunFolder], resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """What finished runs of one recipe reached: mean over seeds, spread between them, and 95 % intervals for seeds and
    rows that were not tried. Raises a UserError where they are no seeds of one recipe on the same rows.
    """
    require_seeds(len(runs))
    certificates = [run.read("certificate.json") for run in runs]
    rows = [run.lines("evaluation", "predictions.jsonl") for run in runs]
    asked = [[(line["prompt"], line["reference"]) for line in of] for of in rows]
    if any(one != asked[0] for one in asked) or len({c["metric"] for c in certificates}) > 1:
        raise UserError("These runs did not answer the same rows, or have other goals.",
                        wanted="runs of one recipe that differ in training.seed alone")
    metric, task = certificates[0]["metric"], certificates[0]["task"]
    bootstrap = Bootstrap(len(rows[0]), resamples, seed)
    references, tuned, gains = [reference for _, reference in asked[0]], [], []
    for run in runs:
        before, after = base_and_tuned(task, metric, references, [answers_of([run], name)
                                                                  for name in ("base", "tuned")], bootstrap)
        tuned.append(after)
        gains.append(after - before)
    within = METRICS[metric].within
    reached, gained = recipe(tuned, within), recipe(gains, within and (within[0] - within[1], within[1] - within[0]))
    checks = checks_of(Goal(**decided_here(certificates[0]["goal"])), metric, reached.mean, {"base": gained.mean},
                       len(asked[0]))
    verdict = verdict_of([check["verdict"] for check in checks])
    return {"schema_version": SCHEMA_VERSION, "metric": metric, "rows": len(asked[0]),
            "runs": [run.path.name for run in runs], "tuned": reached.to_json(), "gain": gained.to_json(),
            "verdict": verdict, "checks": checks,
            "sentence": f"{verdict.upper()}: {_sentence(metric, reached, gained)}"}


def write(runs: Sequence[RunFolder], found: dict[str, Any]) -> Path:
    """Keep what was found beside the runs, under the first one's name, and in each of them, for its report."""
    return write_together(runs, found, "seeds", SEEDS)


# ── shared by all that puts runs together ────────────────────────────────────────────────────────────────────────────

def write_together(runs: Sequence[RunFolder], found: dict[str, Any], kind: str, file: str) -> Path:
    """`<first run>.<kind>.json` beside the runs, and `file` in each, whose report is written anew. The certificate does
    not rest on that file, so it stays as it was signed.
    """
    path = runs[0].path.with_name(f"{runs[0].path.name}.{kind}.json")
    write_json(path, found)
    for run in runs:
        run.write(found, file)
        write_report(run)
    return path


def answers_of(runs: Sequence[RunFolder], name: str) -> Answers:
    """What one model, or that of each run, answered to the rows of these runs, one after the other."""
    return joined([Answers(**run.read("evaluation", f"{name}.json")) for run in runs], name)


def base_and_tuned(task: Task, metric: str, references: Sequence[str], two: Sequence[Answers],
                   bootstrap: Bootstrap) -> tuple[Measured, Measured]:
    """The metric of both models on the same resamples."""
    [stack] = [one for one in stacks_of(task, references, two, (), [metric])[0] if one.metric == metric]
    every = np.arange(len(references))
    before, after = bootstrap.measure([stack.over(stack.places(name, every)) for name in ("base", "tuned")])
    return before, after


def decided_here(goal: dict[str, Any]) -> dict[str, Any]:
    """The bounds on score and gain; the others are each run's own."""
    return {key: goal[key] for key in ("metric", "at_least", "better_than_base_by")}


def _sentence(metric: str, reached: Recipe, gained: Recipe) -> str:
    mean, gain = reached.mean, gained.mean
    sure = "better than the base" if gain.low > 0 else "worse than the base" if gain.high < 0 else (
        "not certainly better than the base")
    times, form, unit = (100, ".1f", " points") if is_share(metric) else (1, ".2f", "")
    said, span = (score(metric, mean.value), score(metric, mean.low), score(metric, mean.high)), (
        f"{times * gain.low:+{form}} to {times * gain.high:+{form}}")
    return (f"Over {len(reached.of_seeds)} seeds the recipe is {sure}: {metric} {said[0]} (95 % interval {said[1]} to "
            f"{said[2]}), {times * gain.value:+{form}}{unit} ({span}); between seeds it scatters by "
            f"{times * reached.spread:{form}}{unit}.")
