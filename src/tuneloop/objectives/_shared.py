"""What several losses share: statistics of groups, and what is said of a policy's ratio.

(B,) are numbers of branches, (M,) of their tokens. A group is never split, so its statistics are the same however a
step is cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuneloop.types import Batch, Outputs

if TYPE_CHECKING:
    from torch import Tensor


def rewards(out: Outputs, batch: Batch) -> Tensor:
    """The completions' rewards, (B,), in the precision of the log-probs."""
    return batch.named["rewards"].to(out.logprobs.dtype)


def group_sum(values: Tensor, group_of: Tensor) -> Tensor:
    """The sum over the group of each entry, for every entry; those of one group are neighbours. Same shape."""
    index = (group_of.diff(prepend=group_of[:1]) != 0).cumsum(0)        # their numbers, counted from 0 without gaps
    return values.new_zeros(len(values)).index_add(0, index, values)[index]


def group_size(values: Tensor, group_of: Tensor) -> Tensor:
    """How many entries the group of each entry has. Same shape and precision as `values`."""
    return group_sum(values.new_ones(len(values)), group_of)


def check_policy(epsilon: float, beta: float) -> None:
    """What every policy loss asks of its clip and of the weight of its divergence."""
    if not 0 < epsilon < 1:
        raise ValueError("epsilon must be greater than 0 and less than 1")
    if beta < 0:
        raise ValueError("beta must be at least 0")


def policy_needs(beta: float) -> frozenset[str]:
    """Columns of every policy loss: who sampled, and with a divergence the reference model."""
    return frozenset({"old_logprobs"} | ({"reference_logprobs"} if beta else set()))


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """1 where the clip to [1 - low, 1 + high] takes the gradient away, 0 elsewhere. Shape of `ratio`."""
    return (((ratio < 1 - low) & (advantage < 0)) | ((ratio > 1 + high) & (advantage > 0))).to(ratio.dtype)


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) from the policy's samples: unbiased and never negative. Shape of both.

    exp(d) - d - 1 with d = log ref - log pi; Schulman 2020, "Approximating KL divergence".
    """
    d = reference - logprobs
    return d.exp() - d - 1
