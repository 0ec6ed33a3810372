"""The reference training loop, on accelerate.

Steps are in `training.step`. Which samples a step sees and what dropout drops follows from the seed and the step's
number alone, so that resuming needs no state of samplers or generators.

With several processes each takes its share of a step's micro-batches; only the main one writes, reports and samples.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tuneloop.compute.cut import totals_of
from tuneloop.compute.flops import Meter
from tuneloop.compute.model import SCORES_ALONE, ForestModel
from tuneloop.compute.passes import passes
from tuneloop.errors import TrainingFailed
from tuneloop.objectives.base import REDUCERS, Objective
from tuneloop.training import checkpoint
from tuneloop.training.checkpoint import Progress
from tuneloop.training.memory import Governor
from tuneloop.training.optimizer import make_optimizer
from tuneloop.training.peak import HighWater, memory_bytes, release
from tuneloop.training.source import Given, Source, StopTraining
from tuneloop.training.step import Report, Settings, Trainer, add, run_step, step_stats
from tuneloop.training.trial import try_longest
from tuneloop.types import Group

__all__ = ["Settings", "begin", "fit"]


def fit(model: ForestModel, objective: Objective, train: Sequence[Group] | Source, validation: Sequence[Group],
        settings: Settings, folder: Path, *, report: Report, look: Callable[[int], None]) -> Progress:
    """Train `model` in place and leave the best parameters in it.

    `train` are groups, or what makes them as training goes and looks at held-out prompts in place of `validation`;
    that is for one process. `folder` holds the checkpoints; training continues from the newest one there. `report`
    receives the lines of metrics.jsonl; `look` is called with the step after every validation, to sample answers.
    Raises TrainingFailed when the loss is not finite or a checkpoint cannot be written, KeyboardInterrupt after saving
    when the user interrupts.
    """
    with HighWater() as high:
        release()
        trainer, progress = begin(model, objective, settings, report, high, folder)
        progress = _train(trainer, model, progress, train, validation, folder, report=report, look=look)
    return replace(progress, peak_memory_bytes=max(progress.peak_memory_bytes, high.peak_bytes),
                   reserved_memory_bytes=high.reserved_bytes, measured_by=high.how)


def begin(model: ForestModel, objective: Objective, settings: Settings, report: Report, high: HighWater,
          folder: Path | None = None) -> tuple[Trainer, Progress]:
    """Everything for the first step, or for the one after the newest checkpoint in `folder`."""
    from accelerate import Accelerator

    accelerator = Accelerator()
    model.to(accelerator.device)
    if settings.checkpointing:
        model.checkpoint_activations()
    optimizer = make_optimizer(settings.optimizer, _parameter_groups(model, settings.weight_decay),
                               settings.learning_rate)
    progress = (checkpoint.restore(folder, model, optimizer) if folder else None) or Progress()
    prepared, optimizer = accelerator.prepare(model, optimizer)
    governor = Governor(progress.token_budget or settings.token_budget, settings.memory_bytes, report, high,
                        settings.advice)
    meter = Meter(model, head=objective.needs & REDUCERS != SCORES_ALONE)
    return Trainer(accelerator, prepared, optimizer, objective, settings, governor, meter), progress


def _train(trainer: Trainer, model: ForestModel, progress: Progress, train: Sequence[Group] | Source,
           validation: Sequence[Group], folder: Path, *, report: Report, look: Callable[[int], None]) -> Progress:
    """The steps, looks and checkpoints of `fit`."""
    accelerator, settings, optimizer = trainer.accelerator, trainer.settings, trainer.optimizer
    main = accelerator.is_main_process
    source = Given(train, trainer.objective, settings.batch_size, settings.seed) if isinstance(train, Sequence) \
        else train
    if progress.step == 0 and isinstance(source, Given):
        try_longest(trainer, source.groups)
    with _interruptible() as interrupted:
        while progress.step < settings.steps and not progress.stopped_early:
            began, busy = time.perf_counter(), time.process_time()
            try:
                entry = run_step(trainer, source.of_step(progress.step), progress.step)
            except StopTraining as over:
                progress = _ended(progress, over, report)
                checkpoint.save(folder, model, optimizer.optimizer, progress)
                break
            progress = _after_step(progress, entry, time.perf_counter() - began, time.process_time() - busy,
                                   trainer.governor)
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


@torch.no_grad()
def _validation_loss(trainer: Trainer, validation: Sequence[Group], step: int) -> float | None:
    """The objective on the validation rows, without dropout; the same number in all processes; None without rows."""
    from accelerate.utils import broadcast_object_list

    if not validation:
        return None
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    sums: dict[str, torch.Tensor] = {}
    samples = [r for group in validation for r in group.branches]
    pieces = trainer.pieces(samples, [g for g, group in enumerate(validation) for _ in group.branches])
    stats = step_stats(trainer, validation)
    for _, batch, out in passes(model, pieces, trainer.accelerator.device, trainer.objective.needs & REDUCERS):
        add(sums, trainer.objective.loss(out, replace(batch, stats=stats)), 1.0)
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


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices; none for biases, norms and scales, which are vectors, whatever their dimensions."""
    parameters = list(checkpoint.trainable(model).values())
    vectors = [p.numel() == max(p.shape, default=1) for p in parameters]
    return [{"params": [p for p, vector in zip(parameters, vectors, strict=True) if not vector],
             "weight_decay": weight_decay},
            {"params": [p for p, vector in zip(parameters, vectors, strict=True) if vector], "weight_decay": 0.0}]


def _after_step(progress: Progress, entry: dict[str, Any], seconds: float, cpu_seconds: float,
                governor: Governor) -> Progress:
    return replace(progress, step=progress.step + 1, tokens=progress.tokens + entry["tokens"],
                   seconds=progress.seconds + seconds, cpu_seconds=progress.cpu_seconds + cpu_seconds,
                   token_budget=governor.token_budget,
                   peak_memory_bytes=max(progress.peak_memory_bytes, governor.peak_bytes, memory_bytes()))


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
