"""The longest batch is tried before the first step, and training goes on bit for bit as without it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import exact
from tiny import tiny_base
from tuneloop.catalog import Catalog
from tuneloop.compute.cut import cut_step
from tuneloop.compute.model import ForestModel
from tuneloop.errors import TrainingFailed
from tuneloop.models.load import load_model
from tuneloop.objectives.sft import Objective
from tuneloop.training import loop, trial
from tuneloop.training.loop import begin, fit
from tuneloop.training.peak import HighWater
from tuneloop.training.step import Settings
from tuneloop.types import Group, Rendered

GROUPS = [Group((row,)) for row in exact.sharing_rows(longest=80)]
BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None


def settings(**changes: Any) -> Settings:
    return Settings(**{  # type: ignore[arg-type]
        "steps": 3, "batch_size": 6, "learning_rate": 0.01, "schedule": "constant", "warmup": 0.0, "weight_decay": 0.1,
        "max_grad_norm": 1.0, "token_budget": 150, "evaluate_every": 2, "checkpoint_every": 1, "patience": 3,
        "share": True, "checkpointing": False, "memory_bytes": 2**40, "seed": 0} | changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("tried") / "base")


def model_of(base: Path, method: dict[str, Any]) -> ForestModel:
    made = Catalog("method", "tuneloop.methods", "Method").get(method["kind"])(**method)
    return ForestModel(made.apply(load_model(base), 0))


def trained(model: ForestModel, folder: Path, **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    fit(model, Objective(), GROUPS, GROUPS[:3], settings(**changes), folder, report=lines.append,
        look=lambda step: None)
    return lines, {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the trials; `tried.append(-1)` before a training leaves its trial out."""
    done: list[int] = []
    real = loop.try_longest

    def counting(trainer: Any, groups: Any) -> None:
        if done != [-1]:
            real(trainer, groups)
        done.append(1)

    monkeypatch.setattr(loop, "try_longest", counting)
    return done


@pytest.mark.parametrize(("method", "optimizer"), [
    ({"kind": "lora", "rank": 4, "dropout": 0.2}, "adamw"), ({"kind": "full"}, "adamw"),
    ({"kind": "prefix", "tokens": 4}, "adamw"),
    pytest.param({"kind": "full"}, "adamw_8bit", marks=pytest.mark.skipif(not BITSANDBYTES, reason="bitsandbytes"))])
def test_training_is_bit_equal_with_and_without_the_trial(method: dict[str, Any], optimizer: str, base: Path,
                                                          tmp_path: Path, tried: list[int]) -> None:
    share = not method.get("dropout")
    told, found = trained(model_of(base, method), tmp_path / "with", optimizer=optimizer, share=share)
    assert tried == [1]
    tried[:] = [-1]
    plain, wanted = trained(model_of(base, method), tmp_path / "without", optimizer=optimizer, share=share)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    same = [[{k: v for k, v in line.items() if k in ("loss", "grad_norm", "best")} for line in lines]
            for lines in (told, plain)]
    assert same[0] == same[1]


def test_nothing_is_left_of_it(base: Path) -> None:
    model = model_of(base, {"kind": "lora", "rank": 4})
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    drawn = torch.get_rng_state()
    with HighWater() as high:
        trainer, _ = begin(model, Objective(), settings(), lambda line: None, high)
        trial.try_longest(trainer, GROUPS)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())
    inner = trainer.optimizer.optimizer
    assert not inner.state
    assert [(g["lr"], g["weight_decay"]) for g in inner.param_groups] == [(0.01, 0.1), (0.01, 0.0)]
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_resumed_run_is_not_tried_again(base: Path, tmp_path: Path, tried: list[int]) -> None:
    for steps in (1, 3):
        trained(model_of(base, {"kind": "lora", "rank": 4}), tmp_path / "run", steps=steps)
    assert tried == [1]


def test_the_piece_that_is_tried_starts_from_its_trunks() -> None:
    random = np.random.default_rng(0)
    system = random.integers(1, 99, 100)
    rows = [Rendered(np.concatenate([system, random.integers(1, 99, 20 + i)]),
                     (np.arange(120 + i) >= 110).astype(np.float32)) for i in range(8)]
    pieces = cut_step(rows, 200)
    largest = max(range(len(pieces)), key=lambda i: pieces[i].computed_tokens)
    assert pieces[largest].parent < 0           # the trunk itself computes most; what starts from it, needs it
    last = len(pieces) - 1
    chain = trial._with_its_trunks(pieces, last)
    assert [piece.parent for piece in chain] == [-1, 0]
    assert chain[0].forest is pieces[pieces[last].parent].forest
    assert chain[1].samples == pieces[last].samples


class Watched(ForestModel):
    """Notes how many tokens are computed at once."""

    seen: list[int]

    def forward(self, batch: Any, *rest: Any) -> Any:
        self.seen.append(batch.forest.unique_tokens)
        return super().forward(batch, *rest)


@pytest.fixture
def watched(base: Path) -> Watched:
    inner = model_of(base, {"kind": "lora", "rank": 4})
    model = Watched(inner.model)
    model.seen = []
    return model


Expects = Callable[[int], int]


def tries(model: Watched, expects: Expects, **changes: Any) -> tuple[list[dict[str, Any]], Any]:
    lines: list[dict[str, Any]] = []
    with HighWater() as high:
        trainer, _ = begin(model, Objective(), settings(expects=expects, **changes), lines.append, high)
        trial.try_longest(trainer, GROUPS)
    return lines, trainer.governor


def test_a_plan_far_below_the_limit_is_tried_at_once(watched: Watched) -> None:
    tries(watched, lambda tokens: 1000 * tokens)
    assert len(watched.seen) == 1


def test_a_risky_plan_is_tried_with_the_shortest_row_first(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """What that row shows is added to the plan; the budget is lowered before anything large is tried."""
    shortest = min(len(group.branches[0]) for group in GROUPS)
    monkeypatch.setattr(trial.psutil, "virtual_memory", lambda: type("Free", (), {"available": 2**50}))
    lines, governor = tries(watched, lambda tokens: (tokens - shortest) * 2**36, token_budget=400, batch_size=8,
                            memory_bytes=(100 - shortest) * 2**36)
    assert watched.seen[0] < shortest
    assert 80 <= governor.token_budget <= 100
    assert {line["step"] for line in lines} == {0}
    assert max(watched.seen) <= governor.token_budget


def test_a_row_that_the_plan_cannot_fit_is_not_tried_at_all(watched: Watched) -> None:
    def expects(tokens: int) -> int:
        return tokens * 2**40

    with pytest.raises(TrainingFailed, match=r"would take about .* by the plan and a shorter one") as caught:
        tries(watched, expects, memory_bytes=2**45, advice=lambda: "set this")
    assert caught.value.fix == "set this"
    assert max(watched.seen) < 80


def test_memory_that_runs_out_in_it_halves_the_budget(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Watched.forward

    def small(self: Watched, batch: Any, *rest: Any) -> Any:
        if batch.forest.unique_tokens > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, batch, *rest)

    monkeypatch.setattr(Watched, "forward", small)
    lines, governor = tries(watched, lambda tokens: tokens, token_budget=400, batch_size=8)
    assert [line["why"] for line in lines] == ["memory ran out"] * 2
    assert governor.token_budget == 100
    assert all(p.grad is None for p in watched.parameters())


def test_groups_of_several_branches_are_tried_whole(base: Path) -> None:
    pairs = [replace(group, branches=group.branches * 2) for group in GROUPS]
    with HighWater() as high:
        trainer, _ = begin(model_of(base, {"kind": "lora", "rank": 4}), Objective(), settings(), print, high)
        trial.try_longest(trainer, pairs)
