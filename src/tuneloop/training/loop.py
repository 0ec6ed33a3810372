"""The reference training loop, on accelerate.

The optimizer batch is defined in groups of samples; it is cut into pieces by a token budget, which never changes the
result, because sums are divided by the objective's denominator over the whole step. So where memory runs out the budget
is halved and the step begins again. Which samples a step sees and what dropout drops follows from the seed and the
step's number alone, so that resuming needs no state of samplers or generators.

With several processes each takes its share of a step's micro-batches; only the main one writes, reports and samples.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tuneloop.compute.cut import cut_step, totals_of
from tuneloop.compute.flops import Meter
from tuneloop.compute.model import SCORES_ALONE, ForestModel
from tuneloop.compute.packing import sorted_paths, unique_tokens
from tuneloop.compute.passes import passes
from tuneloop.errors import TrainingFailed
from tuneloop.objectives.base import REDUCERS, Objective
from tuneloop.training import checkpoint
from tuneloop.training.checkpoint import Progress
from tuneloop.training.memory import Governor, memory_bytes, ran_out, watched
from tuneloop.training.optimizer import make_optimizer
from tuneloop.training.source import Drawn, Given, Source, StopTraining, as_sampled
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


Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class _Trainer:
    """What every step needs."""

    accelerator: Any
    model: Any                      # as accelerate prepared it
    objective: Objective
    settings: Settings
    governor: Governor
    meter: Meter

    def pieces(self, samples: Sequence[Rendered], groups: Sequence[int]) -> list[Piece]:
        """The step's pieces of this process; trunks would cross processes, so they are for one alone."""
        one = self.accelerator.num_processes == 1
        return cut_step(samples, self.governor.token_budget, groups=groups, share=self.settings.share,
                        trunks=one, keep_last="scores" in self.objective.needs)


def fit(model: ForestModel, objective: Objective, train: Sequence[Group] | Source, validation: Sequence[Group],
        settings: Settings, folder: Path, *, report: Report, look: Callable[[int], None]) -> Progress:
    """Train `model` in place and leave the best parameters in it.

    `train` are groups, or what makes them as training goes and looks at held-out prompts in place of `validation`;
    that is for one process. `folder` holds the checkpoints; training continues from the newest one there. `report`
    receives the lines of metrics.jsonl; `look` is called with the step after every validation, to sample answers.
    Raises TrainingFailed when the loss is not finite or a checkpoint cannot be written, KeyboardInterrupt after saving
    when the user interrupts.
    """
    from accelerate import Accelerator

    accelerator = Accelerator()
    main = accelerator.is_main_process
    model.to(accelerator.device)
    if settings.checkpointing:
        model.checkpoint_activations()
    optimizer = make_optimizer(settings.optimizer, _parameter_groups(model, settings.weight_decay),
                               settings.learning_rate)
    progress = checkpoint.restore(folder, model, optimizer) or Progress()
    prepared, optimizer = accelerator.prepare(model, optimizer)
    governor = Governor(progress.token_budget or settings.token_budget, settings.memory_bytes, report)
    meter = Meter(model, head=objective.needs & REDUCERS != SCORES_ALONE)
    trainer = _Trainer(accelerator, prepared, objective, settings, governor, meter)
    source = Given(train, objective, settings.batch_size, settings.seed) if isinstance(train, Sequence) else train
    with _interruptible() as interrupted:
        while progress.step < settings.steps and not progress.stopped_early:
            began = time.perf_counter()
            try:
                entry = _step(trainer, optimizer, source.of_step(progress.step), progress.step)
            except StopTraining as over:
                progress = _ended(progress, over, report)
                checkpoint.save(folder, model, optimizer.optimizer, progress)
                break
            progress = _after_step(progress, entry, time.perf_counter() - began, governor)
            if main:
                report(entry | {"event": "step", "step": progress.step, "seconds": round(progress.seconds, 3),
                                "memory_bytes": progress.peak_memory_bytes})
            last = progress.step == settings.steps
            if progress.step % settings.evaluate_every == 0 or last:
                loss = (_validation_loss(trainer, validation, progress.step) if isinstance(source, Given)
                        else source.loss(progress.step))
                progress = _after_look(progress, loss, settings)
                if main:
                    _keep_and_tell(model, progress, loss, folder, report)
                    look(progress.step)
            if not isinstance(source, Given) and (why := source.learnt(progress.step, entry)):
                progress = _ended(progress, why, report)
            stop = _anyone(accelerator, interrupted.is_set())
            if main and (progress.step % settings.checkpoint_every == 0 or last or stop or progress.stopped_early):
                checkpoint.save(folder, model, optimizer.optimizer, progress)
            if stop:
                raise KeyboardInterrupt
    accelerator.wait_for_everyone()
    if progress.best_step is not None:
        checkpoint.load_best(folder, model, progress.best_step)
    return progress


def _step(trainer: _Trainer, optimizer: Any, drawn: Drawn, step: int) -> dict[str, Any]:
    """One optimizer step; returns its line for metrics.jsonl."""
    accelerator, settings, chosen = trainer.accelerator, trainer.settings, drawn.groups
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
            trainer.governor.halve(step + 1, max(_tokens(group, settings.share) for group in chosen), error)
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


def _accumulate(trainer: _Trainer, chosen: Sequence[Group], step: int) -> tuple[dict[str, float], list[Piece]]:
    """Leave the gradients of the step in the model; returns the means of its named sums, and its pieces."""
    samples = [r for group in chosen for r in group.branches]
    pieces = trainer.pieces(samples, [g for g, group in enumerate(chosen) for _ in group.branches])
    stats = _step_stats(trainer, chosen)
    sums: dict[str, torch.Tensor] = {}
    per: dict[str, Denominator] = {}
    totals = totals_of(pieces)
    denominator = totals[trainer.objective.denominator]
    with watched(trainer.governor, step, max(p.forest.unique_tokens for p in pieces)), trainer.meter.counting():
        for found, weight in _losses(trainer, pieces, stats):
            # gradients are averaged over processes, while the loss is a sum over all of them
            trainer.accelerator.backward(found.loss * (weight * trainer.accelerator.num_processes / denominator))
            _add(sums, found, weight)
            per |= found.per
            del found
    return _means(trainer, sums, per, totals), pieces


def _losses(trainer: _Trainer, pieces: Sequence[Piece],
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
def _step_stats(trainer: _Trainer, chosen: Sequence[Group]) -> dict[str, float]:
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
            _add(sums, found, 1.0)
            per |= found.per
    world = trainer.accelerator.num_processes       # every process has seen all probes
    return _means(trainer, {name: s / world for name, s in sums.items()}, per, totals_of(pieces))


def _add(sums: dict[str, torch.Tensor], found: LossOutput, weight: float) -> None:
    for name, value in {"loss": found.loss, **found.sums}.items():
        sums[name] = sums.get(name, 0.0) + value.detach() * weight


def _means(trainer: _Trainer, sums: Mapping[str, torch.Tensor], per: Mapping[str, Denominator],
           totals: Mapping[Denominator, float]) -> dict[str, float]:
    """Sums over all processes, each divided by its denominator."""
    objective = trainer.objective
    return objective.told({
        name: float(trainer.accelerator.reduce(total, "sum")) / totals[per.get(name, objective.denominator)]
        for name, total in sums.items()})


@torch.no_grad()
def _validation_loss(trainer: _Trainer, validation: Sequence[Group], step: int) -> float | None:
    """The objective on the validation rows, without dropout; the same number in all processes; None without rows."""
    from accelerate.utils import broadcast_object_list

    if not validation:
        return None
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    sums: dict[str, torch.Tensor] = {}
    samples = [r for group in validation for r in group.branches]
    pieces = trainer.pieces(samples, [g for g, group in enumerate(validation) for _ in group.branches])
    stats = _step_stats(trainer, validation)
    for _, batch, out in passes(model, pieces, trainer.accelerator.device, trainer.objective.needs & REDUCERS):
        _add(sums, trainer.objective.loss(out, replace(batch, stats=stats)), 1.0)
    mean = float(sums["loss"]) / totals_of(pieces)[trainer.objective.denominator]
    loss: float = broadcast_object_list([mean])[0]
    if not math.isfinite(loss):
        raise TrainingFailed(f"Training stopped after step {step}: the validation loss is {loss:g}. The usual cause is "
                             "a learning rate too high.",
                             fix="lower training.learning_rate; earlier checkpoints are kept")
    return loss


def _after_look(progress: Progress, loss: float | None, settings: Settings) -> Progress:
    """What a look at the validation loss changes: a new best, or patience that runs out."""
    if loss is None:
        return progress
    if progress.best_loss is None or loss < progress.best_loss:
        return replace(progress, best_step=progress.step, best_loss=loss, stale_looks=0)
    stale = progress.stale_looks + 1
    return replace(progress, stale_looks=stale,
                   stopped_early=stale >= settings.patience and progress.step < settings.steps)


def _ended(progress: Progress, why: object, report: Report) -> Progress:
    """Training is over before its last step, and says why."""
    report({"event": "stopped", "step": progress.step, "why": str(why)})
    return replace(progress, stopped_early=True, why=str(why))


def _keep_and_tell(model: ForestModel, progress: Progress, loss: float | None, folder: Path, report: Report) -> None:
    if loss is None:
        return
    best = progress.best_step == progress.step
    if best:
        checkpoint.save_best(folder, model, progress.step)
    report({"event": "validation", "step": progress.step, "loss": loss, "best": best,
            "seconds": round(progress.seconds, 3)})


def _anyone(accelerator: Any, flag: bool) -> bool:
    """Whether any process was asked to stop: they stop after the same step, or those left over would wait for ever."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(int(flag), device=accelerator.device), "sum") > 0)


def _tokens(group: Group, share: bool) -> int:
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


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices; none for biases, norms and scales, which are vectors, whatever their dimensions."""
    parameters = list(checkpoint.trainable(model).values())
    vectors = [p.numel() == max(p.shape, default=1) for p in parameters]
    return [{"params": [p for p, vector in zip(parameters, vectors, strict=True) if not vector],
             "weight_decay": weight_decay},
            {"params": [p for p, vector in zip(parameters, vectors, strict=True) if vector], "weight_decay": 0.0}]


def _after_step(progress: Progress, entry: dict[str, Any], seconds: float, governor: Governor) -> Progress:
    return replace(progress, step=progress.step + 1, tokens=progress.tokens + entry["tokens"],
                   seconds=progress.seconds + seconds, token_budget=governor.token_budget,
                   peak_memory_bytes=max(progress.peak_memory_bytes, governor.peak_bytes, memory_bytes()))


def _explain_not_finite(loss: float, norm: float, rate: float, step: int) -> str:
    return (f"Training stopped at step {step + 1}: the loss is {loss:g} and the gradient's norm {norm:g}. "
            f"The learning rate was {rate:.2g}. Usual causes: a learning rate too high, or weights that hold no finite "
            "numbers. The step was not applied.")


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that the step under way is finished and saved; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
