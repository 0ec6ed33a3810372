"""The certificate: did the tuned model reach the goal that was declared before training, decided on the interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from tuneloop.errors import UserError
from tuneloop.evaluation.compare import (
    Stack,
    compare,
    has_perplexity,
    holm,
    stack_of_answers,
    stack_of_perplexity,
)
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.intervals import LEVEL, Bootstrap, Interval, rows_needed
from tuneloop.evaluation.power import advice
from tuneloop.evaluation.safety.drop import Safety
from tuneloop.evaluation.suites.catalog import Forgetting
from tuneloop.evaluation.text import change, is_share, score
from tuneloop.grading.metrics import METRICS, Metric, View, chosen, names
from tuneloop.types import Answers, Sample

SCHEMA_VERSION = 1
PERPLEXITY, REWARD = "perplexity", "reward"
Task = Literal["labels", "open", "pairs"]
Verdict = Literal["met", "not met", "undecided"]
PERMUTATIONS = 1999     # behind every p-value
SHARES = ("accuracy", "exact_match", "preference_accuracy")     # shares of rows, of which `advice` speaks

_SPOKEN = {"accuracy": "accuracy", "macro_f1": "macro-F1", "exact_match": "exact match", "rouge_l": "ROUGE-L",
           "token_f1": "token F1", "preference_accuracy": "preference accuracy"}
_EXIT_CODES: dict[str, int] = {"met": 0, "not met": 3, "undecided": 4}


def exit_code(verdict: str) -> int:
    """What the command line answers to CI."""
    return _EXIT_CODES[verdict]


@dataclass(frozen=True)
class Retained:
    """What the suites measured before and after training; None where none of them was asked."""

    forgetting: Forgetting | None = None
    safety: Safety | None = None


def certify(goal: Goal, task: Task, references: Sequence[str], models: Sequence[Answers], *, resamples: int, seed: int,
            used_before: int, context: dict[str, Any], samples: Sequence[Sample] = (), metrics: Sequence[str] = (),
            retained: Retained | None = None) -> dict[str, Any]:
    """The content of certificate.json. `models` holds base and tuned, and whoever else answered, aligned with
    `references` and `samples`, the rows themselves. `metrics` are measured beside those of the task.

    `context` (run, base, hashes, seed, versions, slices …) is merged in. Raises a UserError if a metric does not fit
    the task, or if there is no test row.
    """
    metric = goal_metric(goal, task)
    if not references:
        raise UserError("There is no test row to judge the model on.", fix="give data.test, or a larger data.train")
    retained = retained or Retained()
    stacks, notes = stacks_of(task, references, models, samples, [metric, *metrics])
    bootstrap = Bootstrap(len(references), resamples, seed)
    scores = _scores(stacks, models, bootstrap)
    found = [one for others, group in _by_models(stacks) for one in compare(
        group, [(name, "tuned") for name in others], resamples=resamples, permutations=PERMUTATIONS, seed=seed)]
    for one, p in zip(found, holm([each.p for each in found]), strict=True):
        found[found.index(one)] = replace(one, p_holm=p)
    gains = {(one.metric, one.first): one for one in found}
    over = {other: one.gain for (name, other), one in gains.items() if name == metric}
    checks = [*checks_of(goal, metric, scores["tuned"][metric], over, len(references)), *_kept(goal, retained)]
    verdict = verdict_of([check["verdict"] for check in checks])
    gain = gains[metric, "base"]
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict,
        "sentence": _sentence(verdict, metric, scores, gain.gain, checks, len(references)),
        "goal": goal.model_dump(),
        "metric": metric,
        "task": task,
        "test_rows": len(references),
        "scores": {model: {name: i.to_json() for name, i in of.items()} for model, of in scores.items()},
        "differences": [{key: value for key, value in one.to_json().items() if key not in ("slice", "scores")}
                        for one in found],
        "checks": checks,
        "forgetting": retained.forgetting.to_json() if retained.forgetting else None,
        "safety": retained.safety.to_json() if retained.safety else None,
        "advice": advice(len(references), (gain.wins + gain.losses) / len(references)) if metric in SHARES else None,
        "confidence": LEVEL,
        "resamples": resamples,
        "speaks_of": "this artefact: one seed",
        "test_rows_used_before": used_before,
        "notes": [*_judgement(task, metric, {key: one.gain for key, one in gains.items()}, checks),
                  *_reuse(used_before), *_ungraded(retained), *_cut(models), *notes],
    } | context


def goal_metric(goal: Goal, task: Task) -> str:
    """The metric that the verdict is decided on. Raises a UserError if it does not fit the task."""
    fitting = names(task)
    if goal.metric == "auto":
        return fitting[0]
    if goal.metric not in fitting and not (goal.metric == REWARD and METRICS[REWARD].fits(task)):
        kind = {"labels": "labels", "open": "open answers", "pairs": "pairs"}[task]
        raise UserError(f"goal.metric is {goal.metric}, but the answers of this data are {kind}.",
                        wanted=f"one of {', '.join(fitting)}, or auto", fix=f"set goal.metric={fitting[0]}")
    return goal.metric


def stacks_of(task: Task, references: Sequence[str], models: Sequence[Answers], samples: Sequence[Sample] = (),
              more: Sequence[str] = ()) -> tuple[list[Stack], list[str]]:
    """Every metric of the task, and `more`, over the models that it fits; and what a reader must know of that.

    The reward is measured wherever answers have one.
    """
    stacks, notes = [], []
    more = [*more, *([REWARD] if any(model.rewards is not None for model in models) else [])]
    views = [View(references, model, samples) for model in models]
    for metric in chosen(task, list(dict.fromkeys([*names(task), *more]))):
        fitting = [view for view in views if not metric.view or _fits(metric, view)]
        if all(name in [view.answers.name for view in fitting] for name in ("base", "tuned")):
            stacks.append(stack_of_answers(metric, fitting))
        else:
            metric.of(next(view for view in views if view not in fitting))      # which says what is missing
    likely = []
    for model in models:
        if model.nll is not None and model.tokens is not None:
            # inf or nan cannot be resampled or written as JSON, and one such row would make the whole mean useless
            if has_perplexity(model):
                likely.append(model)
            else:
                notes.append(f"Perplexity of {model.name} is left out: a reference answer is next to impossible for "
                             "it, which no sound model says of one.")
    return stacks + ([stack_of_perplexity(likely)] if likely else []), notes


def _fits(metric: Metric, view: View) -> bool:
    try:
        metric.of(view)
    except UserError:       # such as the confidence of a rival that has none
        return False
    return True


def _scores(stacks: Sequence[Stack], models: Sequence[Answers], bootstrap: Bootstrap) -> dict[str, dict[str, Interval]]:
    every = np.arange(bootstrap.rows)
    asked = [(stack, model.name) for model in models for stack in stacks if model.name in stack.models]
    measured = bootstrap.measure([stack.over(stack.places(name, every)) for stack, name in asked])
    scores: dict[str, dict[str, Interval]] = {model.name: {} for model in models}
    for (stack, name), found in zip(asked, measured, strict=True):
        scores[name][stack.metric] = found.interval(stack.within)
    return scores


def _by_models(stacks: Sequence[Stack]) -> list[tuple[list[str], list[Stack]]]:
    """Metrics that were measured for the same models; those beside the tuned one."""
    found: dict[tuple[str, ...], list[Stack]] = {}
    for stack in stacks:
        if "tuned" in stack.models:
            found.setdefault(stack.models, []).append(stack)
    return [([name for name in models if name != "tuned"], group) for models, group in found.items()]


def checks_of(goal: Goal, metric: str, tuned: Interval, gains: Mapping[str, Interval],
              rows: int) -> list[dict[str, Any]]:
    """One entry per declared bound. A gain must be strictly more than its bound, so that 0 means better."""
    checks = []
    if goal.at_least is not None:
        bound = goal.at_least
        verdict = "met" if tuned.low >= bound else "not met" if tuned.high < bound else "undecided"
        checks.append(_check(f"{metric} of tuned ≥ {_number(bound)}", verdict, tuned, bound, rows))
    for other, wanted in (("base", goal.better_than_base_by), ("few_shot", goal.better_than_few_shot_by)):
        if wanted is not None:
            gain = gains[other]
            verdict = "met" if gain.low > wanted else "not met" if gain.high <= wanted else "undecided"
            checks.append(_check(f"{metric} of tuned − {other} > {_number(wanted)}", verdict, gain, wanted, rows))
    return checks


def _kept(goal: Goal, retained: Retained) -> list[dict[str, Any]]:
    """Bounds on what may be lost. More test rows do not settle these."""
    checks = []
    for what, bound, measured in (("forgetting", goal.max_forgetting, retained.forgetting),
                                  ("drop in safety", goal.max_safety_drop, retained.safety)):
        if bound is not None:
            unknown = measured.unknown if isinstance(measured, Safety) else []
            drop = measured.drop if measured else None
            if drop is None and unknown:        # a loss of anything from all to nothing
                drop = Interval(0.0, -1.0, 1.0)
            if drop is None:
                raise UserError(f"The goal bounds the {what}, which no suite measured.",
                                fix="leave the suites in evaluation.suites, or the bound out of the goal")
            verdict = "met" if drop.high <= bound else "not met" if drop.low > bound else "undecided"
            if verdict == "met" and unknown:
                verdict = "undecided"
            checks.append({"what": f"{what} ≤ {_number(bound)}", "verdict": verdict, **drop.to_json(), "bound": bound,
                           "more_rows": None})
    return checks


def _check(what: str, verdict: str, interval: Interval, bound: float, rows: int) -> dict[str, Any]:
    more = rows_needed(interval, bound, rows) if verdict == "undecided" else 0
    if verdict == "undecided" and more is not None:
        more = _rounded(more)
    return {"what": what, "verdict": verdict, **interval.to_json(), "bound": bound, "more_rows": more}


def verdict_of(verdicts: Sequence[str]) -> Verdict:
    if "not met" in verdicts:
        return "not met"
    return "met" if verdicts and set(verdicts) == {"met"} else "undecided"


def _number(bound: float) -> str:
    return f"{bound:.2f}" if math.isclose(bound, round(bound, 2)) else f"{bound:g}"


def _sentence(verdict: Verdict, metric: str, scores: dict[str, dict[str, Interval]], gain: Interval,
              checks: Sequence[dict[str, Any]], rows: int) -> str:
    """One plain line: what moved, by how much, how sure, on how many rows; and which bound was not reached."""
    before, after = (score(metric, scores[name][metric].value) for name in ("base", "tuned"))
    moved = (f"stayed at {after}" if before == after
             else f"{'rose' if gain.value > 0 else 'fell'} from {before} to {after}")
    spoken = _SPOKEN.get(metric, metric.replace("_", " "))
    say, unit = (_points, " points") if is_share(metric) else (partial(change, metric), "")
    told = (f"{verdict.upper()}: {spoken} {moved} ({say(gain.value)}{unit}, "
            f"{LEVEL:.0%} interval {say(gain.low)} to {say(gain.high)}) on {rows:,} held-out rows")
    return "; ".join([told, *(_shortfall(check) for check in checks if check["verdict"] != "met")]) + "."


def _shortfall(check: dict[str, Any]) -> str:
    asked, loss = f"the goal is {check['what']}", "≤" in check["what"]
    if check["verdict"] == "not met":
        return (f"{asked}, and the whole interval of {check['low']:.3f} to {check['high']:.3f} is "
                f"{'above' if loss else 'short of'} it")
    if loss and check["high"] <= check["bound"]:
        return f"{asked}, and what a suite lost that could not be graded is not known"
    if loss:
        return f"{asked}, and the interval of {check['low']:.3f} to {check['high']:.3f} does not settle it"
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


def _ungraded(retained: Retained) -> list[str]:
    return [f"Of the suite {name} no item could be graded before and after training, so what it lost is not known."
            for name in (retained.safety.unknown if retained.safety else [])]


def _cut(models: Sequence[Answers]) -> list[str]:
    return [f"{count} of the {len(model.texts)} answers of {model.name} ran into the length limit and were cut."
            for model in models if model.stopped and (count := model.stopped.count(False))]
