"""Kahneman-Tversky optimisation, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from objective_batches import batch_of, numbers, outputs_of
from tuneloop.objectives.kto import Objective

LOGPROBS, REFERENCE = [-1.0, -2.0, -4.0, -1.0], [-2.0, -2.5, -3.0, -1.5]
RATIOS, DESIRABLE = [1.5, -1.0, 0.5], [1, 0, 0]     # of branches with two tokens, one and one


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def found(kl: float, **settings: Any) -> Any:
    batch = batch_of([2, 1, 1], stats={"kl": kl}, reference_logprobs=REFERENCE, desirable=DESIRABLE)
    return Objective(beta=0.5, **settings).loss(outputs_of(batch, LOGPROBS), batch)


def test_loss() -> None:
    z = 0.25
    wanted = (2.0 * (1 - sigmoid(0.5 * (1.5 - z))) + 0.75 * (1 - sigmoid(0.5 * (z + 1.0)))
              + 0.75 * (1 - sigmoid(0.5 * (z - 0.5))))
    loss = found(z, desirable_weight=2.0, undesirable_weight=0.75).loss
    assert loss.item() == pytest.approx(wanted)


def test_the_clamp_comes_after_the_mean_over_the_step() -> None:
    assert found(-3.0).loss.item() == pytest.approx(found(0.0).loss.item())
    assert found(-3.0).sums["kl"].item() == 0
    assert found(0.25).sums["kl"].item() == pytest.approx(3 * 0.25)      # a sum over branches, whose mean is shown


def test_step_stats_are_the_log_ratio_of_the_probes() -> None:
    batch = batch_of([2, 1, 1], reference_logprobs=REFERENCE)
    stats = Objective().step_stats(outputs_of(batch, LOGPROBS), batch)
    assert numbers(stats.sums) == pytest.approx({"kl": sum(RATIOS)})
    assert Objective().denominator == "branch"


def test_metrics() -> None:
    sums = numbers(found(0.25).sums)
    assert sums["reward"] == pytest.approx(0.5 * sum(RATIOS))
    assert sums["accuracy"] == 2        # 1.5 > z is desirable, -1 is not, 0.5 > z should not be


@pytest.mark.parametrize("settings", [{"beta": 0}, {"desirable_weight": -1},
                                      {"desirable_weight": 0, "undesirable_weight": 0}])
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Objective(**settings)
