"""Odds ratio preference optimisation, by hand."""

from __future__ import annotations

import math

import pytest

from objective_batches import batch_of, numbers, outputs_of
from tuneloop.objectives.orpo import Objective

HALF, EIGHTH, QUARTER = math.log(1 / 2), math.log(1 / 8), math.log(1 / 4)


def test_loss() -> None:
    """The chosen answer's probability per token is sqrt(1/2 1/8) = 1/4, odds 1/3; the rejected one's 1/2, odds 1."""
    batch = batch_of([2, 1], groups=[0, 0])
    found = Objective(odds_weight=0.2).loss(outputs_of(batch, [HALF, EIGHTH, HALF]), batch)
    sigma = 1 / (1 + math.exp(-math.log((1 / 3) / 1)))
    assert sigma == pytest.approx(1 / 4)
    assert found.loss.item() == pytest.approx(math.log(4) - 0.2 * math.log(1 / 4))
    assert numbers(found.sums) == pytest.approx({
        "accuracy": 0, "log_odds_ratio": math.log(1 / 3), "chosen_nll": math.log(4)})


def test_a_certain_answer_keeps_the_loss_finite() -> None:
    batch = batch_of([1, 1], groups=[0, 0])
    out = outputs_of(batch, [QUARTER, 0.0])
    found = Objective().loss(out, batch)
    found.loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(found.loss.item())
    assert out.logprobs.grad is not None
    assert out.logprobs.grad.isfinite().all()


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="odds_weight"):
        Objective(odds_weight=-0.1)
