"""Scoring given answers: how likely each is after its prompt. Shared prompts are computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tuneloop.compute.model import ForestModel, to_batch
from tuneloop.compute.packing import build_forest, micro_batches
from tuneloop.types import Rendered

Progress = Callable[[int], None]        # called with the number of samples just finished


@dataclass(frozen=True)
class Score:
    """Log-probs of a sample's supervised tokens, in nats: of all of them, and without the token that ends the turn."""

    total: NDArray[np.float64]          # (samples,)
    without_end: NDArray[np.float64]    # (samples,)


@torch.no_grad()
def score(model: ForestModel, samples: Sequence[Rendered], *, token_budget: int, share: bool,
          groups: Sequence[int] | None = None, progress: Progress | None = None) -> Score:
    """Score every sample. `groups` keeps samples together whose prefixes are shared (the choices of one row)."""
    total, without_end = np.zeros(len(samples)), np.zeros(len(samples))
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        for chosen in micro_batches(samples, token_budget, groups=groups, share=share):
            forest = build_forest([samples[i] for i in chosen], share=share)
            logprobs = model(to_batch(forest, device)).logprobs.double().cpu().numpy()
            last = np.flatnonzero(np.diff(forest.branch_of, append=-1))     # the pair that ends each branch
            total[chosen] = np.bincount(forest.branch_of, logprobs)
            without_end[chosen] = total[chosen] - logprobs[last]
            if progress is not None:
                progress(len(chosen))
    finally:
        model.train(was_training)
    return Score(total, without_end)
