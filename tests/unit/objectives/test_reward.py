"""Reward modelling, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from objective_batches import batch_of, numbers, outputs_of
from tuneloop.objectives.reward import Objective

SCORES = [2.0, 0.5, -1.0, 1.0]      # chosen, rejected; chosen, rejected


def found(center: float = 0.0, **named: Any) -> Any:
    batch = batch_of([1, 2, 1, 1], groups=[0, 0, 1, 1], **named)
    return Objective(center=center).loss(outputs_of(batch, scores=SCORES), batch)


def test_loss() -> None:
    wanted = math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(2.0))
    assert found().loss.item() == pytest.approx(wanted)
    assert numbers(found().sums) == pytest.approx({
        "accuracy": 1, "margin": 1.5 - 2.0, "chosen_score": 1.0, "rejected_score": 1.5})


def test_margins_are_the_chosen_answers() -> None:
    wanted = math.log(1 + math.exp(-(1.5 - 0.25))) + math.log(1 + math.exp(2.0 + 1.0))
    assert found(margin=[0.25, 9.0, 1.0, 9.0]).loss.item() == pytest.approx(wanted)


def test_centering_keeps_the_sum_of_scores_small() -> None:
    assert found(0.1).loss.item() == pytest.approx(found().loss.item() + 0.1 * (2.5 ** 2 + 0.0 ** 2))


def test_a_negative_center_is_refused() -> None:
    with pytest.raises(ValueError, match="center"):
        Objective(center=-0.1)
