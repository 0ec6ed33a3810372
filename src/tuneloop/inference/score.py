"""Scoring given answers: how likely each is after its prompt, or what a reward head says. Shared prompts once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tuneloop.compute.cut import cut_step
from tuneloop.compute.model import ForestModel
from tuneloop.compute.passes import passes
from tuneloop.types import Outputs, Piece, Rendered

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
    pieces = cut_step(samples, token_budget, groups=groups, share=share)
    for piece, out in _answered(model, pieces, frozenset(), progress):
        logprobs, branch_of = out.logprobs.cpu().double().numpy(), piece.forest.branch_of
        last = np.flatnonzero(np.diff(branch_of, append=-1))            # the pair that ends each branch
        total[piece.samples] = np.bincount(branch_of, logprobs)
        without_end[piece.samples] = total[piece.samples] - logprobs[last]
    return Score(total, without_end)


@torch.no_grad()
def rewards(model: ForestModel, samples: Sequence[Rendered], *, token_budget: int, share: bool,
            groups: Sequence[int] | None = None, progress: Progress | None = None) -> NDArray[np.float64]:
    """What the scalar head says at the end of every sample, (samples,); `groups` as for `score`."""
    found = np.zeros(len(samples))
    pieces = cut_step(samples, token_budget, groups=groups, share=share, keep_last=True)
    for piece, out in _answered(model, pieces, frozenset({"scores"}), progress):
        assert out.scores is not None
        found[piece.samples] = out.scores.cpu().double().numpy()
    return found


def _answered(model: ForestModel, pieces: Sequence[Piece], needs: frozenset[str],
              progress: Progress | None) -> Iterator[tuple[Piece, Outputs]]:
    """What the model gives for every piece, without dropout."""
    was_training = model.training
    model.eval()
    try:
        for piece, _, out in passes(model, pieces, next(model.parameters()).device, needs):
            yield piece, out
            if progress is not None:
                progress(len(piece.samples))
    finally:
        model.train(was_training)
