"""Simple preference optimisation, by hand."""

from __future__ import annotations

import math

import pytest

from objective_batches import batch_of, numbers, outputs_of
from tuneloop.objectives.simpo import Objective


def test_loss() -> None:
    """Mean log-probs -1.5 and -4 give rewards -3 and -8 at beta 2: a margin of 5, of which 1 was the target."""
    batch = batch_of([2, 1], groups=[0, 0])
    found = Objective(beta=2.0, gamma=1.0).loss(outputs_of(batch, [-1.0, -2.0, -4.0]), batch)
    assert found.loss.item() == pytest.approx(math.log(1 + math.exp(-4.0)))
    assert numbers(found.sums) == pytest.approx({
        "accuracy": 1, "margin": 5.0, "chosen_reward": -3.0, "rejected_reward": -8.0})
    assert Objective().needs == set()


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"gamma": -1.0}])
def test_senseless_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Objective(**settings)
