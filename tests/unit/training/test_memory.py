"""The token budget under memory pressure: halved where memory runs out, lowered where a limit is crossed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import exact
from tiny import tiny_base
from tuneloop.compute.model import ForestModel
from tuneloop.errors import TrainingFailed
from tuneloop.methods.lora import Method
from tuneloop.objectives.sft import Objective
from tuneloop.training import memory, trial
from tuneloop.training.loop import Settings, fit
from tuneloop.training.memory import FEWEST_TOKENS, Governor, ran_out
from tuneloop.training.peak import HighWater, Peak
from tuneloop.types import Group

GROUPS = [Group((row,)) for row in exact.sharing_rows(longest=80)]
Lines = list[dict[str, Any]]


def settings(**changes: Any) -> Settings:
    return Settings(**{  # type: ignore[arg-type]
        "steps": 3, "batch_size": 8, "learning_rate": 0.01, "schedule": "constant", "warmup": 0.0, "weight_decay": 0.0,
        "max_grad_norm": 1.0, "token_budget": 1000, "evaluate_every": 10, "checkpoint_every": 10, "patience": 3,
        "share": True, "checkpointing": False, "memory_bytes": 2**40, "seed": 0} | changes)


def train(folder: Path, model: ForestModel, **changes: Any) -> tuple[Lines, dict[str, torch.Tensor]]:
    lines: Lines = []
    fit(model, Objective(), GROUPS, [], settings(**changes), folder, report=lines.append, look=lambda step: None)
    return lines, {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


class Small(ForestModel):
    """A device that holds no more than 80 tokens."""

    error: Exception = torch.OutOfMemoryError("CUDA out of memory")

    def forward(self, batch: Any, *rest: Any) -> Any:
        if batch.forest.unique_tokens > 80:
            raise self.error
        return super().forward(batch, *rest)


Lora = Callable[..., ForestModel]


@pytest.fixture
def lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lora:
    """A fresh model in float64, norms included, so that summing in another order shows as 1e-12 and not as 1e-6."""
    folder = tiny_base(tmp_path / "base")
    return lambda kind=ForestModel: kind(Method(rank=4).apply(exact.double(folder, monkeypatch), seed=0))


def test_where_memory_runs_out_the_budget_halves_and_the_result_is_the_same(lora: Lora, tmp_path: Path) -> None:
    plain, wanted = train(tmp_path / "a", lora())
    told, found = train(tmp_path / "b", lora(Small))
    assert [line["token_budget"] for line in told if line["event"] == "memory"] == [500, 250, 125, 62]
    steps = [line for line in told if line["event"] == "step"]
    assert [s["token_budget"] for s in steps] == [62, 62, 62]
    assert all(s["pieces"] > 1 for s in steps)
    for step, reference in zip(steps, [line for line in plain if line["event"] == "step"], strict=True):
        assert abs(step["loss"] - reference["loss"]) <= 1e-9
    assert all((found[name] - wanted[name]).abs().max() <= 1e-9 for name in wanted)


def test_a_row_that_alone_does_not_fit_stops_with_advice(lora: Lora, tmp_path: Path) -> None:
    class Tiny(Small):
        def forward(self, batch: Any, *rest: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TrainingFailed, match=r"with 80 tokens at once: one row, or the answers"):
        train(tmp_path / "run", lora(Tiny))


def test_other_errors_are_not_taken_for_memory(lora: Lora, tmp_path: Path) -> None:
    class Broken(Small):
        error = RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(tmp_path / "run", lora(Broken))


def test_what_running_out_looks_like() -> None:
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert ran_out(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert ran_out(caught.value)
    assert not ran_out(RuntimeError("shapes do not match"))


def test_a_crossed_limit_lowers_the_budget_to_what_fits() -> None:
    lines: Lines = []
    governor = Governor(1000, memory_bytes=2000, report=lines.append)
    governor.learn(1, tokens=500, before_bytes=1000, peak_bytes=1900)
    assert (governor.token_budget, governor.peak_bytes, lines) == (1000, 1900, [])
    governor.learn(2, tokens=1000, before_bytes=1000, peak_bytes=5000)      # 4 bytes a token, 1,000 bytes left
    assert governor.token_budget == 225                                     # nine tenths of 250
    assert "crossed the limit" in lines[0]["why"]
    governor.learn(3, tokens=225, before_bytes=1990, peak_bytes=2100)
    assert governor.token_budget == FEWEST_TOKENS


class Metered(ForestModel):
    """A device on which every token takes 1,000 bytes."""

    most: ClassVar[int] = 0

    def forward(self, batch: Any, *rest: Any) -> Any:
        Metered.most = max(Metered.most, batch.forest.unique_tokens)
        return super().forward(batch, *rest)


@pytest.fixture
def metered(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(high: HighWater) -> Peak:
        found, Metered.most = Peak(1000 * Metered.most), 0
        return found

    monkeypatch.setattr(HighWater, "_read", read)
    for module in (memory, trial):
        monkeypatch.setattr(module, "memory_bytes", lambda: 0)


@pytest.mark.usefixtures("metered")
def test_training_within_a_limit_gives_the_same_result(lora: Lora, tmp_path: Path) -> None:
    """Found out before the first step, so that no step crosses the limit; nothing else changes."""
    _, wanted = train(tmp_path / "a", lora())
    told, found = train(tmp_path / "b", lora(Metered), memory_bytes=100_000)
    lowered = [line for line in told if line["event"] == "memory"]
    assert [line["step"] for line in lowered] == [0] * len(lowered)
    assert {s["token_budget"] for s in told if s["event"] == "step"} == {lowered[-1]["token_budget"]}
    assert FEWEST_TOKENS <= lowered[-1]["token_budget"] <= 100
    assert all((found[name] - wanted[name]).abs().max() <= 1e-9 for name in wanted)


@pytest.mark.usefixtures("metered")
def test_a_row_that_crosses_the_limit_alone_stops_the_run_before_a_step(lora: Lora, tmp_path: Path) -> None:
    lines: Lines = []
    with pytest.raises(TrainingFailed, match=r"does not fit: its longest row.* of 80 tokens takes 0.00 GiB") as caught:
        fit(lora(Metered), Objective(), GROUPS, [], settings(memory_bytes=70_000, advice=lambda: "take a smaller base"),
            tmp_path / "run", report=lines.append, look=lambda step: None)
    assert caught.value.fix == "take a smaller base"
    assert {line["event"] for line in lines} <= {"memory"}
