"""The `goal:` part of a recipe: what success means, declared before training."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from tuneloop.grading.metrics import METRICS
from tuneloop.spec import Spec

NOT_YET = {
    "safety": "it is called max_safety_drop",
    "max_latency_ms": "latency is measured, and nothing is decided on it yet",
    "max_cost": "cost is measured, and nothing is decided on it yet",
}
"""Keys that the design foresees and this version does not measure: refused by name rather than ignored."""


def _known(metric: str) -> str:
    if metric != "auto" and metric not in METRICS:
        raise ValueError(f"auto or a metric: {', '.join(METRICS)}")
    return metric


class Goal(Spec):
    """Bounds that the verdict is decided on, each by its confidence interval and not by its point."""

    metric: Annotated[str, AfterValidator(_known)] = "auto"
    """What is measured; auto is accuracy for labels, rouge_l for open answers, preference_accuracy for pairs."""
    at_least: Annotated[float, Field(ge=0, le=1)] | None = None
    """The tuned model's score must be at least this."""
    better_than_base_by: Annotated[float, Field(ge=-1, le=1)] | None = 0.0
    """The tuned model must beat the base by more than this, on the same rows. 0 unless another bound is given: a goal
    without any asks for some gain. null asks for no comparison."""
    better_than_few_shot_by: Annotated[float, Field(ge=-1, le=1)] | None = None
    """The tuned model must beat the base with examples in its prompt by more than this."""
    max_forgetting: Annotated[float, Field(ge=0, le=1)] | None = None
    """What may be lost at most on the retention suites, as a share: docs/suites.md."""
    max_safety_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """What may be lost at most on the worst of the safety suites, as a share: docs/safety.md."""

    @model_validator(mode="before")
    @classmethod
    def _only_the_bounds_given(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("at_least") is not None:
            return {"better_than_base_by": None} | given
        return given
