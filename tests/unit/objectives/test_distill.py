"""Distillation, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from objective_batches import batch_of, numbers, outputs_of
from tuneloop.objectives.distill import Objective

TEACHER = [[0.5, 0.3], [0.9, 0.1]]      # the second leaves nothing to the rest
STUDENT = [[0.2, 0.2], [0.6, 0.3]]


def found(alpha: float, student: Any = STUDENT) -> Any:
    batch = batch_of([2], weights=[1.0, 3.0], teacher_logprobs=np.log(TEACHER), select_ids=[[1, 2], [3, 4]])
    out = outputs_of(batch, [math.log(0.2), math.log(0.3)], selected=np.log(student))
    return Objective("teacher", top_k=2, alpha=alpha).loss(out, batch)


def divergences() -> list[float]:
    first = 0.5 * math.log(0.5 / 0.2) + 0.3 * math.log(0.3 / 0.2) + 0.2 * math.log(0.2 / 0.6)
    return [first, 0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.3)]


def test_the_divergence_counts_the_rest_as_one_bucket() -> None:
    first, second = divergences()
    assert found(1.0).loss.item() == pytest.approx(first + 3 * second)


def test_the_answers_count_for_the_rest() -> None:
    first, second = divergences()
    nll = -math.log(0.2) - 3 * math.log(0.3)
    assert found(0.25).loss.item() == pytest.approx(0.25 * (first + 3 * second) + 0.75 * nll)
    assert numbers(found(0.25).sums) == pytest.approx({"teacher_kl": first + 3 * second, "nll": nll})


def test_it_is_zero_for_the_teacher_itself_and_never_above_the_whole_divergence() -> None:
    assert found(1.0, TEACHER).loss.item() == pytest.approx(0.0, abs=1e-12)
    q, p = np.random.default_rng(0).dirichlet(np.ones(8), 2)
    batch = batch_of([1], teacher_logprobs=[np.log(q[:3])])
    part = Objective("teacher", top_k=3, alpha=1.0).loss(outputs_of(batch, selected=[np.log(p[:3])]), batch).loss.item()
    assert 0 < part < float((q * np.log(q / p)).sum())


@pytest.mark.parametrize("settings", [{"teacher": ""}, {"teacher": "x", "top_k": 0}, {"teacher": "x", "alpha": 0.0}])
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Objective(**settings)
