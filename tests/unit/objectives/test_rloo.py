"""REINFORCE leave-one-out, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from objective_batches import batch_of, numbers, outputs_of
from tuneloop.objectives.rloo import Objective

LENGTHS, GROUPS = [2, 1, 1, 1], [0, 0, 0, 1]
REWARDS = [1.0, 0.0, 5.0, 3.0]
OLD, NEW = [-1.0, -1.0, -2.0, -3.0, -1.0], [-0.5, -1.1, -1.5, -3.5, -1.0]
REFERENCE = [-1.0, -2.0, -2.5, -2.0, -1.0]
RATIOS = [math.exp(0.4), math.exp(0.5), math.exp(-0.5), 1.0]


def found(new: list[float] = NEW, **settings: Any) -> Any:
    batch = batch_of(LENGTHS, GROUPS, rewards=REWARDS, old_logprobs=OLD, reference_logprobs=REFERENCE)
    out = outputs_of(batch, new)
    result = Objective(**settings).loss(out, batch)
    result.loss.backward()
    return result, out.logprobs.grad


def losses(advantages: list[float]) -> list[float]:
    return [-min(r * a, min(max(r, 0.8), 1.2) * a) for r, a in zip(RATIOS, advantages, strict=True)]


def test_loss() -> None:
    """The others' means are 2.5, 3 and 0.5; the only completion of the second prompt teaches nothing."""
    result, _ = found(beta=0.0)
    assert result.loss.item() == pytest.approx(sum(losses([-1.5, -3.0, 4.5, 0.0])))
    assert numbers(result.sums) == pytest.approx({"reward": 9.0, "clip_fraction": 0.0})


def test_the_divergence_of_the_sequence_is_part_of_the_reward() -> None:
    result, _ = found(beta=0.5)
    kl = [-2.0 + 3.0, -2.0 + 2.5, -3.0 + 2.0, 0.0]
    a, b, c = (r - 0.5 * k for r, k in zip(REWARDS[:3], kl[:3], strict=True))
    assert result.loss.item() == pytest.approx(sum(losses([a - (b + c) / 2, b - (a + c) / 2, c - (a + b) / 2, 0.0])))
    assert result.sums["kl"].item() == pytest.approx(sum(kl))


def test_on_the_policy_itself_the_gradient_is_that_of_reinforce() -> None:
    _, gradient = found(OLD, beta=0.0)
    assert gradient.tolist() == pytest.approx([1.5, 1.5, 3.0, -4.5, 0.0])


@pytest.mark.parametrize("settings", [{"epsilon": 0.0}, {"beta": -1.0}])
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Objective(**settings)
