"""Losses and gradients equal TRL's on the same rows, tokens and weights, in float32 on a tiny llama.

The trainers are TRL's own, on a tiny dataset; `compute_loss` is called on a batch of theirs, and what that batch holds
becomes our rows. The policy is moved away from the reference model first, so that no ratio is 1. A gradient is held to
1e-5 of its norm, over all parameters together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exact
from objective_batches import take_step
from tiny import tiny_tokenizer
from tuneloop.compute.model import ForestModel
from tuneloop.models.load import load_model
from tuneloop.objectives import dpo, grpo, kto, reward, rloo, sft
from tuneloop.objectives.base import Objective
from tuneloop.types import Group, Rendered

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
trl = pytest.importorskip("trl")

PROMPTS = ["The plot is thin and old.", "My order has not arrived yet.", "Is this film good?", "Please send us the"]
ANSWERS = [" A rich film.", " We are sorry; send the number.", " negative", " order number, 1 2 3 4."]
OTHERS = [" positive", " no", " It is an intelligent film that uses it well.", " jokes"]


def arguments(kind: Any, folder: Path, **more: Any) -> Any:
    options: dict[str, Any] = {"output_dir": str(folder), "report_to": "none", "use_cpu": True, "bf16": False,
                               "gradient_checkpointing": False, "per_device_train_batch_size": len(PROMPTS),
                               "max_steps": 1, "disable_tqdm": True, "seed": 1}
    return kind(**(options | more))


def dataset(**columns: list[Any]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(columns)


@torch.no_grad()
def move(model: nn.Module, size: float = 0.02) -> None:
    """Away from the reference model, by the same amount every time."""
    draw = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=draw) * size * parameter.std())


def favour(model: nn.Module, rows: Sequence[Rendered], length: float = 0.5) -> None:
    """A step that makes the rows' answers likelier."""
    total = torch.cat(exact.plain_logprobs(model, rows)).sum()
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(total, parameters)
    norm = torch.cat([g.flatten() for g in found]).norm()
    with torch.no_grad():
        for parameter, g in zip(parameters, found, strict=True):
            parameter.add_(g * (length / norm))


def theirs(trainer: Any, batch: Any) -> tuple[float, exact.Gradients]:
    trainer.current_gradient_accumulation_steps = 1     # what `train` sets
    loss = trainer.compute_loss(trainer.model, dict(batch))
    return loss.item(), exact.gradients(trainer.model, loss)


def assert_agree(trainer: Any, batch: Any, objective: Objective, groups: Sequence[Group], base: Path) -> None:
    """Same loss and gradients from our objective on `groups` as from TRL's trainer on `batch`."""
    model = load_model(base, dtype=torch.float32).requires_grad_(True)
    model.load_state_dict(trainer.model.state_dict(), strict=False)
    loss, wanted = theirs(trainer, batch)
    for share in (True, False):
        step = take_step(ForestModel(model), objective, groups, share=share)
        found = {name.removeprefix("model."): g for name, g in step.gradients.items() if name.startswith("model.")}
        assert step.loss == pytest.approx(loss, rel=1e-5)
        assert exact.difference(found, wanted) <= 1e-5


def said_by(trainer: Any, name: str) -> float:
    """The last value of a metric of TRL's; models are loaded in evaluation mode."""
    return float((trainer._metrics["train"] | trainer._metrics["eval"])[name][-1])


def rows_of(ids: Tensor, attention: Tensor, answer: Tensor) -> list[Rendered]:
    """Padded tensors, (rows, width) each, as rows of ours."""
    return [Rendered(i[a.bool()].numpy(), m[a.bool()].numpy().astype(np.float32))
            for i, a, m in zip(ids, attention, answer, strict=True)]


def with_reference(rows: Sequence[Rendered], reference: nn.Module, **named: Sequence[Any]) -> list[Rendered]:
    """The rows with log-probs of the reference model, and what else there is for every row."""
    with torch.no_grad():
        logprobs = exact.plain_logprobs(reference, rows)
    return [Rendered(r.ids, r.weights, named={"reference_logprobs": x.numpy()} | {n: v[i] for n, v in named.items()})
            for i, (r, x) in enumerate(zip(rows, logprobs, strict=True))]


def first_batch(trainer: Any) -> Any:
    return next(iter(trainer.get_train_dataloader()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sft(smoothing: float, tiny_llama: Path, tmp_path: Path) -> None:
    trainer = trl.SFTTrainer(
        str(tiny_llama), arguments(trl.SFTConfig, tmp_path, label_smoothing_factor=smoothing),
        train_dataset=dataset(prompt=PROMPTS, completion=ANSWERS), processing_class=tiny_tokenizer(False))
    batch = first_batch(trainer)
    rows = rows_of(batch["input_ids"], batch["attention_mask"], (batch["labels"] != -100).long())
    assert 0 < sum(r.supervised for r in rows) < sum(len(r) for r in rows)
    assert_agree(trainer, batch, sft.Objective(label_smoothing=smoothing), [Group((r,)) for r in rows], tiny_llama)


@pytest.mark.parametrize("form", ["sigmoid", "ipo", "hinge"])
def test_dpo(form: Any, tiny_llama: Path, tmp_path: Path) -> None:
    trainer = trl.DPOTrainer(
        str(tiny_llama), args=arguments(trl.DPOConfig, tmp_path, loss_type=[form], beta=0.3),
        train_dataset=dataset(prompt=PROMPTS, chosen=ANSWERS, rejected=OTHERS), processing_class=tiny_tokenizer(False))
    move(trainer.model)
    batch = first_batch(trainer)
    rows = with_reference(rows_of(batch["input_ids"], batch["attention_mask"], batch["completion_mask"]),
                          load_model(tiny_llama, dtype=torch.float32))
    half = len(rows) // 2       # TRL puts the chosen ones first
    groups = [Group(pair) for pair in zip(rows[:half], rows[half:], strict=True)]
    assert_agree(trainer, batch, dpo.Objective(beta=0.3, form=form), groups, tiny_llama)


def test_kto(tiny_llama: Path, tmp_path: Path) -> None:
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.8}
    trainer = trl.KTOTrainer(
        str(tiny_llama), args=arguments(trl.KTOConfig, tmp_path, beta=0.3, **weights),
        train_dataset=dataset(prompt=PROMPTS, completion=ANSWERS, label=[True, False, False, True]),
        processing_class=tiny_tokenizer(False))
    reference = load_model(tiny_llama, dtype=torch.float32)
    seen = []
    for likelier in (False, True):
        trainer.model.load_state_dict(reference.state_dict(), strict=False)
        batch = first_batch(trainer)
        if likelier:
            favour(trainer.model, rows_of(batch["KL_input_ids"], batch["KL_attention_mask"],
                                          batch["KL_completion_mask"]))
        else:
            move(trainer.model)
        rows = with_reference(rows_of(batch["input_ids"], batch["attention_mask"], batch["completion_mask"]), reference,
                              desirable=batch["label"].float().tolist())
        probes = with_reference(
            rows_of(batch["KL_input_ids"], batch["KL_attention_mask"], batch["KL_completion_mask"]), reference)
        groups = [Group((row,), (probe,)) for row, probe in zip(rows, probes, strict=True)]
        assert_agree(trainer, batch, kto.Objective(beta=0.3, **weights), groups, tiny_llama)
        seen.append(said_by(trainer, "kl"))
    assert max(seen) > 0, "the divergence was clamped throughout"


@pytest.mark.parametrize("center", [0.0, 0.05])
def test_reward(center: float, tiny_llama: Path, tmp_path: Path) -> None:
    margins = [0.0, 0.5, 1.0, 0.25]
    trainer = trl.RewardTrainer(
        str(tiny_llama), args=arguments(trl.RewardConfig, tmp_path, center_rewards_coefficient=center or None),
        train_dataset=dataset(prompt=PROMPTS, chosen=ANSWERS, rejected=OTHERS, margin=margins),
        processing_class=tiny_tokenizer(False))
    batch = first_batch(trainer)
    loss, wanted = theirs(trainer, batch)
    everything = batch["attention_mask"].clone()
    rows = rows_of(batch["input_ids"], batch["attention_mask"], everything)
    half, said = len(rows) // 2, batch["margin"].tolist()
    groups = [Group(tuple(Rendered(r.ids, r.weights, named={"margin": m}) for r in pair))
              for *pair, m in zip(rows[:half], rows[half:], said, strict=True)]
    assert sorted(said) == sorted(margins)
    scalar = nn.Linear(32, 1, bias=False)
    scalar.load_state_dict({"weight": trainer.model.score.weight.detach()})
    model = load_model(tiny_llama, dtype=torch.float32).requires_grad_(True)
    model.load_state_dict(trainer.model.state_dict(), strict=False)
    step = take_step(ForestModel(model, scalar=scalar), reward.Objective(center=center), groups)
    found = {n.removeprefix("model.").replace("scalar", "score"): g for n, g in step.gradients.items()}
    assert step.loss == pytest.approx(loss, rel=1e-5)
    assert exact.difference(found, wanted) <= 1e-5


def reward_of(ids: Sequence[int]) -> float:
    return sum(ids) % 7 / 3


def rewarded(completions: Any, completion_ids: Any, **others: Any) -> list[float]:
    return [reward_of(ids) for ids in completion_ids]


def rollouts(trainer: Any, reference: nn.Module) -> tuple[Any, list[Group]]:
    """A batch that TRL sampled, scored and turned into advantages; its raw rewards and old log-probs as groups.

    Old log-probs are those of the model that sampled, which is moved afterwards.
    """
    sampler = load_model(Path(trainer.model.config._name_or_path), dtype=torch.float32)
    sampler.load_state_dict(trainer.model.state_dict(), strict=False)
    batch = trainer._prepare_inputs(first_batch(trainer))
    move(trainer.model, 0.05)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    answer = torch.cat([torch.zeros_like(batch["prompt_mask"]), batch["completion_mask"]], 1)
    rows = rows_of(ids, attention, answer)
    with torch.no_grad():
        old = [x.numpy() for x in exact.plain_logprobs(sampler, rows)]
    rows = with_reference(rows, reference, old_logprobs=old,
                          rewards=[reward_of(r.ids[r.weights > 0].tolist()) for r in rows])
    prompts: dict[bytes, list[Rendered]] = {}
    for row in rows:
        prompts.setdefault(row.ids[row.weights == 0].tobytes(), []).append(row)
    assert [len(group) for group in prompts.values()] == [4, 4]
    return batch, [Group(tuple(group)) for group in prompts.values()]


def rollout_trainer(kind: Any, config: Any, base: Path, folder: Path, **more: Any) -> Any:
    trainer = kind(
        str(base), rewarded, args=arguments(
            config, folder, per_device_train_batch_size=8, num_generations=4, max_completion_length=9,
            num_iterations=2, **more),      # more than one, or TRL would not compute the old log-probs
        train_dataset=dataset(prompt=PROMPTS), processing_class=tiny_tokenizer(False))
    move(trainer.model)
    return trainer


@pytest.mark.parametrize("aggregation", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize(("scale", "unbiased_kl"), [("group", False), ("none", False), ("group", True)])
def test_grpo(aggregation: Any, scale: Any, unbiased_kl: bool, tiny_llama: Path, tmp_path: Path) -> None:
    trainer = rollout_trainer(
        trl.GRPOTrainer, trl.GRPOConfig, tiny_llama, tmp_path, loss_type=aggregation, scale_rewards=scale, beta=0.3,
        epsilon=0.1, epsilon_high=0.15, use_bias_correction_kl=unbiased_kl)
    batch, groups = rollouts(trainer, load_model(tiny_llama, dtype=torch.float32))
    objective = grpo.Objective(epsilon=0.1, epsilon_high=0.15, beta=0.3, scale_rewards=scale, aggregation=aggregation,
                               unbiased_kl=unbiased_kl, max_completion_tokens=9 if aggregation == "dr_grpo" else None)
    assert_agree(trainer, batch, objective, groups, tiny_llama)
    assert 0 < said_by(trainer, "clip_ratio/region_mean") < 1


def test_rloo(tiny_llama: Path, tmp_path: Path) -> None:
    trainer = rollout_trainer(trl.RLOOTrainer, trl.RLOOConfig, tiny_llama, tmp_path, beta=0.3, epsilon=0.3)
    batch, groups = rollouts(trainer, load_model(tiny_llama, dtype=torch.float32))
    assert_agree(trainer, batch, rloo.Objective(epsilon=0.3, beta=0.3), groups, tiny_llama)
    assert said_by(trainer, "clip_ratio/region_mean") < 1
