"""Jobs and questions for tests of plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneloop.models.shape import Shape
from tuneloop.plan.auto import Circumstances, method_named
from tuneloop.plan.compare import Question
from tuneloop.plan.hardware import Hardware, named
from tuneloop.plan.job import Job
from tuneloop.plan.spec import DeploySpec, TrainingSpec


def job(rows: int, tokens: int, epochs: float = 3, **changes: Any) -> Job:
    """Training alone: rows of equal length, 16 a step, half of their tokens supervised."""
    batch = min(16, rows)
    given: dict[str, Any] = {
        "rows": rows, "epochs": epochs, "batch": batch, "steps": int(rows * epochs / batch),
        "step_tokens": tokens * batch, "step_heads": tokens * batch / 2, "longest": tokens, "looked_at": 0,
        "test_rows": 0, "test_tokens": 0, "answer_tokens": 0}
    return Job(**(given | changes))


def question(shape: Shape, work: Job, on: Sequence[str | Hardware], methods: list[str], *,
             planned: bool = False) -> Question:
    machines = [named(one) if isinstance(one, str) else one for one in on]
    return Question(shape, work, TrainingSpec(), [method_named(kind) for kind in methods], machines,
                    Circumstances(work.rows, False, DeploySpec()), planned)
