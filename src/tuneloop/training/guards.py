"""Signs that reinforcement learning goes wrong, or is at its end: each is a sentence that says what was seen.

All look at the rounds and looks so far, so that a resumed training sees what the first one saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROUNDS = 5              # in a row, before a sign is believed
ALIKE = 0.95            # share of prompts whose answers all have one reward
COLLAPSED = 0.05        # of the entropy that training began with
SURE = 2.0              # standard errors

Rounds = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Look:
    """What a look at held-out prompts found, (n,) each: the reward, and of a judge that training does not see."""

    step: int
    rewards: Sequence[float]
    judged: Sequence[float] | None
    new_tokens: float               # mean per answer
    training_reward: float          # mean of the rounds since the look before


def exploded(rounds: Rounds, max_kl: float) -> str:
    """The policy has left the reference: the divergence of two rounds in a row is above the limit."""
    found = [entry["kl"] for entry in rounds[-2:] if entry.get("kl") is not None]
    if len(found) < 2 or min(found) <= max_kl:
        return ""
    return (f"the divergence from the reference is {found[-1]:.2f} nats per token, above rollouts.max_kl of "
            f"{max_kl:g}: the policy no longer speaks as the base does. Raise objective.beta, or lower "
            "training.learning_rate")


def settled(rounds: Rounds) -> str:
    """All answers to a prompt have the same reward: there is nothing left to learn from."""
    last = rounds[-ROUNDS:]
    if len(last) < ROUNDS or min(entry["alike"] for entry in last) < ALIKE:
        return ""
    reward, entropy, first = (float(np.mean([entry[name] for entry in some])) for name, some in (
        ("reward_mean", last), ("entropy", last), ("entropy", rounds[:ROUNDS])))
    told = f"for {ROUNDS} rounds nearly all answers to a prompt had the same reward ({reward:.3f} in the mean)"
    if entropy < COLLAPSED * first:
        return (f"{told}, and the entropy fell from {first:.3f} to {entropy:.3f} nats per token: the policy says one "
                "thing only. If the reward is not what you want, raise objective.beta, or lower training.learning_rate")
    return f"{told}: nothing is left to learn from these prompts"


def hacked(looks: Sequence[Look]) -> str:
    """The trained reward rises while what it stands for falls: two looks in a row, beyond chance."""
    if len(looks) < 3:
        return ""
    judged = all(look.judged is not None for look in looks)

    def values(look: Look) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.asarray(look.judged if judged else look.rewards, np.float64)

    best = max(looks[:-2], key=lambda look: float(values(look).mean()))
    for look in looks[-2:]:
        lost = values(best) - values(look)
        error = float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else np.inf
        if not (lost.mean() > SURE * error and lost.mean() > 0 and look.training_reward > best.training_reward):
            return ""
    last, what = looks[-1], "a judge that training does not see" if judged else "held-out prompts"
    return (f"the reward in training rose from {best.training_reward:.3f} to {last.training_reward:.3f}, while by "
            f"{what} answers fell from {values(best).mean():.3f} (step {best.step}) to {values(last).mean():.3f}: the "
            "policy has found what the reward misses. Mend the reward, or raise objective.beta; the best look is kept")


def grew(looks: Sequence[Look]) -> str:
    """A warning, no reason to stop: answers are twice as long as at the first look, and better rewarded."""
    if len(looks) < 2 or looks[-1].new_tokens < 2 * looks[0].new_tokens:
        return ""
    if looks[-1].training_reward <= looks[0].training_reward:
        return ""
    return (f"answers grew from {looks[0].new_tokens:.0f} to {looks[-1].new_tokens:.0f} tokens while the reward rose: "
            "look at some of them, since a reward may like length itself")
