"""Graders: one answer's score in [0, 1], for rewards in reinforcement learning and for graders of hosted services.

A grader is a frozen object called as `grader(reference, answer, sample)`; each asks a metric, so that training rewards
what evaluation measures. A wrong setting is refused when the grader is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from tuneloop.errors import UserError
from tuneloop.grading.metrics import METRICS, Options, View
from tuneloop.grading.sandbox import Limits
from tuneloop.types import Answers, Sample

Operation = Literal["eq", "ne", "like", "ilike"]


class Grader(Protocol):
    """How good an answer to a sample is, in [0, 1]."""

    def __call__(self, reference: str, answer: str, sample: Sample) -> float: ...


@dataclass(frozen=True, slots=True)
class StringCheck:
    """1 where the answer is the reference (eq), is not (ne), or contains it (like; ilike in any case), else 0."""

    operation: Operation = "eq"

    def __post_init__(self) -> None:
        if self.operation not in get_args(Operation):
            raise UserError(f"A string check cannot '{self.operation}'.", wanted="eq, ne, like or ilike")

    def __call__(self, reference: str, answer: str, sample: Sample) -> float:
        match self.operation:
            case "eq":
                return float(answer == reference)
            case "ne":
                return float(answer != reference)
            case "like":
                return float(reference in answer)
            case "ilike":
                return float(reference.casefold() in answer.casefold())


@dataclass(frozen=True, slots=True)
class TextSimilarity:
    """Resemblance to the reference by a metric of open answers that compares texts: rouge_l, token_f1, chrf ..."""

    metric: str = "rouge_l"

    def __post_init__(self) -> None:
        fitting = [m.name for m in METRICS.values()
                   if m.kind == "open" and m.in_unit and m.better == "higher" and not m.view]
        if self.metric not in fitting:
            raise UserError(f"'{self.metric}' does not say how alike two texts are.",
                            wanted=f"one of {', '.join(fitting)}")

    def __call__(self, reference: str, answer: str, sample: Sample) -> float:
        return _score(self.metric, reference, answer, sample)


@dataclass(frozen=True, slots=True)
class Numeric:
    """1 where the last number of the answer is that of the reference, within a tolerance (metric `numeric`)."""

    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise UserError(f"The tolerance of a number is {self.tolerance}.", wanted="0 or more")

    def __call__(self, reference: str, answer: str, sample: Sample) -> float:
        return _score("numeric", reference, answer, sample, Options(tolerance=self.tolerance))


@dataclass(frozen=True)
class JsonSchema:
    """1 where the answer is JSON that obeys a schema (metric `json_schema`)."""

    schema: Mapping[str, Any]

    def __post_init__(self) -> None:
        _score("json_schema", "", "{}", None, Options(schema=self.schema))      # refuses what is no schema

    def __call__(self, reference: str, answer: str, sample: Sample) -> float:
        return _score("json_schema", reference, answer, sample, Options(schema=self.schema))


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """1 where the answer makes the calls of the sample's last turn (metric `tool_calls`)."""

    def __call__(self, reference: str, answer: str, sample: Sample) -> float:
        return _score("tool_calls", reference, answer, sample)


@dataclass(frozen=True, slots=True)
class Code:
    """1 where the answer's Python passes the reference's tests in a sandbox (metric `code`)."""

    limits: Limits = field(default_factory=Limits)

    def __call__(self, reference: str, answer: str, sample: Sample) -> float:
        return _score("code", reference, answer, sample, Options(limits=self.limits))


@dataclass(frozen=True)
class Weighted:
    """The mean of graders, weighted; weights count by their proportion."""

    parts: tuple[tuple[float, Grader], ...]

    def __post_init__(self) -> None:
        weights = [weight for weight, _ in self.parts]
        if not all(weight >= 0 and math.isfinite(weight) for weight in weights) or sum(weights) <= 0:
            raise UserError(f"The weights of graders are {weights}.", wanted="numbers of 0 or more, not all 0")

    def __call__(self, reference: str, answer: str, sample: Sample) -> float:
        total = math.fsum(weight for weight, _ in self.parts)
        return math.fsum(weight * grader(reference, answer, sample) for weight, grader in self.parts) / total


def _score(metric: str, reference: str, answer: str, sample: Sample | None, options: Options | None = None) -> float:
    """A metric of one row."""
    samples = [] if sample is None else [sample]
    return METRICS[metric].value_of(View([reference], Answers("this model", [answer]), samples, options or Options()))
