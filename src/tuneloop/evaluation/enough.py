"""Whether the base, without training, already meets the goal: with examples or a better prompt in front of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from tuneloop.evaluation.certificate import Task, certify
from tuneloop.evaluation.contenders import FEW_SHOT, OPTIMISED
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.text import score, span
from tuneloop.types import Answers, Sample

UNTRAINED = {FEW_SHOT: "examples in its prompt", OPTIMISED: "a better prompt"}


def enough(goal: Goal, task: Task, references: Sequence[str], base: Answers, others: Sequence[Answers], *,
           samples: Sequence[Sample] = (), resamples: int, seed: int) -> str:
    """What to tell people where the base meets the goal untrained, decided on the interval; "" where it does not.

    Only bounds that the user wrote are asked about, and not one over the few-shot base itself. What must not be
    forgotten or become unsafe is met by a base that does not change.
    """
    asked = goal.at_least is not None or "better_than_base_by" in goal.model_fields_set
    if not asked or goal.better_than_few_shot_by is not None:
        return ""
    alone = goal.model_copy(update={"max_forgetting": None, "max_safety_drop": None})
    for one in others:
        if one.name not in UNTRAINED:
            continue
        found = certify(alone, task, references, [base, replace(one, name="tuned")], resamples=resamples, seed=seed,
                        used_before=0, context={}, samples=samples)
        if found["verdict"] == "met":
            metric = found["metric"]
            got = found["scores"]["tuned"][metric]
            return (f"Fine-tuning is not needed for this goal: the base with {UNTRAINED[one.name]} meets it already, "
                    f"with {metric} {score(metric, got['value'])} "
                    f"({span(got, partial(score, metric))}) on {found['test_rows']:,} test rows. Training "
                    "may still pay by shorter prompts, or by more than the goal asks.")
    return ""
