"""The certificate: did the tuned model reach the goal that was declared before training, decided on the interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tuneloop.errors import UserError
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.intervals import LEVEL, Bootstrap, Interval, Measured, rows_needed
from tuneloop.grading.metrics import METRICS, Statistic, names, perplexity
from tuneloop.types import Answers

SCHEMA_VERSION = 1
PERPLEXITY = "perplexity"
Task = Literal["labels", "open", "pairs"]
Verdict = Literal["met", "not met", "undecided"]
Board = dict[str, dict[str, Measured]]      # model -> metric -> what was measured, all on the same draws

_SPOKEN = {"accuracy": "accuracy", "macro_f1": "macro-F1", "exact_match": "exact match", "rouge_l": "ROUGE-L",
           "preference_accuracy": "preference accuracy"}
_EXIT_CODES: dict[str, int] = {"met": 0, "not met": 3, "undecided": 4}


def exit_code(verdict: str) -> int:
    """What the command line answers to CI."""
    return _EXIT_CODES[verdict]


def certify(goal: Goal, task: Task, references: Sequence[str], models: Sequence[Answers], *, resamples: int, seed: int,
            used_before: int, context: dict[str, Any]) -> dict[str, Any]:
    """The content of certificate.json. `models` holds base and tuned, and perhaps a rival, aligned with `references`.

    `context` (run, base, hashes, seed, versions) is merged in. Raises a UserError if the goal's metric is not one of
    the task's, or if there is no test row.
    """
    metric = goal_metric(goal, task)
    if not references:
        raise UserError("There is no test row to judge the model on.", fix="give data.test, or a larger data.train")
    board, notes = _measure(task, references, models, Bootstrap(len(references), resamples, seed))
    scores = {model: {name: m.interval(_score_range(name)) for name, m in measured.items()}
              for model, measured in board.items()}
    differences = {(name, other): _difference(board, name, other)
                   for other in board if other != "tuned" for name in board[other] if name in board["tuned"]}
    checks = _checks(goal, metric, scores["tuned"][metric], differences[metric, "base"], len(references))
    verdict = _overall([check["verdict"] for check in checks])
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict,
        "sentence": _sentence(verdict, metric, scores, differences[metric, "base"], checks, len(references)),
        "goal": goal.model_dump(),
        "metric": metric,
        "task": task,
        "test_rows": len(references),
        "scores": {model: {name: i.to_json() for name, i in of.items()} for model, of in scores.items()},
        "differences": [{"metric": name, "from": other, "to": "tuned", **i.to_json(), "rows": len(references)}
                        for (name, other), i in differences.items()],
        "checks": checks,
        "confidence": LEVEL,
        "resamples": resamples,
        "speaks_of": "this artefact: one seed",
        "test_rows_used_before": used_before,
        "notes": [*_judgement(task, metric, differences, checks), *_reuse(used_before), *_cut(models), *notes],
    } | context


def goal_metric(goal: Goal, task: Task) -> str:
    """The metric that the verdict is decided on. Raises a UserError if it does not fit the task."""
    fitting = names(task)
    if goal.metric == "auto":
        return fitting[0]
    if goal.metric not in fitting:
        kind = {"labels": "labels", "open": "open answers", "pairs": "pairs"}[task]
        raise UserError(f"goal.metric is {goal.metric}, but the answers of this data are {kind}.",
                        wanted=f"one of {', '.join(fitting)}, or auto", fix=f"set goal.metric={fitting[0]}")
    return goal.metric


def _measure(task: Task, references: Sequence[str], models: Sequence[Answers],
             bootstrap: Bootstrap) -> tuple[Board, list[str]]:
    statistics: dict[tuple[str, str], Statistic] = {}
    notes = []
    for model in models:
        for name in names(task):
            statistics[model.name, name] = METRICS[name].statistic(references, model.texts)
        if model.nll is not None and model.tokens is not None:
            # inf or nan cannot be resampled or written as JSON, and one such row would make the whole mean useless
            if np.isfinite(model.nll).all():
                statistics[model.name, PERPLEXITY] = perplexity(model.nll, model.tokens)
            else:
                notes.append(f"Perplexity of {model.name} is left out: a reference answer has no finite probability.")
    board: Board = {model.name: {} for model in models}
    for (model_name, name), measured in zip(statistics, bootstrap.measure(list(statistics.values())), strict=True):
        board[model_name][name] = measured
    return board, notes


def _score_range(metric: str) -> tuple[float, float] | None:
    return None if metric == PERPLEXITY else (0.0, 1.0)


def _difference(board: Board, metric: str, other: str) -> Interval:
    return (board["tuned"][metric] - board[other][metric]).interval(None if metric == PERPLEXITY else (-1.0, 1.0))


def _checks(goal: Goal, metric: str, tuned: Interval, gain: Interval, rows: int) -> list[dict[str, Any]]:
    """One entry per declared bound. A gain must be strictly more than its bound, so that 0 means better."""
    checks = []
    if goal.at_least is not None:
        bound = goal.at_least
        verdict = "met" if tuned.low >= bound else "not met" if tuned.high < bound else "undecided"
        checks.append(_check(f"{metric} of tuned ≥ {_number(bound)}", verdict, tuned, bound, rows))
    if goal.better_than_base_by is not None:
        bound = goal.better_than_base_by
        verdict = "met" if gain.low > bound else "not met" if gain.high <= bound else "undecided"
        checks.append(_check(f"{metric} of tuned − base > {_number(bound)}", verdict, gain, bound, rows))
    return checks


def _check(what: str, verdict: str, interval: Interval, bound: float, rows: int) -> dict[str, Any]:
    more = rows_needed(interval, bound, rows) if verdict == "undecided" else 0
    if verdict == "undecided" and more is not None:
        more = _rounded(more)
    return {"what": what, "verdict": verdict, **interval.to_json(), "bound": bound, "more_rows": more}


def _overall(verdicts: Sequence[str]) -> Verdict:
    if "not met" in verdicts:
        return "not met"
    return "met" if verdicts and set(verdicts) == {"met"} else "undecided"


def _number(bound: float) -> str:
    return f"{bound:.2f}" if math.isclose(bound, round(bound, 2)) else f"{bound:g}"


def _sentence(verdict: Verdict, metric: str, scores: dict[str, dict[str, Interval]], gain: Interval,
              checks: Sequence[dict[str, Any]], rows: int) -> str:
    """One plain line: what moved, by how much, how sure, on how many rows; and which bound was not reached."""
    before, after = f"{scores['base'][metric].value:.1%}", f"{scores['tuned'][metric].value:.1%}"
    moved = (f"stayed at {after}" if before == after
             else f"{'rose' if gain.value > 0 else 'fell'} from {before} to {after}")
    spoken = _SPOKEN.get(metric, metric.replace("_", " "))
    told = (f"{verdict.upper()}: {spoken} {moved} ({_points(gain.value)} points, "
            f"{LEVEL:.0%} interval {_points(gain.low)} to {_points(gain.high)}) on {rows:,} held-out rows")
    return "; ".join([told, *(_shortfall(check) for check in checks if check["verdict"] != "met")]) + "."


def _shortfall(check: dict[str, Any]) -> str:
    asked = f"the goal is {check['what']}"
    if check["verdict"] == "not met":
        return f"{asked}, and the whole interval of {check['low']:.3f} to {check['high']:.3f} is short of it"
    if check["more_rows"] is None:
        return f"{asked}, which the measured value hits exactly, so more test rows may not settle it"
    return f"{asked}: about {check['more_rows']:,} more test rows are needed to tell"


def _rounded(rows: int) -> int:
    """To two digits: more would claim a precision that the estimate does not have."""
    return max(1, int(float(f"{rows:.2g}")))


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _judgement(task: Task, metric: str, differences: dict[tuple[str, str], Interval],
               checks: Sequence[dict[str, Any]]) -> list[str]:
    notes = []
    if differences[metric, "base"].high < 0:
        notes.append("The tuned model is worse than the base: do not use it.")
    rival = differences.get((metric, "rival"))
    if rival and rival.high < 0:
        notes.append("A TF-IDF rival, which trains in seconds, does better: a language model may not be needed.")
    elif rival and rival.value < 0:
        notes.append(f"A TF-IDF rival scores {-100 * rival.value:.1f} points higher, though that is not certain: a "
                     "language model may not be needed.")
    elif rival and rival.value == 0:
        notes.append("A TF-IDF rival does as well: a language model may not be needed.")
    elif rival and rival.low <= 0:
        notes.append("It is not certain that the tuned model beats a TF-IDF rival, which trains in seconds.")
    if task == "pairs":
        notes.append("Preference accuracy says how often the model prefers the answer that people chose, by its "
                     "likelihood per token or, for a reward model, by its score; not how good its own answers are.")
    if task == "open":
        notes.append("ROUGE-L and exact match measure resemblance to the reference, not correctness.")
    if not checks:
        notes.append("The goal declares no bound, so there is nothing to decide: "
                     "set goal.at_least or goal.better_than_base_by.")
    return notes


def _reuse(used_before: int) -> list[str]:
    if not used_before:
        return []
    times = "once" if used_before == 1 else f"{used_before} times"
    return [f"These test rows have judged a model {times} before; choosing among runs by them flatters the result."]


def _cut(models: Sequence[Answers]) -> list[str]:
    return [f"{count} of the {len(model.texts)} answers of {model.name} ran into the length limit and were cut."
            for model in models if model.stopped and (count := model.stopped.count(False))]
