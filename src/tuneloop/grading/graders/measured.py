"""Graders that ask a metric, so that training rewards what evaluation measures; and one that counts JSON's keys."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field

from tuneloop.errors import UserError
from tuneloop.grading.graders.base import Case, Grader, Mark, Means, failed
from tuneloop.grading.metrics import METRICS, Metric, Options, Scores, View
from tuneloop.grading.structured import is_json, schema_check
from tuneloop.types import Answers


def _metric_of_rows(name: str) -> str:
    if name not in METRICS or not METRICS[name].grades_rows:
        raise ValueError(f"a metric that scores rows: {', '.join(of_rows())}")
    return name


def of_rows() -> list[str]:
    """The metrics that can grade."""
    return [metric.name for metric in METRICS.values() if metric.grades_rows]


class Measured(Grader):
    """What a metric says of the answer: docs/metrics.md. A recipe names the metric as the kind."""

    kind: Annotated[str, AfterValidator(_metric_of_rows)]

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        return measured(METRICS[self.kind], cases, Options())


class Numeric(Grader):
    """1 where the last number of the answer is that of the row's right answer, else 0; as the metric `numeric`."""

    kind: Literal["numeric"] = "numeric"
    tolerance: Annotated[float, Field(ge=0)] = 1e-6
    """Absolute, and relative to the larger of the two."""

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        return measured(METRICS["numeric"], cases, Options(tolerance=self.tolerance))


def _is_schema(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        schema_check(json.dumps(schema))
    except UserError as error:
        raise ValueError(f"a JSON schema ({error.found.rstrip('.')})") from None
    return schema


class JsonSchema(Grader):
    """1 where the whole answer is JSON that obeys a schema, else 0; as the metric `json_schema`."""

    model_config = ConfigDict(validate_by_alias=True, serialize_by_alias=True)

    kind: Literal["json_schema"] = "json_schema"
    obeys: Annotated[dict[str, Any], AfterValidator(_is_schema), Field(alias="schema")]
    """A JSON schema."""

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        return measured(METRICS["json_schema"], cases, Options(schema=self.obeys))


class JsonKeys(Grader):
    """The share of the wanted keys that the answer, a JSON object and nothing else, has; 0 where it is none."""

    kind: Literal["json_keys"] = "json_keys"
    keys: Annotated[list[str], Field(min_length=1)]
    only: bool = False
    """Whether keys beside the wanted ones count against the answer: the share is then of all keys, its own included."""

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        return [Mark(self._share(case.answer)) for case in cases]

    def _share(self, answer: str) -> float:
        given = json.loads(answer) if is_json(answer) else None
        if not isinstance(given, Mapping):
            return 0.0
        wanted = set(self.keys)
        return len(wanted & set(given)) / len(wanted | set(given) if self.only else wanted)


class ToolCalls(Grader):
    """1 where the answer makes the calls of the row's last turn, else 0; as the metric `tool_calls`."""

    kind: Literal["tool_calls"] = "tool_calls"

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        return measured(METRICS["tool_calls"], cases, Options())


def measured(metric: Metric, cases: Sequence[Case], options: Options) -> list[Mark]:
    """What a metric of rows says of each case. Where it refuses them together, each is asked alone."""
    def ask(some: Sequence[Case]) -> Scores:
        rows = [case.row for case in some if case.row is not None]
        view = View([case.reference for case in some], Answers("the policy", [case.answer for case in some]),
                    rows if len(rows) == len(some) else (), options)
        found = metric.function(view) if metric.view else metric.function(view.references, view.answers.texts)
        return np.asarray(found, np.float64)

    try:
        return [Mark(score) for score in ask(cases).tolist()]
    except UserError:
        return [_alone(ask, case) for case in cases]


def _alone(ask: Callable[[Sequence[Case]], Scores], case: Case) -> Mark:
    try:
        [score] = ask([case]).tolist()
    except UserError as error:
        return failed("other_error", error.text.replace("\n", ";").replace("test row 1", "the row"))
    return Mark(score if math.isfinite(score) else math.nan)
