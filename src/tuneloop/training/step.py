"""One optimizer step: its groups cut into pieces, their losses and gradients, the update.

The optimizer batch is defined in groups of samples; it is cut into pieces by a token budget, which never changes the
result, because sums are divided by the objective's denominator over the whole step. So where memory runs out the budget
is halved and the step begins again. What dropout drops follows from the seed and the step's number alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from tuneloop.compute.cut import cut_step, totals_of
from tuneloop.compute.flops import Meter
from tuneloop.compute.packing import sorted_paths, unique_tokens
from tuneloop.compute.passes import passes
from tuneloop.errors import TrainingFailed
from tuneloop.objectives.base import REDUCERS, Objective
from tuneloop.training.memory import Governor, ran_out, watched
from tuneloop.training.source import Drawn, as_sampled
from tuneloop.types import Denominator, Group, LossOutput, Piece, Rendered


@dataclass(frozen=True)
class Settings:
    """The resolved hyperparameters of a training."""

    steps: int
    batch_size: int                 # groups of samples per optimizer step
    learning_rate: float
    schedule: Literal["cosine", "linear", "constant"]
    warmup: float                   # share of the steps
    weight_decay: float
    max_grad_norm: float
    token_budget: int               # unique tokens per piece
    evaluate_every: int             # optimizer steps
    checkpoint_every: int           # optimizer steps
    patience: int                   # looks at the validation loss
    share: bool                     # share prefixes
    checkpointing: bool             # compute activations twice instead of keeping them
    memory_bytes: int               # what training may use in all
    seed: int
    optimizer: str = "adamw"
    advice: Callable[[], str] | None = None         # says what to change where a step does not fit
    expects: Callable[[int], int] | None = None     # tokens at once -> bytes in all, by the plan


Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Trainer:
    """What every step needs."""

    accelerator: Any
    model: Any                      # as accelerate prepared it
    optimizer: Any                  # as accelerate prepared it
    objective: Objective
    settings: Settings
    governor: Governor
    meter: Meter

    def pieces(self, samples: Sequence[Rendered], groups: Sequence[int]) -> list[Piece]:
        """The step's pieces of this process; trunks would cross processes, so they are for one alone."""
        one = self.accelerator.num_processes == 1
        return cut_step(samples, self.governor.token_budget, groups=groups, share=self.settings.share,
                        trunks=one, keep_last="scores" in self.objective.needs)


def run_step(trainer: Trainer, drawn: Drawn, step: int) -> dict[str, Any]:
    """One optimizer step; returns its line for metrics.jsonl."""
    accelerator, settings, chosen = trainer.accelerator, trainer.settings, drawn.groups
    optimizer = trainer.optimizer
    trainer = replace(trainer, objective=drawn.objective)
    trainer.model.train()
    began = time.perf_counter()
    rate = settings.learning_rate * schedule(step, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate
    while True:
        torch.manual_seed(_seed_of_step(settings.seed, step, accelerator.process_index))
        try:
            means, pieces = _accumulate(trainer, chosen, step + 1)
            break
        except Exception as error:
            # one process cannot begin its step again while the others wait for its gradients
            if accelerator.num_processes > 1 or not ran_out(error):
                raise
            optimizer.zero_grad(set_to_none=True)
            trainer.governor.halve(step + 1, max(tokens_of(group, settings.share) for group in chosen), error)
    norm = float(accelerator.clip_grad_norm_(trainer.model.parameters(), settings.max_grad_norm))
    if not (math.isfinite(means["loss"]) and math.isfinite(norm)):
        raise TrainingFailed(_explain_not_finite(means["loss"], norm, rate, step),
                             fix="lower training.learning_rate, or look at the rows with `tuneloop check`; earlier "
                                 "checkpoints are kept")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - began
    tokens, logical = sum(p.computed_tokens for p in pieces), sum(p.forest.logical_tokens for p in pieces if p.samples)
    return means | dict(drawn.told) | {
        "learning_rate": rate, "grad_norm": norm, "tokens": tokens, "logical_tokens": logical,
        "supervised_tokens": sum(len(p.forest.targets) for p in pieces), "sharing": round(logical / tokens, 3),
        "pieces": len(pieces), "token_budget": trainer.governor.token_budget,
        "tokens_per_second": round(tokens / seconds, 1),
        "utilisation": round(trainer.meter.utilisation(pieces, seconds / accelerator.num_processes), 3)}


def accumulate(trainer: Trainer, pieces: Sequence[Piece], stats: Mapping[str, float],
               ) -> tuple[dict[str, torch.Tensor], dict[str, Denominator]]:
    """Leave the gradients of a step's pieces in the model; returns its named sums, and what to divide each by."""
    sums: dict[str, torch.Tensor] = {}
    per: dict[str, Denominator] = {}
    denominator = totals_of(pieces)[trainer.objective.denominator]
    for found, weight in _losses(trainer, pieces, stats):
        # gradients are averaged over processes, while the loss is a sum over all of them
        trainer.accelerator.backward(found.loss * (weight * trainer.accelerator.num_processes / denominator))
        add(sums, found, weight)
        per |= found.per
        del found
    return sums, per


def _accumulate(trainer: Trainer, chosen: Sequence[Group], step: int) -> tuple[dict[str, float], list[Piece]]:
    """Leave the gradients of the step in the model; returns the means of its named sums, and its pieces."""
    samples = [r for group in chosen for r in group.branches]
    pieces = trainer.pieces(samples, [g for g, group in enumerate(chosen) for _ in group.branches])
    stats = step_stats(trainer, chosen)
    with watched(trainer.governor, step, max(p.forest.unique_tokens for p in pieces)), trainer.meter.counting():
        sums, per = accumulate(trainer, pieces, stats)
    return _means(trainer, sums, per, totals_of(pieces)), pieces


def _losses(trainer: Trainer, pieces: Sequence[Piece],
            stats: Mapping[str, float]) -> Iterator[tuple[LossOutput, float]]:
    """What the objective says of this process's pieces, and how much each counts.

    All processes run the same number of pieces: what is missing is repeated and counts nothing.
    """
    world, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
    if world == 1:
        mine, real = list(pieces), len(pieces)
    else:
        turns = [turn * world + rank for turn in range(math.ceil(len(pieces) / world))]
        mine, real = [pieces[i if i < len(pieces) else 0] for i in turns], sum(i < len(pieces) for i in turns)
    needs = trainer.objective.needs & REDUCERS
    for done, (_, batch, out) in enumerate(piece for piece in passes(
            trainer.model, mine, trainer.accelerator.device, needs)):
        batch, drift = as_sampled(batch, out)
        found = trainer.objective.loss(out, replace(batch, stats=stats))
        if drift is not None:
            found = replace(found, sums={**found.sums, "drift": (drift * batch.weights).sum()},
                            per={**found.per, "drift": "weight"})
        yield found, float(world == 1 or done < real)


@torch.no_grad()
def step_stats(trainer: Trainer, chosen: Sequence[Group]) -> dict[str, float]:
    """What the objective wants to know of the step's probes before the first backward."""
    probes = [r for group in chosen for r in group.probes]
    if not probes:
        return {}
    pieces = trainer.pieces(probes, [g for g, group in enumerate(chosen) for _ in group.probes])
    sums: dict[str, torch.Tensor] = {}
    per: dict[str, Denominator] = {}
    for _, batch, out in passes(trainer.accelerator.unwrap_model(trainer.model), pieces, trainer.accelerator.device,
                                trainer.objective.needs & REDUCERS):
        found = trainer.objective.step_stats(out, batch)
        if found is not None:
            add(sums, found, 1.0)
            per |= found.per
    world = trainer.accelerator.num_processes       # every process has seen all probes
    return _means(trainer, {name: s / world for name, s in sums.items()}, per, totals_of(pieces))


def add(sums: dict[str, torch.Tensor], found: LossOutput, weight: float) -> None:
    for name, value in {"loss": found.loss, **found.sums}.items():
        sums[name] = sums.get(name, 0.0) + value.detach() * weight


def _means(trainer: Trainer, sums: Mapping[str, torch.Tensor], per: Mapping[str, Denominator],
           totals: Mapping[Denominator, float]) -> dict[str, float]:
    """Sums over all processes, each divided by its denominator."""
    objective = trainer.objective
    return objective.told({
        name: float(trainer.accelerator.reduce(total, "sum")) / totals[per.get(name, objective.denominator)]
        for name, total in sums.items()})


def tokens_of(group: Group, share: bool) -> int:
    """Tokens of a group, which is never split."""
    return unique_tokens(sorted_paths(group.branches, None, True), share)


def _seed_of_step(seed: int, step: int, process: int) -> int:
    """What dropout draws from: a number of its own for every step and process."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1)[0])


def schedule(step: int, settings: Settings) -> float:
    """Factor on the learning rate for the optimizer step `step`, counted from 0."""
    warmup = round(settings.warmup * settings.steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, settings.steps - warmup)
    return {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[settings.schedule]


def _explain_not_finite(loss: float, norm: float, rate: float, step: int) -> str:
    return (f"Training stopped at step {step + 1}: the loss is {loss:g} and the gradient's norm {norm:g}. "
            f"The learning rate was {rate:.2g}. Usual causes: a learning rate too high, or weights that hold no finite "
            "numbers. The step was not applied.")
