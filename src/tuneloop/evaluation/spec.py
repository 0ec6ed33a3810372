"""The `evaluation:` part of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated

from pydantic import AfterValidator, Field

from tuneloop.errors import UserError, missing_extra
from tuneloop.evaluation.contenders import RemoteRival, require_apart
from tuneloop.evaluation.cost import Price
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.suites.catalog import RETENTION, USUAL, known_suite
from tuneloop.evaluation.suites.perturb import KINDS
from tuneloop.grading.metrics import METRICS, Kind, chosen
from tuneloop.spec import Spec

Positive = Annotated[int, Field(ge=1)]
Named = Annotated[str, Field(min_length=1)]


def _known_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"a metric: {', '.join(METRICS)}")
    return name


def _known_change(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"a change: {', '.join(KINDS)}")
    return kind


class EvaluationSpec(Spec):
    """How base and tuned model are compared, and with whom else."""

    max_new_tokens: Positive = 256
    """Longest generated answer, for open answers."""
    rows: Positive | None = None
    """Score at most so many test rows, drawn at random with the recipe's seed."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """What is not needed for the verdict (other contenders, suites) begins only within so many minutes; what is left
    out is said."""
    resamples: Annotated[int, Field(ge=200)] = 2000
    """Bootstrap resamples behind every interval."""
    metrics: list[Annotated[str, AfterValidator(_known_metric)]] = Field(default_factory=list)
    """Metrics beside those of the task: docs/metrics.md."""
    few_shot: Annotated[int, Field(ge=0)] = 4
    """The base also answers after so many examples from the training rows; 0 leaves that out."""
    prompt_search: Annotated[int, Field(ge=0)] = 60
    """The base also answers with the best of some prompts, found with so many answers to validation rows; 0 leaves
    that out."""
    compare_to: list[str | RemoteRival] = Field(default_factory=list)
    """Further models that answer the same rows: bases by name, or servers behind the OpenAI API."""
    suites: list[Annotated[str, AfterValidator(known_suite)]] = Field(default_factory=lambda: list(USUAL))
    """What base and tuned model are asked beside the test rows, before and after: retention and safety suites, files of
    your own (.jsonl), tasks of lm-eval (lm-eval:NAME)."""
    suite_items: Positive | None = 30
    """Ask at most so many items of each suite; null asks all, as a bound in the goal does."""
    perturb: list[Annotated[str, AfterValidator(_known_change)]] = Field(default_factory=list)
    """Also ask the test rows with these changes (typos, casing …), and say what the changes cost: docs/suites.md."""
    slices: list[Named] = Field(default_factory=list)
    """Columns of the test rows' file: scores are told apart by their values, such as [region, product]."""
    out_of_distribution: Named | None = None
    """A column that says which test rows are unlike the others (1, true, yes or ood; 0, false, no or nothing): base and
    tuned model are scored on both kinds."""
    extraction: Annotated[int, Field(ge=0)] = 0
    """Try to make the tuned model say so many of its training rows word for word."""
    judge: Named | RemoteRival | None = None
    """A model that judges the open answers of base and tuned model: a base by name, or a server behind the OpenAI
    API."""
    policies: list[Named] = Field(default_factory=list)
    """Files that say what makes an answer good, such as a style guide: the judge grades by each of them. Without any it
    grades by what is helpful."""
    judged_rows: Positive | None = 100
    """The judge sees at most so many test rows, drawn at random with the recipe's seed; null shows it all."""
    price: Price | None = None
    """What an hour of this machine costs; without it, costs are in seconds."""

    @property
    def columns(self) -> dict[str, str]:
        """Columns of the test rows whose values are needed, each with the key that names it."""
        flags = {self.out_of_distribution: "evaluation.out_of_distribution"} if self.out_of_distribution else {}
        return flags | dict.fromkeys(self.slices, "evaluation.slices")

    def check_measures(self, goal: Goal, task: Kind, *, writes: bool = True) -> None:
        """Raise a UserError where the goal bounds what this does not measure, a metric cannot be measured on such rows,
        or a judge has nothing to judge: before training, not after it. A reward model `writes` no answers.
        """
        from tuneloop.evaluation.safety.catalog import SAFETY

        _require_measurable(self.metrics, task)
        require_apart(self.compare_to)
        if self.policies and self.judge is None:
            raise UserError("evaluation.policies is set, but nobody judges by them.",
                            fix="name a model with evaluation.judge, or leave the policies out")
        if self.judge is not None and task != "open":
            told = {"labels": "labels, which are right or wrong without a judge",
                    "pairs": "pairs, of which people have preferred one"}[task]
            raise UserError(f"evaluation.judge is set, but the answers of these rows are {told}.",
                            wanted="open answers", fix="leave evaluation.judge out")
        if goal.better_than_few_shot_by is not None and not self.few_shot:
            raise UserError("goal.better_than_few_shot_by is set, but evaluation.few_shot is 0.",
                            fix="set evaluation.few_shot=4")
        if goal.better_than_few_shot_by is not None and task == "pairs":
            raise UserError("goal.better_than_few_shot_by is set, but pairs are asked of the base and the tuned model "
                            "alone.", fix="leave it out, and set goal.better_than_base_by")
        for key, names in (("max_forgetting", RETENTION), ("max_safety_drop", tuple(SAFETY))):
            if getattr(goal, key) is not None and not writes:
                raise UserError(f"goal.{key} is set, but a reward model writes no answers, so no suite can be asked.",
                                fix="leave it out")
            if getattr(goal, key) is not None and not set(names) & set(self.suites):
                raise UserError(f"goal.{key} is set, but evaluation.suites has nothing that measures it.",
                                wanted=f"some of {', '.join(names)}")


def _require_measurable(metrics: Sequence[str], task: Kind) -> None:
    """Raise a UserError for a metric that does not fit, needs an option that recipes have not, or lacks its package."""
    try:
        found = chosen(task, metrics)
    except UserError as error:
        raise UserError(f"evaluation.metrics: {error.found}", wanted=error.wanted, fix=error.fix) from None
    for metric in found:
        package = metric.needs.partition(",")[0]
        if "options.schema" in metric.needs:
            raise UserError(f"evaluation.metrics: {metric.name} needs a schema, which only a grader has in a recipe.",
                            fix=f"leave it out; for rewards: [{{kind: {metric.name}, schema: …}}] measure the metric "
                            "reward, and for a finished run: tuneloop eval RUN --on FILE --schema FILE")
        if package.isidentifier() and package != "options" and find_spec(package) is None:
            raise missing_extra(package, "eval", f"evaluation.metrics: {metric.name}")
