"""Jobs and questions for tests of plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuneloop.models.shape import Shape
from tuneloop.plan.auto import Circumstances, method_named
from tuneloop.plan.compare import Question
from tuneloop.plan.hardware import Hardware, named
from tuneloop.plan.job import Job
from tuneloop.plan.make import Workload
from tuneloop.plan.spec import DeploySpec, TrainingSpec
from tuneloop.types import Group, Rendered


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


def rows(count: int, length: int = 64, seed: int = 0) -> list[Group]:
    """Random rows, the last eight tokens of each supervised."""
    random = np.random.default_rng(seed)
    return [Group((Rendered(random.integers(1, 9999, length), (np.arange(length) >= length - 8).astype(np.float32)),))
            for _ in range(count)]


def work(**changes: object) -> Workload:
    """A small job of which the rows themselves are there."""
    given = {"train": rows(64), "validation": rows(8, seed=1), "test": rows(32, seed=2), "choices": 2,
             "max_new_tokens": 64}
    return Workload(**(given | changes))  # type: ignore[arg-type]
