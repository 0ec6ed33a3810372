"""Batches for tests of objectives: from plain numbers, and whole optimizer steps of groups on a real tiny model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import exact
from tuneloop.compute.cut import cut_step
from tuneloop.compute.model import ForestModel, to_batch
from tuneloop.compute.packing import build_forest
from tuneloop.compute.passes import passes
from tuneloop.objectives.base import REDUCERS, Objective
from tuneloop.types import Batch, Conversation, Group, LossOutput, Outputs, Piece, Preference, Rated, Rendered, Rollout

WIDTH = 5       # of select_ids


def batch_of(lengths: Sequence[int], groups: Sequence[int] | None = None, weights: Sequence[float] | None = None,
             stats: Mapping[str, float] | None = None, **named: Any) -> Batch:
    """Branches with so many supervised tokens each; `weights` and the named columns are flat, (M, ...) or (B,)."""
    rows = [Rendered(np.arange(n + 1) + 20 * i, np.array([0] + [1] * n, np.float32)) for i, n in enumerate(lengths)]
    batch = to_batch(build_forest(rows, groups=groups))
    columns = {name: torch.tensor(np.asarray(column, np.float64)) for name, column in named.items()}
    if weights is not None:
        batch = replace(batch, weights=torch.tensor(weights, dtype=torch.float64))
    return replace(batch, named=columns, stats=stats or {})


def outputs_of(batch: Batch, logprobs: Sequence[float] | None = None, **reduced: Any) -> Outputs:
    """What a model is supposed to have returned for `batch`, as float64 leaves that take gradients."""
    def leaf(values: Any) -> Tensor:
        return torch.tensor(np.asarray(values, np.float64), requires_grad=True)

    zeros = np.zeros(len(batch.targets))
    return Outputs(leaf(zeros if logprobs is None else logprobs), batch.branch_of, batch.branches,
                   **{name: leaf(values) for name, values in reduced.items()})


def numbers(sums: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in sums.items()}


# Whole steps: groups of every kind of sample, with all the columns that any objective asks for.

def groups_of(kind: type, model: Any, seed: int = 0, count: int = 6) -> list[Group]:
    """Groups of branches that share long prompts, within a group and between groups; weights differ between tokens.

    Old and reference log-probs are near those of `model`, so that ratios are clipped here and there, not everywhere.
    """
    draw = np.random.default_rng(seed)
    system, unlike = draw.integers(3, 300, 24), draw.integers(3, 300, 9)
    groups: list[Group] = []
    for g in range(count):
        prompt = np.concatenate([unlike if g == count - 1 else system, draw.integers(3, 300, 18 if g % 2 else 3)])
        sizes = {Conversation: 1, Preference: 2, Rated: 1, Rollout: 2 + g % 3}[kind]
        branches = tuple(_row(draw, prompt, model) for _ in range(sizes))
        probes = (_row(draw, prompt, model),) if kind is Rated else ()
        groups.append(Group(branches, probes))
    return groups


def _row(draw: np.random.Generator, prompt: Any, model: Any) -> Rendered:
    answer = draw.integers(3, 300, draw.integers(2, 11))
    weights = np.concatenate([np.zeros(len(prompt)), draw.choice([0.5, 1.0, 2.0], len(answer))]).astype(np.float32)
    row = Rendered(np.concatenate([prompt, answer]), weights)
    with torch.no_grad():
        logprobs = exact.plain_logprobs(model, [row])[0].numpy()
    rest = draw.normal(size=(len(answer), 300))
    teacher = rest - np.log(np.exp(rest).sum(-1, keepdims=True))
    chosen = np.stack([draw.choice(300, WIDTH, replace=False) for _ in answer])
    return replace(row, named={
        "reference_logprobs": logprobs + draw.normal(size=len(answer)) * 0.5,
        "old_logprobs": logprobs + draw.normal(size=len(answer)) * 0.3,
        "old_values": draw.normal(size=len(answer)),
        "select_ids": chosen, "teacher_logprobs": np.take_along_axis(teacher, chosen, -1),
        "desirable": float(draw.integers(2)), "margin": float(draw.random()), "rewards": float(draw.normal())})


@dataclass(frozen=True)
class Step:
    """What an optimizer step gave: the mean loss, the means of the named sums, and the gradients."""

    loss: float
    sums: dict[str, float]
    gradients: exact.Gradients
    pieces: list[Piece]


def take_step(wrapper: ForestModel, objective: Objective, groups: Sequence[Group], *, budget: int = 10**6,
              share: bool = True, trunks: bool = True, stats: Mapping[str, float] | None = None) -> Step:
    """A step of `objective` as the training loop takes it, in pieces of `budget` tokens, without an optimizer."""
    options: dict[str, Any] = {"share": share, "trunks": trunks, "keep_last": "scores" in objective.needs}
    pieces = _cut([g.branches for g in groups], budget, options)
    if stats is None:
        stats = probe_stats(wrapper, objective, groups, budget, options)
    wrapper.zero_grad()
    sums: dict[str, float] = {}
    totals = _totals(pieces)
    for _, batch, out in passes(wrapper, pieces, "cpu", objective.needs & REDUCERS):
        found = objective.loss(out, replace(batch, stats=stats))
        (found.loss / totals[objective.denominator]).backward()     # type: ignore[no-untyped-call]
        _add(sums, found, objective, totals)
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in wrapper.named_parameters()}
    wrapper.zero_grad()
    return Step(sums.pop("loss"), sums, gradients, pieces)


@torch.no_grad()
def probe_stats(wrapper: ForestModel, objective: Objective, groups: Sequence[Group], budget: int = 10**6,
                options: Mapping[str, Any] | None = None) -> dict[str, float]:
    """What `step_stats` says of the probes of the step."""
    sums: dict[str, float] = {}
    if not any(g.probes for g in groups):
        return sums
    pieces = _cut([g.probes for g in groups], budget, options or {})
    for _, batch, out in passes(wrapper, pieces, "cpu", objective.needs & REDUCERS):
        found = objective.step_stats(out, batch)
        assert found is not None
        _add(sums, found, objective, _totals(pieces))
    return sums


def _cut(groups: Sequence[tuple[Rendered, ...]], budget: int, options: Mapping[str, Any]) -> list[Piece]:
    return cut_step([r for g in groups for r in g], budget, groups=[i for i, g in enumerate(groups) for _ in g],
                    **options)


def _totals(pieces: Sequence[Piece]) -> dict[str, float]:
    forests = [p.forest for p in pieces if p.samples]
    return {"weight": sum(float(f.weights.sum()) for f in forests), "branch": sum(f.branches for f in forests),
            "group": sum(len(set(f.group_of.tolist())) for f in forests)}


def _add(sums: dict[str, float], found: LossOutput, objective: Objective, totals: Mapping[str, float]) -> None:
    for name, value in {"loss": found.loss, **found.sums}.items():
        sums[name] = sums.get(name, 0.0) + float(value.detach()) / totals[found.per.get(name, objective.denominator)]
