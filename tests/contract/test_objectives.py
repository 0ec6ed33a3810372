"""Every objective: its gradient is that of its loss, and the result does not depend on how a step is cut or shared.

The matrix is every objective of the catalog, and the settings below that take another way through its code. All in
float64, held to 1e-9 relative; finite differences to 1e-6.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import exact
from objective_batches import WIDTH, Step, groups_of, probe_stats, take_step
from tuneloop.compute import cut
from tuneloop.compute.model import ForestModel
from tuneloop.objectives.base import COLUMNS, REDUCERS, Objective
from tuneloop.recipe import OBJECTIVES
from tuneloop.types import Conversation, Group, Preference, Rated, Rollout

SETTINGS: dict[str, list[dict[str, Any]]] = {       # the first of each is the least that the objective can do with
    "sft": [{}, {"label_smoothing": 0.1}, {"kl": 0.5}],
    "dpo": [{}, {"form": "ipo"}, {"form": "hinge"}, {"label_smoothing": 0.1}, {"reference_free": True}],
    "kto": [{}, {"desirable_weight": 2.0, "undesirable_weight": 0.5}],
    "reward": [{}, {"center": 0.01}],
    "distill": [{"teacher": "other", "top_k": WIDTH}],
    "grpo": [{}, {"unbiased_kl": True}, {"aggregation": "dapo", "epsilon_high": 0.28},
             {"scale_rewards": "none", "beta": 0.0}, {"aggregation": "dr_grpo", "max_completion_tokens": 12}],
    "rloo": [{}, {"beta": 0.0}],
    "ppo": [{}, {"whiten": True, "entropy_coefficient": 0.01, "gamma": 0.9}, {"beta": 0.0, "value_epsilon": None}],
}


def made(name: str, settings: dict[str, Any]) -> Objective:
    objective: Objective = OBJECTIVES.get(name)(**settings)
    return objective


CASES = [pytest.param(made(name, settings), id="-".join([name, *map(str, settings.values())]))
         for name in OBJECTIVES.names for settings in SETTINGS.get(name, [{}])]


@pytest.fixture
def wrapper(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> ForestModel:
    """A tiny llama in float64 whose every parameter trains, with a scalar head."""
    monkeypatch.setattr(cut, "MIN_TRUNK_TOKENS", 8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scalar = nn.Linear(32, 1, dtype=torch.float64)
    return ForestModel(exact.double(tiny_llama, monkeypatch).requires_grad_(True), scalar=scalar)


def groups_for(objective: Objective, wrapper: ForestModel) -> list[Group]:
    return groups_of(objective.batch_kind, wrapper.model)


def assert_same(ours: Step, wanted: Step) -> None:
    assert ours.loss == pytest.approx(wanted.loss, rel=1e-9)
    assert ours.sums == pytest.approx(wanted.sums, rel=1e-9)
    assert exact.difference(ours.gradients, wanted.gradients) <= 1e-9


@pytest.mark.parametrize("objective", CASES)
def test_it_declares_what_the_loop_knows(objective: Objective) -> None:
    assert objective.needs <= REDUCERS | COLUMNS
    assert objective.denominator in ("weight", "branch", "group")
    assert objective.batch_kind in (Conversation, Preference, Rated, Rollout)
    assert hash(objective) == hash(type(objective)(**vars(objective)))      # frozen: nothing is kept between calls


@pytest.mark.parametrize("objective", CASES)
def test_the_gradient_is_that_of_the_loss(objective: Objective, wrapper: ForestModel) -> None:
    groups = groups_for(objective, wrapper)
    stats = probe_stats(wrapper, objective, groups)     # fixed: no gradient flows through them
    step = take_step(wrapper, objective, groups, stats=stats)
    assert math.isfinite(step.loss)
    assert all(math.isfinite(value) for value in step.sums.values())
    draw = torch.Generator().manual_seed(1)
    touched = [n for n, g in step.gradients.items() if g.abs().max() > 0]
    assert len(touched) > 10
    chosen = [n for n in touched if "layers.0.self_attn.q_proj" in n or "embed" in n or "norm" in n or "scalar" in n]
    for name in chosen[:2] + chosen[-2:]:
        parameter = wrapper.get_parameter(name)
        direction = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * 1e-5)
                losses.append(take_loss(wrapper, objective, groups, stats))
                parameter.sub_(direction, alpha=sign * 1e-5)
        slope = (losses[0] - losses[1]) / 2e-5
        assert slope == pytest.approx(float((step.gradients[name] * direction).sum()), rel=1e-5, abs=1e-7), name


def take_loss(wrapper: ForestModel, objective: Objective, groups: list[Group], stats: dict[str, float]) -> float:
    with torch.enable_grad():
        return take_step(wrapper, objective, groups, stats=stats).loss


@pytest.mark.parametrize("objective", CASES)
def test_the_cut_and_the_sharing_change_nothing(objective: Objective, wrapper: ForestModel) -> None:
    groups = groups_for(objective, wrapper)
    whole = take_step(wrapper, objective, groups)
    ways: list[dict[str, Any]] = [{"share": False}, {"budget": 1, "share": False}, {"budget": 1, "trunks": False},
                                  {"budget": 60, "trunks": False}, {"budget": 1}, {"budget": 60}]
    steps = [take_step(wrapper, objective, groups, **way) for way in ways]
    for step in steps:
        assert_same(step, whole)
    assert len(whole.pieces) == 1
    assert len(steps[1].pieces) == len(steps[2].pieces) == len(groups)      # a group is never split
    assert any(not piece.samples for piece in steps[-1].pieces), "no trunk: the test misses its point"
    assert len(steps[3].pieces) > 1


@pytest.mark.parametrize("objective", CASES)
def test_the_order_of_groups_changes_nothing(objective: Objective, wrapper: ForestModel) -> None:
    groups = groups_for(objective, wrapper)
    assert_same(take_step(wrapper, objective, groups[::-1]), take_step(wrapper, objective, groups))
