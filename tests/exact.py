"""Oracles for what a model computes: the plain transformers forward, row by row, in float64 where asked.

RMS norms and losses of transformers round to float32 whatever the dtype of the model, which would hide the difference
between two ways to sum a gradient behind 1e-8. `double` makes the norms keep float64; the losses below do, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuneloop.compute.cut import cut_step
from tuneloop.compute.model import ForestModel
from tuneloop.compute.passes import passes
from tuneloop.models.load import load_model
from tuneloop.objectives.sft import Objective
from tuneloop.types import Rendered

Gradients = dict[str, Tensor]


def double(folder: Path, monkeypatch: Any) -> nn.Module:
    """The base in `folder` in float64, norms included, until the test ends."""
    model = load_model(folder, dtype=torch.float64)
    norms = {type(m) for m in model.modules() if type(m).__name__.endswith("RMSNorm")}
    for kind in norms:
        monkeypatch.setattr(kind, "forward", _gemma_norm if kind.__name__.startswith("Gemma") else _norm)
    return model


def _norm(self: Any, x: Tensor) -> Tensor:
    return self.weight * _normalised(x, self.variance_epsilon)


def _gemma_norm(self: Any, x: Tensor) -> Tensor:
    return (1 + self.weight) * _normalised(x, self.eps)


def _normalised(x: Tensor, epsilon: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)


def sharing_rows(vocabulary: int = 300, seed: int = 0, longest: int = 60) -> list[Rendered]:
    """Rows with a long common beginning, forks within the answers, an equal pair, and one that shares nothing."""
    draw = np.random.default_rng(seed)
    prompt = draw.integers(3, vocabulary, longest - 24)
    rows = [_row(prompt, draw.integers(3, vocabulary, n)) for n in (7, 3, 12)]
    asked = np.concatenate([prompt, draw.integers(3, vocabulary, 18)])
    rows += [_row(asked, draw.integers(3, vocabulary, n)) for n in (6, 2)]
    rows.append(rows[1])
    rows.append(_row(draw.integers(3, vocabulary, 10), draw.integers(3, vocabulary, 5)))
    turns = np.concatenate([np.zeros(20), np.ones(6), np.zeros(9), np.ones(5)]).astype(np.float32)     # two answers
    rows.append(Rendered(np.concatenate([prompt[:20], draw.integers(3, vocabulary, 20)]), turns))
    return rows


def _row(prompt: Any, answer: Any) -> Rendered:
    weights = np.concatenate([np.zeros(len(prompt)), np.ones(len(answer))]).astype(np.float32)
    return Rendered(np.concatenate([prompt, answer]), weights)


def plain_logprobs(model: nn.Module, rows: Sequence[Rendered]) -> list[Tensor]:
    """Log-probs of the supervised tokens of each row by the model's own forward on that row alone."""
    return [_plain(model, row) for row in rows]


def _plain(model: Any, row: Rendered) -> Tensor:
    ids = torch.from_numpy(row.ids)
    # prompt tuning gives logits of its virtual tokens first
    logits = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0, -len(ids):]
    at = torch.from_numpy(np.flatnonzero(row.weights[1:]))      # position i predicts i + 1
    chosen: Tensor = logits.log_softmax(-1)[at, ids[at + 1]]
    return chosen


def plain_loss(model: nn.Module, rows: Sequence[Rendered]) -> Tensor:
    """Mean negative log-likelihood over all supervised tokens, every row alone; all weights are 1."""
    return -torch.cat(plain_logprobs(model, rows)).mean()


def labelled_loss(model: Any, rows: Sequence[Rendered]) -> Tensor:
    """The same as transformers computes it from `labels`; it rounds to float32."""
    total = sum(r.supervised for r in rows)
    losses = []
    for row in rows:
        ids, weights = torch.from_numpy(row.ids).unsqueeze(0), torch.from_numpy(row.weights).unsqueeze(0)
        labels = ids.masked_fill(weights == 0, -100)
        losses.append(model(input_ids=ids, labels=labels, use_cache=False).loss * (row.supervised / total))
    return torch.stack(losses).sum()


def packed(wrapper: ForestModel, rows: Sequence[Rendered], **cut: Any) -> tuple[float, Gradients]:
    """The same by ours, with its gradients."""
    wrapper.zero_grad()
    loss = accumulate(wrapper, rows, **cut)
    trains = {n: p for n, p in wrapper.model.named_parameters() if p.requires_grad}
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in trains.items()}
    wrapper.zero_grad()
    return loss, found


def accumulate(wrapper: ForestModel, rows: Sequence[Rendered], *, share: bool = True, budget: int = 10**6,
               trunks: bool = True) -> float:
    """The loss by ours over pieces cut by `budget`; its gradients are added to the model's."""
    total, loss = sum(float(r.weights.sum()) for r in rows), 0.0
    for _, batch, out in passes(wrapper, cut_step(rows, budget, share=share, trunks=trunks), "cpu"):
        part = Objective().loss(out, batch).loss / total
        part.backward()     # type: ignore[no-untyped-call]    # torch types no backward
        loss += part.item()
    return loss


def gradients(model: nn.Module, loss: Tensor) -> Gradients:
    """Gradient of every parameter that trains; 0 where the loss does not reach it."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}


def difference(ours: Gradients, theirs: Gradients) -> float:
    """The norm of the difference over the norm, over all parameters."""
    assert ours.keys() == theirs.keys()
    assert ours
    apart = sum(float((ours[n] - theirs[n]).double().pow(2).sum()) for n in ours)
    whole = sum(float(theirs[n].double().pow(2).sum()) for n in theirs)
    assert whole > 0
    return (apart / whole) ** 0.5
