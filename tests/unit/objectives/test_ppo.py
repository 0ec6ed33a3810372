"""Proximal policy optimisation, by hand."""

from __future__ import annotations

import math
from statistics import fmean, pstdev
from typing import Any

import pytest

from objective_batches import batch_of, numbers, outputs_of
from tuneloop.objectives.ppo import Objective

# A completion of three tokens and one of a single token, for one prompt; one of two tokens for another.
LENGTHS, GROUPS = [3, 1, 2], [0, 0, 1]
REWARDS = [2.0, -1.0, 0.5]
OLD, NEW = [-1.0, -2.0, -1.0, -0.5, -1.0, -1.5], [-0.9, -2.6, -0.8, -0.1, -1.4, -1.5]
REFERENCE = [-1.5, -2.0, -0.5, -0.5, -1.0, -2.0]
OLD_VALUES, VALUES = [0.5, 1.0, -0.5, 0.2, 0.0, 0.3], [0.6, 1.5, -0.4, -0.5, 0.0, 0.9]
ENTROPY = [1.0, 2.0, 3.0, 1.0, 1.0, 1.0]
GAMMA, LAM, BETA = 0.9, 0.8, 0.1


def advantages() -> list[float]:
    """The recursion from the end of each completion, as the papers write it."""
    found: list[float] = []
    for start, end, reward in ((0, 3, 2.0), (3, 4, -1.0), (4, 6, 0.5)):
        rows, following, after = [], 0.0, 0.0
        for t in reversed(range(start, end)):
            r = -BETA * (OLD[t] - REFERENCE[t]) + (reward if t == end - 1 else 0.0)
            after = (r + GAMMA * following - OLD_VALUES[t]) + GAMMA * LAM * after
            following = OLD_VALUES[t]
            rows.append(after)
        found += rows[::-1]
    return found


def policy_losses(advantage: list[float]) -> list[float]:
    ratios = [math.exp(n - o) for n, o in zip(NEW, OLD, strict=True)]
    return [-min(r * a, min(max(r, 0.8), 1.2) * a) for r, a in zip(ratios, advantage, strict=True)]


def value_losses(clip: float) -> list[float]:
    losses = []
    for new, old, advantage in zip(VALUES, OLD_VALUES, advantages(), strict=True):
        target, near = advantage + old, old + min(max(new - old, -clip), clip)
        losses.append(max((new - target) ** 2, (near - target) ** 2) / 2)
    return losses


def found(**settings: Any) -> Any:
    batch = batch_of(LENGTHS, GROUPS, rewards=REWARDS, old_logprobs=OLD, reference_logprobs=REFERENCE,
                     old_values=OLD_VALUES)
    objective = Objective(**({"gamma": GAMMA, "lam": LAM, "beta": BETA, "value_coefficient": 0.0} | settings))
    reduced = {"entropy": ENTROPY} if "entropy" in objective.needs else {}
    out = outputs_of(batch, NEW, values=VALUES, **reduced)
    return objective.loss(out, batch), out


def test_policy_loss() -> None:
    assert found()[0].loss.item() == pytest.approx(sum(policy_losses(advantages())))


def test_value_loss() -> None:
    both = found(value_coefficient=0.5)[0].loss.item() - found()[0].loss.item()
    assert both == pytest.approx(0.5 * sum(value_losses(0.2)))
    free = found(value_coefficient=0.5, value_epsilon=None)[0].loss.item() - found()[0].loss.item()
    assert free == pytest.approx(0.5 * sum(value_losses(math.inf)))
    assert both > free


def test_entropy_bonus() -> None:
    result, _ = found(entropy_coefficient=0.1)
    assert result.loss.item() == pytest.approx(found()[0].loss.item() - 0.1 * sum(ENTROPY))
    assert result.sums["entropy"].item() == sum(ENTROPY)


def test_whitening_is_over_the_tokens_of_a_group() -> None:
    plain, white = advantages(), []
    for group in (plain[:4], plain[4:]):
        white += [(a - fmean(group)) / pstdev(group) for a in group]
    assert found(whiten=True)[0].loss.item() == pytest.approx(sum(policy_losses(white)), rel=1e-6)


def test_without_discount_an_advantage_is_the_reward_still_to_come() -> None:
    """gamma = lam = 1 telescopes: the rewards from t on, less V(t)."""
    result, out = found(gamma=1.0, lam=1.0, beta=0.0, epsilon=0.99)
    result.loss.backward()
    rewards = [2.0, 2.0, 2.0, -1.0, 0.5, 0.5]
    wanted = [-math.exp(n - o) * (r - v) for n, o, r, v in zip(NEW, OLD, rewards, OLD_VALUES, strict=True)]
    assert out.logprobs.grad.tolist() == pytest.approx(wanted)


def test_no_gradient_flows_through_the_advantages() -> None:
    result, out = found()
    result.loss.backward()
    assert out.values.grad is not None
    assert out.values.grad.tolist() == [0.0] * 6


def test_metrics() -> None:
    result, _ = found(value_coefficient=0.1)
    steps = [n - o for n, o in zip(NEW, OLD, strict=True)]
    ratios, signs = [math.exp(d) for d in steps], advantages()
    cut = sum((r > 1.2 and a > 0) or (r < 0.8 and a < 0) for r, a in zip(ratios, signs, strict=True))
    assert 0 < cut < 6
    shown = {name: value for name, value in result.sums.items() if not name.startswith(("returns", "left"))}
    assert numbers(shown) == pytest.approx({
        "policy_loss": sum(policy_losses(signs)), "value_loss": sum(value_losses(0.2)), "clip_fraction": cut,
        "approx_kl": sum(math.exp(d) - d - 1 for d in steps), "reward": sum(REWARDS),
        "kl": sum(o - r for o, r in zip(OLD, REFERENCE, strict=True))})
    assert result.per == {"reward": "branch"}


def test_needs() -> None:
    assert Objective().needs == {"values", "old_logprobs", "old_values", "reference_logprobs"}
    assert Objective(beta=0, entropy_coefficient=0.1).needs == {"values", "old_logprobs", "old_values", "entropy"}


@pytest.mark.parametrize("settings", [
    {"epsilon": 0.0}, {"value_epsilon": 0.0}, {"gamma": 1.1}, {"lam": -0.1}, {"beta": -1.0},
    {"value_coefficient": -1.0}, {"entropy_coefficient": -1.0}])
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Objective(**settings)


def test_explained_variance_is_what_the_values_leave_of_the_returns() -> None:
    """1 - var(G - V) / var(G) over all tokens, with G = A + V_old; by the standard library's variances."""
    told, _ = found()
    tokens = sum(LENGTHS)
    means = Objective().told({name: float(value) / tokens for name, value in told.sums.items()})
    returns = [a + old for a, old in zip(advantages(), OLD_VALUES, strict=True)]
    left = [g - v for g, v in zip(returns, VALUES, strict=True)]
    assert means["explained_variance"] == pytest.approx(1 - pstdev(left) ** 2 / pstdev(returns) ** 2)
    assert "returns" not in means
