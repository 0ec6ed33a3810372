"""The hosted `multi`: a formula over the scores of other graders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, InstanceOf, SerializeAsAny, WithJsonSchema, model_validator

from tuneloop.errors import UserError
from tuneloop.grading.graders import formula
from tuneloop.grading.graders.base import UNBOUNDED, Case, Grader, Mark, Means, failed

Named = Annotated[SerializeAsAny[InstanceOf[Grader]],
                  WithJsonSchema({"type": "object", "description": "A grader object."})]


class Multi(Grader):
    """What `calculate_output` makes of the scores of `graders`, by their keys.

    An answer that one of them cannot read has that one's lowest score there; where one fails, the whole fails.
    """

    type: Literal["multi"] = "multi"
    name: str
    graders: Annotated[dict[str, Named], Field(min_length=1)]
    calculate_output: str
    """Numbers, the keys of the graders, + - * / ^, brackets, and min max abs floor ceil exp sqrt log."""

    @model_validator(mode="after")
    def _can_be_calculated(self) -> Multi:
        try:
            formula.parse(self.calculate_output, list(self.graders))
        except UserError as error:
            raise ValueError(f"calculate_output with {error.wanted} ({error.found.rstrip('.')})") from None
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        return UNBOUNDED

    @property
    def templates(self) -> list[str]:
        return [text for grader in self.graders.values() for text in grader.templates]

    @property
    def files(self) -> dict[str, str]:
        return {f"{key}.{name}": sha256 for key, grader in self.graders.items()
                for name, sha256 in grader.files.items()}

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        parts = {key: grader.grade(cases, means) for key, grader in self.graders.items()}
        whole = formula.parse(self.calculate_output, list(self.graders))
        return [self._mark(whole, {key: marks[i] for key, marks in parts.items()}) for i in range(len(cases))]

    def _mark(self, whole: formula.Formula, parts: dict[str, Mark]) -> Mark:
        scores: dict[str, float] = {}
        for key, mark in parts.items():
            if mark.fault and not mark.fault.of_answer:
                return failed(mark.fault.flag, f"{key}: {mark.fault.what}")
            scores[key] = self.lowest(key) if mark.fault else mark.score
        try:
            return Mark(whole.value(scores), parts=scores)
        except (ArithmeticError, ValueError) as error:
            shown = ", ".join(f"{key} = {score:g}" for key, score in scores.items())
            return failed("other_error", f"{self.calculate_output} cannot be calculated of {shown} ({error})")

    def lowest(self, key: str) -> float:
        """What one of the graders gives to an answer that it cannot read."""
        low = self.graders[key].bounds[0]
        return low if math.isfinite(low) else 0.0
