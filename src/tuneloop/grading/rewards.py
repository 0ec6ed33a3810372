"""What rewards answers: several graders, each with a weight, of which the reward is the weighted mean.

`Rewards.score` is what training learns from and what the metric `reward` measures, so both speak of one number. An
answer that a grader cannot grade has `on_failure` there, which is counted and told; where a grader fails at more than
half of the answers it says nothing about them, and that is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tuneloop.errors import UserError, raise_all
from tuneloop.grading.graders import template
from tuneloop.grading.graders.base import Case, Mark, Means, Opener, Scorer, flaw_of_score
from tuneloop.grading.judge import asked
from tuneloop.grading.registry import Scores
from tuneloop.grading.reward_spec import Reward, read_rewards
from tuneloop.types import Conversation, Origin, Sample, tools_of

MOST_FAILURES = 1 / 2
SHOWN = 300             # characters of a failure
LOOKED_AT = 200         # rows whose columns are compared with the variables of templates
Items = Mapping[Origin, Mapping[str, Any]]


@dataclass(frozen=True)
class Rewarded:
    """Rewards of n answers, and how they came about."""

    rewards: Scores                                                     # (n,)
    parts: Mapping[str, Scores] = field(default_factory=dict)           # grader -> (n,), failures filled in
    faults: Mapping[str, Sequence[str]] = field(default_factory=dict)   # grader -> (n,): why it failed, or nothing
    unread: Mapping[str, int] = field(default_factory=dict)             # grader -> answers that are not what it reads

    @property
    def failures(self) -> int:
        """Answers that some grader failed to grade."""
        return sum(map(any, zip(*self.faults.values(), strict=True)))

    @property
    def notes(self) -> list[str]:
        """What a reader must know of these rewards."""
        told = []
        for name, faults in self.faults.items():
            if count := sum(map(bool, faults)):
                first = next(filter(None, faults))
                told.append(f"{name} failed to grade {count:,} of {len(faults):,} answers, which have its reward of a "
                            f"failure: {first[:SHOWN]}")
            if self.unread.get(name):
                told.append(f"{self.unread[name]:,} of {len(faults):,} answers are not what {name} reads, and as bad "
                            "as can be")
        return told


class Rewards:
    """Graders with weights, ready to grade. `items` are the columns of rows, by where those stand in their files."""

    def __init__(self, rewards: Sequence[Reward], open_model: Opener | None = None, items: Items | None = None,
                 open_scorer: Callable[[str], Scorer] | None = None) -> None:
        """`open_model` opens models that judge, `open_scorer` reward models, by name; each once, when first asked."""
        self.rewards, self.means = tuple(rewards), Means(open_model, open_scorer)
        self.items: Items = items or {}
        self._known: dict[str, float] = {}

    def score(self, samples: Sequence[Sample], answers: Sequence[str]) -> Rewarded:
        """The reward of each answer, (n,). Raises a UserError where a grader fails at more than half of them."""
        return self.score_cases([case_of(sample, answer, self.items)
                                 for sample, answer in zip(samples, answers, strict=True)])

    def score_cases(self, cases: Sequence[Case]) -> Rewarded:
        """The same of cases."""
        if not cases:
            return Rewarded(np.zeros(0), {one.name: np.zeros(0) for one in self.rewards},
                            {one.name: [] for one in self.rewards})
        columns = {one.name: _column(one, one.grader.grade(cases, self.means)) for one in self.rewards}
        total = math.fsum(one.weight for one in self.rewards)
        rewards = np.sum([one.weight / total * columns[one.name].scores for one in self.rewards], axis=0)
        return Rewarded(np.asarray(rewards, np.float64), {name: of.scores for name, of in columns.items()},
                        {name: of.faults for name, of in columns.items()},
                        {name: of.unread for name, of in columns.items()})

    def measure(self, samples: Sequence[Sample], answers: Sequence[str]) -> Scores:
        """The rewards alone, (n,). The same answer to the same row is graded once: a certificate asks several times."""
        cases = [case_of(sample, answer, self.items) for sample, answer in zip(samples, answers, strict=True)]
        keys = [_key(case) for case in cases]
        fresh = {key: case for key, case in zip(keys, cases, strict=True) if key not in self._known}
        self._known |= dict(zip(fresh, self.score_cases(list(fresh.values())).rewards.tolist(), strict=True))
        return np.array([self._known[key] for key in keys], np.float64)

    def check(self, samples: Sequence[Sample]) -> None:
        """Raise a UserError where a template names a column that no row has."""
        cases = [case_of(sample, "", self.items) for sample in samples[:LOOKED_AT]]
        raise_all([problem for one in self.rewards for problem in _unknown(one, cases)] if cases else [])

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.rewards]

    @property
    def record(self) -> list[dict[str, Any]]:
        """All settings, for records."""
        return [one.to_json() for one in self.rewards]

    def release(self) -> None:
        """Let go of the memory of models on this machine."""
        self.means.release()


# ── one grader ───────────────────────────────────────────────────────────────────────────────────────────────────────

@dataclass(frozen=True)
class _Column:
    scores: Scores          # (n,)
    faults: list[str]       # (n,)
    unread: int


def _column(one: Reward, marks: Sequence[Mark]) -> _Column:
    low, _ = one.grader.bounds
    faults = [_failure(mark, one.grader.bounds) for mark in marks]
    failures = sum(map(bool, faults))
    if failures > MOST_FAILURES * len(marks):
        first = next(filter(None, faults))
        raise UserError(f"The grader {one.name} failed at {failures:,} of {len(marks):,} answers, so it says nothing "
                        f"about them. The first failure: {first[:SHOWN]}.", fix="mend the grader, or leave it out")
    good = [mark.score for mark, fault in zip(marks, faults, strict=True) if not fault and mark.fault is None]
    worst = low if math.isfinite(low) else min([0.0, *good])
    failed = worst if one.on_failure is None else one.on_failure
    scores = [failed if fault else worst if mark.fault else mark.score for mark, fault in
              zip(marks, faults, strict=True)]
    return _Column(np.array(scores, np.float64), faults, sum(bool(m.fault and m.fault.of_answer) for m in marks))


def _failure(mark: Mark, bounds: tuple[float, float]) -> str:
    """Why a grader has failed, or nothing."""
    if mark.fault is not None:
        return "" if mark.fault.of_answer else mark.fault.what
    return flaw_of_score(mark.score, bounds)


def _unknown(one: Reward, cases: Sequence[Case]) -> list[UserError]:
    """A problem for each variable of the row that no case has."""
    problems = []
    for text in one.grader.templates:
        for variable in template.parse(text).variables:
            if variable.namespace == "item" and not any(_has(variable, case) for case in cases):
                problems.append(UserError(f"The grader {one.name} names {{{{ {variable.shown} }}}}, which no row has.",
                                          wanted=f"one of: {', '.join(f'item.{key}' for key in cases[0].item)}"))
    return problems


def _has(variable: template.Variable, case: Case) -> bool:
    try:
        variable.value(case)
    except template.MissingError:
        return False
    return True


# ── from rows to cases ───────────────────────────────────────────────────────────────────────────────────────────────

def case_of(sample: Sample, answer: str, items: Items | None = None) -> Case:
    """An answer to a row."""
    return Case(asked(sample.prompt), sample.answer, answer, item_of(sample, (items or {}).get(sample.origin, {})),
                sample)


def item_of(sample: Sample, columns: Mapping[str, Any]) -> dict[str, Any]:
    """What graders see of a row: its columns, and where no column is called so `prompt`, `reference`, `messages`…"""
    known: dict[str, Any] = {"prompt": asked(sample.prompt), "reference": sample.answer,
                             "messages": [{"role": turn.role, "content": turn.content} for turn in sample.prompt]}
    if isinstance(sample, Conversation) and sample.tools:
        known["tools"] = [json.loads(tool) for tool in tools_of(sample)]
    return known | dict(json.loads(json.dumps(dict(columns), default=str)))


def _key(case: Case) -> str:
    return json.dumps([case.prompt, case.reference, case.answer, case.item], sort_keys=True)


def rewards_of(config: Any, root: Path, open_model: Opener | None = None, items: Items | None = None) -> Rewards:
    """The rewards that a list in a recipe says; files count from `root`. Raises a UserError with every flaw."""
    rewards, flaws = read_rewards(config, root)
    raise_all([flaw.error("rewards") for flaw in flaws])
    return Rewards(rewards, open_model, items)
