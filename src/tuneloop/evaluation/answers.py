"""What a model answers on held-out rows: labels by constrained choice, open answers by generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tuneloop.compute.model import ForestModel
from tuneloop.inference.score import rewards, score
from tuneloop.types import Answers, Group, Preference, Rendered

Progress = Callable[[int], None]


def with_likelihood(answers: Answers, model: ForestModel, rows: Sequence[Rendered], *, token_budget: int,
                    share: bool) -> Answers:
    """The same with how likely the references were, just as training sees them."""
    last = [_last_answer_alone(row) for row in rows]
    scored = score(model, last, token_budget=token_budget, share=share)
    return replace(answers, nll=(-scored.total).tolist(), tokens=[row.supervised for row in last])


def choose_preferred(name: str, model: ForestModel, groups: Sequence[Group], pairs: Sequence[Preference], *,
                     by_reward: bool, token_budget: int, share: bool, progress: Progress | None = None) -> Answers:
    """The answer of each pair that the model prefers: the one that its scalar head rewards more, where it has one for
    that (`by_reward`); else the one that is likelier per token, so that length does not decide. Ties count as wrong.
    """
    samples = [branch for group in groups for branch in group.branches]
    of = [i for i, group in enumerate(groups) for _ in group.branches]
    options: dict[str, Any] = {"token_budget": token_budget, "share": share, "groups": of,
                               "progress": None if progress is None else lambda done: progress(done // 2)}
    if by_reward:
        better, worse = rewards(model, samples, **options).reshape(-1, 2).T
        return Answers(name, _preferred(pairs, better > worse))
    tokens = np.array([sample.supervised for sample in samples])
    total = score(model, samples, **options).total
    better, worse = (total / tokens).reshape(-1, 2).T
    return Answers(name, _preferred(pairs, better > worse), nll=(-total[::2]).tolist(), tokens=tokens[::2].tolist())


def _preferred(pairs: Sequence[Preference], right: Any) -> list[str]:
    return [pair.chosen if ok else pair.rejected for pair, ok in zip(pairs, right, strict=True)]


def _last_answer_alone(row: Rendered) -> Rendered:
    weights = np.zeros_like(row.weights)
    weights[len(row) - len(row.last_answer):] = 1
    return Rendered(row.ids, weights, row.origin)
