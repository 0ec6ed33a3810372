"""Group relative policy optimisation, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from objective_batches import batch_of, numbers, outputs_of
from tuneloop.objectives.grpo import Objective

# One prompt with three completions of two, one and one tokens, and one with a single completion.
LENGTHS, GROUPS = [2, 1, 1, 1], [4, 4, 4, 7]
REWARDS = [1.0, 0.0, 5.0, 3.0]
OLD, NEW = [-1.0, -1.0, -2.0, -3.0, -1.0], [-0.5, -1.1, -1.5, -3.5, -1.0]
REFERENCE = [-1.0, -1.0, -1.0, -3.0, -1.0]
CENTRED = [-1.0, -2.0, 3.0, 0.0]
STD = math.sqrt((1 + 4 + 9) / 2)


def batch() -> Any:
    return batch_of(LENGTHS, GROUPS, rewards=REWARDS, old_logprobs=OLD, reference_logprobs=REFERENCE)


def found(**settings: Any) -> Any:
    return Objective(**({"beta": 0.0} | settings)).loss(outputs_of(batch(), NEW), batch())


def token_losses(advantages: list[float], low: float = 0.2, high: float = 0.2) -> list[float]:
    per_token = [advantages[0], *advantages]
    ratios = [math.exp(n - o) for n, o in zip(NEW, OLD, strict=True)]
    return [-min(r * a, min(max(r, 1 - low), 1 + high) * a) for r, a in zip(ratios, per_token, strict=True)]


def test_loss_of_the_paper() -> None:
    a, b, c, d, e = token_losses([x / (STD + 1e-4) for x in CENTRED])
    assert found().loss.item() == pytest.approx((a + b) / 2 + c + d + e)
    assert e == 0       # nothing to compare the only completion with
    assert Objective().denominator == "branch"


def test_the_divergence_is_schulmans_third_estimate() -> None:
    d = [r - n for r, n in zip(REFERENCE, NEW, strict=True)]
    kl = [math.exp(x) - x - 1 for x in d]
    wanted = 0.5 * ((kl[0] + kl[1]) / 2 + sum(kl[2:]))
    result = found(beta=0.5)
    assert result.loss.item() - found().loss.item() == pytest.approx(wanted)
    assert result.sums["kl"].item() == pytest.approx(sum(kl))
    assert result.per["kl"] == "weight"


def test_dapo_counts_all_tokens_alike_and_clips_higher() -> None:
    losses = token_losses([x / (STD + 1e-4) for x in CENTRED], high=0.8)
    result = found(aggregation="dapo", epsilon_high=0.8)
    assert result.loss.item() == pytest.approx(sum(losses))
    assert Objective(aggregation="dapo").denominator == "weight"


def test_dr_grpo_divides_by_nothing_that_the_completions_have() -> None:
    settings = {"aggregation": "dr_grpo", "scale_rewards": "none", "max_completion_tokens": 8}
    assert found(**settings).loss.item() == pytest.approx(sum(token_losses(CENTRED)) / 8)
    assert Objective(**settings).denominator == "branch"    # type: ignore[arg-type]


def test_metrics() -> None:
    """Ratios e^0.5, e^-0.1, e^0.5, e^-0.5, 1 with advantages -, -, -, +, 0: no gradient is cut off here."""
    result = found()
    assert numbers(result.sums) == pytest.approx({"reward": 9.0, "clip_fraction": 0.0})
    assert result.per == {"reward": "branch", "clip_fraction": "weight"}
    turned = batch_of(LENGTHS, GROUPS, rewards=[-r for r in REWARDS], old_logprobs=OLD)
    assert Objective(beta=0).loss(outputs_of(turned, NEW), turned).sums["clip_fraction"].item() == 3


def test_needs() -> None:
    assert Objective().needs == {"old_logprobs", "reference_logprobs"}
    assert Objective(beta=0).needs == {"old_logprobs"}


@pytest.mark.parametrize("settings", [
    {"epsilon": 0.0}, {"epsilon": 1.0}, {"epsilon_high": 0.0}, {"beta": -1.0}, {"aggregation": "dr_grpo"},
    {"max_completion_tokens": 9}, {"aggregation": "dr_grpo", "max_completion_tokens": 0}])
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Objective(**settings)
